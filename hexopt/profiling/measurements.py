"""What was measured on a server: the CSV of it, and the engine's steps that it shows.

A row is the median of several calls that were sent to a server which was decoding ``concurrency - 1`` others. Columns:

- ``point``: number of the point of the grid; its rows differ in what the prefix cache held.
- ``endpoint``: ``chat`` or ``completion``.
- ``prompt_tokens``, ``cached_tokens``: of the call's prompt, by the server's count; those that its prefix cache held.
- ``concurrency``: calls in the server, this one included.
- ``others_context``: tokens of the other calls, prompt and output, when this call's first token came (sum).
- ``ttft_s``: seconds from sending the call to its first token.
- ``stall_s``: seconds between the two tokens of another call of which the second came with this call's first, that is
  the step in which this prompt was computed; empty at concurrency 1.
- ``inter_token_s``: mean seconds between this call's tokens.
- ``decode_context``: tokens of all calls half-way through this one's output (sum).
- ``beyond``: 1 if the prompt is longer than those to learn from, else 0.
- ``repeats``: calls behind the row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from hexopt.atomic import atomic_write
from hexopt.models.profiling.steps import Step


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row; fields as the columns above."""

    point: int
    endpoint: str
    prompt_tokens: int
    cached_tokens: int
    concurrency: int
    others_context: int
    ttft_s: float
    stall_s: float | None
    inter_token_s: float
    decode_context: int
    beyond: bool
    repeats: int


COLUMNS = tuple(field.name for field in fields(Measurement))


def write_measurements(rows: Iterable[Measurement], path: Path) -> None:
    """Write the CSV, whole or not at all."""
    with atomic_write(path) as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in rows:
            table.writerow([_text(getattr(row, name)) for name in COLUMNS])


def _text(value: str | float | bool | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, bool) else f"{value:.6g}" if isinstance(value, float) else str(value)


def steps_of(rows: Sequence[Measurement], max_num_batched_tokens: int) -> list[Step]:
    """Steps that the measurements show: those between two tokens of a call, so that only the engine's time is in them.

    A call's own decoding shows steps of ``concurrency`` sequences. A prompt that comes to others that decode shows, as
    their stall, a step with one prefill chunk, if it fits into one step of at most ``max_num_batched_tokens``. The time
    to first token shows none: it holds the network, tokenization and the rest of the step before.
    """
    steps = []
    for row in rows:
        new = row.prompt_tokens - row.cached_tokens
        steps.append(Step(row.point, row.beyond, 0, 0, 0, row.concurrency, row.decode_context, row.inter_token_s))
        if row.stall_s is not None and new + row.concurrency - 1 <= max_num_batched_tokens:
            mixed = (1, new, row.cached_tokens, row.concurrency - 1, row.others_context)
            steps.append(Step(row.point, row.beyond, *mixed, row.stall_s))
    return steps
