"""Writes workflows in the interchange format, agentic Mooncake version 2."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from itertools import count, islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from hexopt.traces.readers.agentic_mooncake import EXTENSION, SCHEMA, VERSION
from hexopt.traces.workflow import Stage, TraceError, Workflow


def write_trace(workflows: Iterable[Workflow], path: Path, *, block_size: int = 64, model: str = "unspecified") -> int:
    """Write ``workflows`` as agentic Mooncake version 2, so that reading the file gives them back exactly.

    Every request carries plain ``hash_ids``, typed dependencies and ``not_before_ms`` for any reader of the
    format; what the format has no place for stands in an ``x_hexopt`` object beside them. Two prompts agree
    on a leading block's id where their prefixes agree on all its tokens; ids are unique over the file,
    although the scope is declared ``local`` (a play), the only one Dynamo accepts.

    Parameters
    ----------
    workflows
        Written as they come, one at a time; ids unique.
    path
        File to write; compressed where its name ends in ``.gz``. It appears whole or not at all.
    block_size
        Tokens a hash id stands for. The file holds one id for so many prompt tokens: take a larger size for
        long prompts where sharing in other tools need not be exact. HexOpt's own reading does not depend on
        it.
    model
        Model name put on every request; the format demands one.

    Returns
    -------
    int
        Workflows written.

    Raises
    ------
    TraceError
        On two workflows of one id, a block size below 1, or a path that cannot be written.
    """
    if block_size < 1:
        raise TraceError(f"block_size is {block_size}, expected at least 1")
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with _opened(unfinished, packed=path.suffix == ".gz") as stream:
                written = _write(workflows, stream, block_size, model)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise TraceError(f"{path}: cannot be written: {error.strerror or error}") from None
    return written


@contextmanager
def _opened(path: Path, *, packed: bool) -> Iterator[TextIO]:
    with ExitStack() as stack:
        raw: BinaryIO = stack.enter_context(path.open("wb"))
        if packed:
            # Neither name nor time inside, so that the same workflows give the same bytes.
            raw = stack.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0))  # type: ignore[assignment]
        yield stack.enter_context(TextIOWrapper(raw, encoding="ascii", newline="\n"))


def _write(workflows: Iterable[Workflow], stream: TextIO, block_size: int, model: str) -> int:
    header = {
        "schema": SCHEMA,
        "version": VERSION,
        "block_size": block_size,
        "hash_id_scope": "local",
        "source": {"format": "hexopt", "digest": "none"},
        EXTENSION: {"plays_together": True},
    }
    stream.write(_line(header))
    blocks = _BlockIds(block_size)
    seen: set[str] = set()
    for workflow in workflows:
        if not workflow.id or workflow.id in seen:
            raise TraceError(f"workflow {workflow.id!r}: expected an id that is not empty and not written before")
        seen.add(workflow.id)
        blocks.forget_local()
        for row in _rows(workflow, blocks, model):
            stream.write(_line(row))
    return len(seen)


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n"


def _rows(workflow: Workflow, blocks: _BlockIds, model: str) -> Iterator[dict[str, Any]]:
    escaped = workflow.id.replace("%", "%25").replace("/", "%2F")
    sessions: dict[str, str] = {}
    continued: set[str] = set()
    about: dict[str, Any] | None = {
        "arrival_s": workflow.arrival,
        "weight": workflow.weight,
        "tenant": workflow.tenant,
        "family": workflow.family,
    } | ({} if workflow.deadline is None else {"deadline_s": workflow.deadline})
    for stage in workflow.stages:
        first = stage.parents[0] if stage.parents else None
        if first is None or first in continued:
            sessions[stage.id] = f"{escaped}/{stage.id}"
        else:
            sessions[stage.id] = sessions[first]
            continued.add(first)
        extension: dict[str, Any] = {
            "stage": stage.id,
            "kind": stage.kind,
            "tool_delay_s": stage.tool_delay,
            "prefixes": [
                {"segment": p.segment, "tokens": p.tokens} | ({"local": True} if p.local else {})
                for p in stage.prefixes
            ],
        }
        if stage.output_segment is not None:
            extension["output_segment"] = stage.output_segment
        if about is not None:
            extension["workflow"] = about
            about = None
        yield {
            "request_id": f"{escaped}/{stage.id}",
            "play_id": workflow.id,
            "session_id": sessions[stage.id],
            "model": model,
            "input_length": stage.prompt_tokens,
            "output_length": stage.output_tokens,
            "hash_ids": blocks.of(stage),
            "not_before_ms": 1e3 * (workflow.arrival + (0.0 if stage.parents else stage.tool_delay)),
            "dependencies": [
                {
                    "request_id": f"{escaped}/{parent}",
                    "trigger": "completion",
                    "relation": _relation(stage, parent, sessions),
                    "delay_ms": 1e3 * stage.tool_delay,
                }
                for parent in stage.parents
            ],
            EXTENSION: extension,
        }


def _relation(stage: Stage, parent: str, sessions: dict[str, str]) -> str:
    if len(stage.parents) > 1:
        return "join"
    return "sequence" if sessions[parent] == sessions[stage.id] else "spawn"


class _BlockIds:
    """Gives ids to blocks of tokens: equal prefixes from position zero get equal ids, all else fresh ones."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._fresh = count()
        self._global: dict[tuple[Any, ...], list[int]] = {}
        self._local: dict[tuple[Any, ...], list[int]] = {}

    def forget_local(self) -> None:
        """Start another workflow, whose local segments are none of the last one's."""
        self._local.clear()

    def of(self, stage: Stage) -> list[int]:
        """Return the ids of all blocks of the stage's prompt, the last one possibly not full."""
        size, filled, known = self._size, 0, self._global
        ids: list[int] = []
        pieces: list[tuple[str, bool, int, int]] = []
        for prefix in stage.prefixes:
            if prefix.local:
                known = self._local
            start = 0
            if filled:
                start = min(size - filled, prefix.tokens)
                pieces.append((prefix.segment, prefix.local, 0, start))
                filled += start
                if filled == size:
                    ids += self._run(known, (ids[-1] if ids else -1, *pieces), 1)
                    pieces, filled = [], 0
            if not filled and (full := (prefix.tokens - start) // size):
                ids += self._run(known, (ids[-1] if ids else -1, prefix.segment, prefix.local, start), full)
                start += full * size
            if start < prefix.tokens:
                pieces.append((prefix.segment, prefix.local, start, prefix.tokens - start))
                filled += prefix.tokens - start
        missing = -(-stage.prompt_tokens // size) - len(ids)
        return ids + list(islice(self._fresh, missing))

    def _run(self, known: dict[tuple[Any, ...], list[int]], key: tuple[Any, ...], length: int) -> list[int]:
        run = known.setdefault(key, [])
        run.extend(islice(self._fresh, max(0, length - len(run))))
        return run[:length]
