"""Coding-agent sessions as a flat table: one row a call (from callanjfox/kv-cache-tester)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from hexopt.traces.readers.agent_sessions import Call, SubAgent, session_stages
from hexopt.traces.readers.fields import cell_number, cell_tokens, optional_cell_number
from hexopt.traces.readers.source import Source
from hexopt.traces.workflow import Prefix, TraceError, Workflow

BLOCK_TOKENS = 64
"""Tokens a cached block in the recorded sessions; a tail shorter than a block is shared with nobody."""

_COLUMNS = (
    "trace_id",
    "idx",
    "agent",
    "subagent_type",
    "sub_duration_ms",
    "t_s",
    "in_tokens",
    "out_tokens",
    "cached_prefix_tokens",
    "api_time_s",
    "think_time_s",
)


class _Row(NamedTuple):
    line: int
    trace: str
    id: str
    agent: str
    subagent_type: str
    duration: float | None
    start: float
    prompt: int
    output: int
    cached: int
    service: float
    think: float | None


def read(source: Source) -> Iterator[Workflow]:
    """Yield one workflow a ``trace_id``, whose rows stand together.

    Forks, joins and delays follow ``agent_sessions.session_stages``. ``cached_prefix_tokens`` says how much
    of a prompt its agent's earlier prompt already held: the prompt follows that one's path so far and goes
    its own way from there; paths are local to the workflow. Rows with 0 output tokens are failures: skipped
    and counted.
    """
    for trace, rows in groupby(_rows(source), key=lambda row: row.trace):
        together = list(rows)
        with source.at(f"line {together[0].line}: trace {trace!r}"):
            stages, failed = session_stages(_events(together))
            if failed:
                source.tally("skipped {n} failed calls (no output tokens)", failed)
            if stages:
                yield Workflow(trace, stages, family="coding-agent")


def _rows(source: Source) -> Iterator[_Row]:
    for line, columns, cells in source.rows(_COLUMNS):
        with source.at(f"line {line}"):
            trace, id_, agent, subagent_type, duration, start, prompt, output, cached, service, think = (
                cells[columns[name]] for name in _COLUMNS
            )
            if not (trace and id_ and agent):
                raise TraceError("trace_id, idx or agent is empty")
            milliseconds = optional_cell_number(duration, "sub_duration_ms")
            yield _Row(
                line,
                trace,
                id_,
                agent,
                subagent_type,
                None if milliseconds is None else milliseconds / 1e3,
                cell_number(start, "t_s"),
                cell_tokens(prompt, "in_tokens", least=1),
                cell_tokens(output, "out_tokens"),
                cell_tokens(cached, "cached_prefix_tokens"),
                optional_cell_number(service, "api_time_s") or 0.0,
                optional_cell_number(think, "think_time_s"),
            )


def _events(rows: list[_Row]) -> list[Call | SubAgent]:
    histories: dict[str, _History] = {}
    events: list[Call | SubAgent] = []
    for agent, group in groupby(rows, key=lambda row: row.agent):
        history = histories.setdefault(agent, _History(agent))
        calls: list[Call] = []
        for row in group:
            prefixes = history.prompt(row.prompt, row.cached)
            calls.append(Call(row.id, row.start, row.service, row.think, row.prompt, row.output, prefixes))
        if agent == "main":
            events += calls
        else:
            # The table gives every row of a sub-agent its session time, counted from the sub-agent's own.
            kind, duration = row.subagent_type or "agent", row.duration
            events.append(SubAgent(kind, calls[0].start, duration, tuple(calls), absolute=False))
    return events


class _History:
    """Paths of one agent's prompts: each follows the one before for as long as it was cached."""

    def __init__(self, agent: str) -> None:
        self._agent = agent
        self._path: list[Prefix] = []
        self._segments = 0

    def prompt(self, tokens: int, cached: int) -> tuple[Prefix, ...]:
        full = tokens // BLOCK_TOKENS * BLOCK_TOKENS
        left = min(cached, full)
        kept: list[Prefix] = []
        whole = True
        for prefix in self._path:
            if left < prefix.tokens:
                whole = False
                if left:
                    kept.append(Prefix(prefix.segment, left, local=True))
                left = 0
                break
            kept.append(prefix)
            left -= prefix.tokens
        covered = sum(prefix.tokens for prefix in kept)
        if full > covered:
            if whole and kept:
                last = kept.pop()
                kept.append(Prefix(last.segment, last.tokens + full - covered, local=True))
            else:
                kept.append(Prefix(f"{self._agent}-{self._segments}", full - covered, local=True))
                self._segments += 1
        self._path = kept
        return tuple(kept)
