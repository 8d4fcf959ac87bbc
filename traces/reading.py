"""The front door: reads any of the supported trace formats as workflows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType

from hexopt.traces.readers import (
    agentic_mooncake,
    azure,
    burstgpt,
    hexgen_flow,
    mooncake,
    otel,
    weka,
    weka_table,
)
from hexopt.traces.readers.source import Source
from hexopt.traces.workflow import TraceError, Workflow

_READERS: MappingProxyType[str, Callable[[Source], Iterator[Workflow]]] = MappingProxyType(
    {
        "agentic-mooncake": agentic_mooncake.read,
        "mooncake": mooncake.read,
        "hexgen-flow": hexgen_flow.read,
        "weka": weka.read,
        "weka-table": weka_table.read,
        "azure": azure.read,
        "burstgpt": burstgpt.read,
        "otel": otel.read,
    }
)

FORMATS: tuple[str, ...] = tuple(_READERS)
"""Names of the formats that ``read_trace`` knows."""

_FOLDER_FORMATS = ("weka", "otel")
_FOLDER_ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_HEAD_CHARACTERS = 1 << 16

# A format is told by words that every file of it holds near its start; the first format to match has it.
_MARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("agentic-mooncake", ('"dynamo.agentic_mooncake"',)),
    ("hexgen-flow", ('"Text2SQLRequest"',)),
    ("otel", ('"resourceSpans"',)),
    ("otel", ('"span_id"',)),
    ("otel", ('"spans"',)),
    ("weka", ('"requests"', '"id"')),
    ("mooncake", ('"timestamp"', '"input_length"', '"output_length"', '"hash_ids"')),
)
_COLUMNS: tuple[tuple[str, frozenset[str]], ...] = (
    ("azure", frozenset({"timestamp", "contexttokens", "generatedtokens"})),
    ("burstgpt", frozenset({"timestamp", "request tokens", "response tokens"})),
    ("weka-table", frozenset({"trace_id", "agent", "in_tokens", "cached_prefix_tokens"})),
)


def iter_trace(
    path: Path,
    format: str | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    strict: bool = True,
    chain_sessions: bool = True,
) -> Iterator[Workflow]:
    """Yield the workflows of a trace one at a time.

    ``azure``, ``weka``, ``weka-table``, ``mooncake`` without session chaining and HexOpt's own
    ``agentic-mooncake`` files are streamed; the others need the whole file before the first workflow is known
    to be complete.

    Parameters
    ----------
    path
        File, gzip-compressed or not (told by its content), or, for ``weka`` and ``otel``, a folder whose
        ``.json`` and ``.jsonl`` files are read in the order of their names.
    format
        One of ``FORMATS``; ``None`` tells it from the content.
    progress
        Called now and then with (bytes read, bytes in all).
    on_note
        Called with remarks in plain words: what was estimated, approximated or skipped.
    strict
        Whether the first malformed record raises; otherwise malformed records are skipped, counted and noted.
        Damaged compression, encoding or headers raise in any case, as does a trace without one good record.
    chain_sessions
        Whether ``mooncake`` and ``burstgpt`` join the calls of one conversation to one workflow.

    Raises
    ------
    TraceError
        Naming file, record and field: on a file that cannot be read or recognised, on malformed records, and
        on a trace without a single workflow.
    """
    path = Path(path)
    paths = _paths(path)
    source = Source(paths, progress=progress, on_note=on_note, strict=strict, chain_sessions=chain_sessions)
    name = _sniffed(path, source) if format is None else format
    if name not in _READERS:
        raise TraceError(f"{path}: format is {name!r}, expected one of {', '.join(FORMATS)}")
    if path.is_dir() and name not in _FOLDER_FORMATS:
        raise TraceError(f"{path}: is a folder; {name} is read from one file ({' and '.join(_FOLDER_FORMATS)} may be)")
    seen: set[str] = set()
    for workflow in _READERS[name](source):
        if workflow.id in seen:
            raise TraceError(f"{source.path}: two workflows are named {workflow.id!r}")
        seen.add(workflow.id)
        yield workflow
    source.finish()
    if not seen:
        raise TraceError(f"{path}: holds no workflow (read as {name})")


def read_trace(
    path: Path,
    format: str | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    strict: bool = True,
    chain_sessions: bool = True,
) -> list[Workflow]:
    """Return all workflows of a trace; parameters and errors as of ``iter_trace``."""
    return list(
        iter_trace(path, format, progress=progress, on_note=on_note, strict=strict, chain_sessions=chain_sessions)
    )


def _paths(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name.endswith(_FOLDER_ENDINGS))
    if not files:
        raise TraceError(f"{path}: holds no file that ends in {', '.join(_FOLDER_ENDINGS)}")
    return files


def _sniffed(path: Path, source: Source) -> str:
    head = source.head(_HEAD_CHARACTERS)
    if not head.strip():
        raise TraceError(f"{source.path}: is empty")
    if head.lstrip()[0] in "{[":
        for name, words in _MARKS:
            if all(word in head for word in words):
                return name
    else:
        columns = {column.strip().lower() for column in head.lstrip().splitlines()[0].split(",")}
        for name, wanted in _COLUMNS:
            if wanted <= columns:
                return name
    raise TraceError(f"{path}: its format is not recognised; name it, one of {', '.join(FORMATS)}")
