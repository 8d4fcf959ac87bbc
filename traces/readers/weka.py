"""Coding-agent sessions as JSON, one object a session (WEKA / AgentX, callanjfox/kv-cache-tester)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hexopt.traces.readers.agent_sessions import Call, SubAgent, session_stages
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
from hexopt.traces.readers.source import Source
from hexopt.traces.workflow import Prefix, TraceError, Workflow

_BLOCK_TOKENS = 64
_INSTRUCTIONS = ("tool_tokens", "system_tokens")


def read(source: Source) -> Iterator[Workflow]:
    """Yield one workflow a session: a JSON object a file or a line.

    Forks, joins and delays follow ``agent_sessions.session_stages``. Calls inside a sub-agent count their
    time from the sub-agent, or from the session where the first of them is not before the sub-agent's own
    time. ``hash_ids`` become segments local to the workflow; a prompt's first ``tool_tokens +
    system_tokens``, where the session or the sub-agent states them, become a global segment named after the
    two numbers, as two sessions that agree in both are taken to have the same tools and instructions. Calls
    with 0 output tokens are failures: skipped and counted.
    """
    for where, document in source.documents():
        sessions = document if isinstance(document, list) else [document]
        for index, session in enumerate(sessions):
            with source.at(f"{where}, [{index}]" if isinstance(document, list) else where):
                record = mapping(session, "the document")
                id_ = text(record, "id")
                block = tokens(record, "block_size", least=1) if "block_size" in record else _BLOCK_TOKENS
                stages, failed = session_stages(_Session(block).events(record, ""))
                if failed:
                    source.tally("skipped {n} failed calls (no output tokens)", failed)
                if stages:
                    yield Workflow(id_, stages, family="coding-agent")


class _Session:
    """Reads the requests of one session."""

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._paths = BlockPaths(block_tokens, local=True)
        self._instructions: dict[str, tuple[str, int]] = {}
        self._calls = 0

    def events(self, record: Mapping[str, Any], where: str) -> tuple[Call | SubAgent, ...]:
        """Return the calls and sub-agents of a session or a sub-agent, in order."""
        instructions = sum(tokens(record, name, where) for name in _INSTRUCTIONS if record.get(name) is not None)
        name = "instructions:" + "+".join(f"{record.get(name) or 0}" for name in _INSTRUCTIONS)
        events: list[Call | SubAgent] = []
        for index, value in enumerate(sequence(field(record, "requests", where), f"{where}requests")):
            place = f"{where}requests[{index}]"
            request = mapping(value, place)
            if request.get("type") == "subagent":
                events.append(self._sub_agent(request, f"{place}."))
            else:
                events.append(self._call(request, f"{place}.", name, instructions))
        return tuple(events)

    def _sub_agent(self, record: Mapping[str, Any], where: str) -> SubAgent:
        time = number(record, "t", where)
        milliseconds = optional_number(record, "duration_ms", where)
        kind = record.get("subagent_type") or "agent"
        if not isinstance(kind, str):
            raise TraceError(f"{where}subagent_type is {shown(kind)}, expected a string")
        events = self.events(record, where)
        first = next((event.start for event in events if isinstance(event, Call)), 0.0)
        duration = None if milliseconds is None else milliseconds / 1e3
        return SubAgent(kind, time, duration, events, absolute=first >= time)

    def _call(self, record: Mapping[str, Any], where: str, instructions: str, held: int) -> Call:
        id_ = f"{self._calls}"
        self._calls += 1
        prompt = tokens(record, "in", where, least=1)
        blocks = sequence(record.get("hash_ids") or [], f"{where}hash_ids")
        if not all(type(block) is int for block in blocks):
            raise TraceError(f"{where}hash_ids holds something else than whole numbers")
        prefixes = self._paths.prefixes(blocks, prompt)
        if prefixes:
            root = prefixes[0]
            shared = held // self._block_tokens * self._block_tokens
            known = self._instructions.setdefault(root.segment, (instructions, shared))
            prefixes = (*_split(root, *known), *prefixes[1:])
        return Call(
            id=id_,
            start=number(record, "t", where),
            service=optional_number(record, "api_time", where) or 0.0,
            think=optional_number(record, "think_time", where),
            prompt_tokens=prompt,
            output_tokens=tokens(record, "out", where),
            prefixes=prefixes,
        )


def _split(root: Prefix, name: str, length: int) -> tuple[Prefix, ...]:
    """Return ``root`` with its first ``length`` tokens as a global segment of their own."""
    if not length:
        return (root,)
    head = Prefix(name, min(length, root.tokens))
    rest = root.tokens - head.tokens
    return (head, Prefix(root.segment, rest, local=True)) if rest else (head,)
