"""The interchange format: agentic Mooncake, version 2 (NVIDIA Dynamo, ``dynamo-data-gen`` 1.6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from hexopt.traces.readers.block_paths import BlockPaths
from hexopt.traces.readers.fields import (
    field,
    mapping,
    number,
    optional_number,
    sequence,
    shown,
    text,
    tokens,
)
from hexopt.traces.readers.source import Source, parse_json
from hexopt.traces.workflow import Prefix, Stage, TraceError, Workflow, topological

SCHEMA = "dynamo.agentic_mooncake"
VERSION = 2
EXTENSION = "x_hexopt"
"""Key of the object that holds what the format has no place for; foreign readers ignore it."""

_TRIGGERS = ("dispatch", "completion")
_RELATIONS = ("sequence", "spawn", "join", "replay_barrier")


@dataclass(frozen=True, slots=True)
class _Dependency:
    request: str
    dispatch: bool
    delay: float


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    play: str
    request: str
    prompt: int
    output: int
    blocks: list[int] | None
    not_before: float
    dependencies: tuple[_Dependency, ...]
    extension: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Header:
    block_tokens: int
    local: bool
    grouped: bool


def read(source: Source) -> Iterator[Workflow]:
    """Yield one workflow a play of a JSONL file: a header line, then one line a request.

    Rows of a play may be interleaved with others and in any order, unless the file is HexOpt's own, which
    keeps plays together and is streamed.

    What the workflow model has no equivalent for is approximated, and said so in a remark:

    * several dependencies with different delays: the largest delay, counted from the last parent's end;
    * trigger ``dispatch`` (ready when the other request *starts*): the other's own parents, its delay added;
    * ``not_before_ms`` of a request with dependencies: left out, as the dependencies already time it. Without
      dependencies it sets the arrival (the earliest of the play) and the delay after it.

    Requests without output tokens count as one token long. ``priority``, ``policy_class``, ``session_id`` and
    ``model`` have no place in a workflow.
    """
    header: _Header | None = None
    paths: BlockPaths | None = None
    plays: dict[str, list[_Row]] = {}
    ended: set[str] = set()
    for line, content in source.lines():
        if header is None:
            try:
                header = _header(parse_json(content))
            except TraceError as error:
                raise source.error(f"line {line}: {error}") from None
            if not header.local:
                paths = BlockPaths(header.block_tokens, local=False)
            continue
        row: _Row | None = None
        with source.at(f"line {line}"):
            row = _row(line, mapping(parse_json(content), "the record"), source)
            if row.play in ended:
                raise TraceError(f"play_id {shown(row.play)} comes again; the header promises plays kept together")
        if row is None or row.play in ended:
            continue
        if header.grouped and row.play not in plays:
            for name, rows in plays.items():
                yield from _workflow(source, header, paths, name, rows)
            ended.update(plays)
            plays.clear()
        plays.setdefault(row.play, []).append(row)
    if header is None:
        raise source.error("is empty")
    for name, rows in plays.items():
        yield from _workflow(source, header, paths, name, rows)


def _header(value: Any) -> _Header:
    record = mapping(value, "the header")
    schema, version = field(record, "schema"), field(record, "version")
    if schema != SCHEMA:
        raise TraceError(f"schema is {shown(schema)}, expected {SCHEMA!r}")
    if version != VERSION or isinstance(version, bool):
        raise TraceError(f"version is {shown(version)}, expected {VERSION}; other versions are not read")
    scope = record.get("hash_id_scope", "local")
    if scope not in ("local", "global"):
        raise TraceError(f"hash_id_scope is {shown(scope)}, expected 'local' or 'global'")
    own = mapping(record.get(EXTENSION, {}), EXTENSION)
    return _Header(tokens(record, "block_size", least=1), scope == "local", own.get("plays_together") is True)


def _row(line: int, record: Mapping[str, Any], source: Source) -> _Row:
    prompt_name = "input_tokens" if "input_length" not in record else "input_length"
    output_name = "output_tokens" if "output_length" not in record else "output_length"
    if not (output := tokens(record, output_name)):
        source.tally("took {n} requests without output tokens as one token long")
    blocks = record.get("hash_ids")
    if blocks is not None and not all(type(block) is int for block in sequence(blocks, "hash_ids")):
        raise TraceError("hash_ids holds something else than whole numbers")
    dependencies = sequence(record.get("dependencies", []), "dependencies")
    return _Row(
        line=line,
        play=text(record, "play_id"),
        request=text(record, "request_id"),
        prompt=tokens(record, prompt_name, least=1),
        output=output or 1,
        blocks=blocks,
        not_before=(optional_number(record, "not_before_ms") or 0.0) / 1e3,
        dependencies=tuple(_dependency(d, f"dependencies[{i}]") for i, d in enumerate(dependencies)),
        extension=mapping(record.get(EXTENSION, {}), EXTENSION),
    )


def _dependency(value: Any, where: str) -> _Dependency:
    record = mapping(value, where)
    for name, allowed in (("trigger", _TRIGGERS), ("relation", _RELATIONS)):
        if (given := field(record, name, f"{where}.")) not in allowed:
            raise TraceError(f"{where}.{name} is {shown(given)}, expected one of {', '.join(allowed)}")
    return _Dependency(
        text(record, "request_id", f"{where}."),
        record["trigger"] == "dispatch",
        number(record, "delay_ms", f"{where}.") / 1e3,
    )


def _workflow(
    source: Source, header: _Header, paths: BlockPaths | None, play: str, rows: list[_Row]
) -> Iterator[Workflow]:
    paths = paths or BlockPaths(header.block_tokens, local=True)
    with source.at(f"play {shown(play)} (line {rows[0].line} on)"):
        arrival = min((row.not_before for row in rows if not row.dependencies), default=0.0)
        timing = _timing(rows, arrival, source)
        names = {row.request: _extended(row.extension, "stage", str, row.request) for row in rows}
        stages: list[Stage] = []
        for row in rows:
            parents, delay = timing[row.request]
            with_prefixes = row.extension.get("prefixes")
            stages.append(
                Stage(
                    id=names[row.request],
                    kind=_extended(row.extension, "kind", str, "call"),
                    prompt_tokens=row.prompt,
                    output_tokens=row.output,
                    parents=tuple(names[parent] for parent in parents),
                    prefixes=paths.prefixes(row.blocks or (), row.prompt)
                    if with_prefixes is None
                    else _prefixes(with_prefixes),
                    output_segment=_extended(row.extension, "output_segment", str, None),
                    tool_delay=_extended(row.extension, "tool_delay_s", float, delay),
                )
            )
        about = mapping(rows[0].extension.get("workflow", {}), f"{EXTENSION}.workflow")
        yield Workflow(
            id=play,
            stages=_ordered(stages),
            arrival=_extended(about, "arrival_s", float, arrival),
            deadline=_extended(about, "deadline_s", float, None),
            weight=_extended(about, "weight", float, 1.0),
            tenant=_extended(about, "tenant", str, ""),
            family=_extended(about, "family", str, ""),
        )


def _extended(record: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    value = record.get(name, default)
    if value is default:
        return default
    if kind is float:
        return number(record, name, f"{EXTENSION}.")
    if not isinstance(value, kind):
        raise TraceError(f"{EXTENSION}.{name} is {shown(value)}, expected a string")
    return value


def _prefixes(value: Any) -> tuple[Prefix, ...]:
    prefixes: list[Prefix] = []
    for index, entry in enumerate(sequence(value, f"{EXTENSION}.prefixes")):
        where = f"{EXTENSION}.prefixes[{index}]"
        record = mapping(entry, where)
        local = record.get("local", False)
        if not isinstance(local, bool):
            raise TraceError(f"{where}.local is {shown(local)}, expected true or false")
        segment = field(record, "segment", f"{where}.")
        if not isinstance(segment, str):
            raise TraceError(f"{where}.segment is {shown(segment)}, expected a string")
        prefixes.append(Prefix(segment, tokens(record, "tokens", f"{where}.", least=1), local))
    return tuple(prefixes)


def _timing(rows: list[_Row], arrival: float, source: Source) -> dict[str, tuple[tuple[str, ...], float]]:
    """Return (parents, delay) by request, every dispatch trigger resolved to completions."""
    by_request = {row.request: row for row in rows}
    if len(by_request) < len(rows):
        twice = next(row for row in rows if by_request[row.request] is not row)
        raise TraceError(f"two requests are named {shown(twice.request)}")
    for row in rows:
        for dependency in row.dependencies:
            if dependency.request not in by_request:
                raise TraceError(
                    f"request {shown(row.request)} depends on {shown(dependency.request)}, "
                    "which is no request of the play"
                )
    graph = {row.request: [dependency.request for dependency in row.dependencies] for row in rows}
    timing: dict[str, tuple[tuple[str, ...], float]] = {}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise TraceError(f"dependencies form a cycle: {', '.join(error.args[1])}") from None
    for request in order:
        row = by_request[request]
        if not row.dependencies:
            timing[request] = ((), row.not_before - arrival)
            continue
        parents: list[str] = []
        delays: list[float] = []
        for dependency in row.dependencies:
            if dependency.dispatch:
                before, earlier = timing[dependency.request]
                parents.extend(parent for parent in before if parent not in parents)
                delays.append(earlier + dependency.delay)
                source.tally("approximated {n} dispatch triggers by the parents of the request they wait for")
            else:
                parents.append(dependency.request)
                delays.append(dependency.delay)
        if min(delays) < max(delays):
            source.tally("took the largest of several delays for {n} requests")
        timing[request] = (tuple(parents), max(delays))
    return timing


def _ordered(stages: list[Stage]) -> tuple[Stage, ...]:
    seen: set[str] = set()
    for stage in stages:
        if not seen.issuperset(stage.parents):
            return topological(stages)
        seen.add(stage.id)
    return tuple(stages)
