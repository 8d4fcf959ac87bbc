"""Calls and conversations of the BurstGPT trace (HPMLL/BurstGPT, versions 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from hexopt.traces.readers.fields import cell_number, cell_tokens
from hexopt.traces.readers.source import Source
from hexopt.traces.workflow import Prefix, Stage, Workflow


class _Row(NamedTuple):
    time: float
    elapsed: float
    prompt: int
    output: int


def read(source: Source) -> Iterator[Workflow]:
    """Yield one workflow a conversation (rows of one ``Session ID``) and one a row without a session.

    The rows of a session run one after the other; the delay of a row is its timestamp minus the end
    (timestamp + elapsed time) of the row before, at least 0. A prompt at least as long as the previous prompt
    and output together is taken to quote both; a shorter one shares nothing. Rows with 0 response tokens are
    failures: skipped and counted. Workflows come in the order of their first rows, which needs the whole file
    where it has sessions.
    """
    sessions: dict[str, list[_Row]] = {}
    start: float | None = None
    for line, columns, cells in source.rows(("timestamp", "request tokens", "response tokens")):
        with source.at(f"line {line}"):
            time = cell_number(cells[columns["timestamp"]], "Timestamp")
            prompt = cell_tokens(cells[columns["request tokens"]], "Request tokens")
            output = cell_tokens(cells[columns["response tokens"]], "Response tokens")
            place = columns.get("elapsed time")
            elapsed = cell_number(cells[place], "Elapsed time") if place is not None and cells[place] else 0.0
            start = time if start is None else min(start, time)
            if not (prompt and output):
                source.tally("skipped {n} failed calls (no request or response tokens)")
                continue
            place = columns.get("session id")
            session = cells[place].strip() if source.chain_sessions and place is not None else ""
            id_ = f"session-{session}" if session else f"call-{line}"
            sessions.setdefault(id_, []).append(_Row(time, elapsed, prompt, output))
    for id_, rows in sessions.items():
        rows.sort()
        yield Workflow(id_, _stages(rows), rows[0].time - (start or 0.0), family="chat")


def _stages(rows: list[_Row]) -> tuple[Stage, ...]:
    quotes = [later.prompt >= row.prompt + row.output for row, later in pairwise(rows)] + [False]
    stages: list[Stage] = []
    path: tuple[Prefix, ...] = ()
    for turn, row in enumerate(rows):
        before = rows[turn - 1] if turn else None
        quoted = before.prompt + before.output if before and quotes[turn - 1] else 0
        if before and quoted:
            path += (Prefix(f"output-{turn - 1}", before.output, local=True),)
        else:
            path = ()
        if row.prompt > quoted:
            path += (Prefix(f"turn-{turn}", row.prompt - quoted, local=True),)
        stages.append(
            Stage(
                id=f"{turn}",
                kind="chat",
                prompt_tokens=row.prompt,
                output_tokens=row.output,
                parents=(f"{turn - 1}",) if turn else (),
                prefixes=path if quoted or quotes[turn] else (),
                output_segment=f"output-{turn}" if quotes[turn] else None,
                tool_delay=max(0.0, row.time - before.time - before.elapsed) if before else 0.0,
            )
        )
    return tuple(stages)
