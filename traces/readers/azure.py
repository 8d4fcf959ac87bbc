"""Single calls of the Azure LLM inference traces (AzurePublicDataset, 2023 and 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from hexopt.traces.readers.fields import cell_tokens, shown
from hexopt.traces.readers.source import Source
from hexopt.traces.workflow import Stage, TraceError, Workflow


def read(source: Source) -> Iterator[Workflow]:
    """Yield one workflow of one ``chat`` stage a row of ``TIMESTAMP,ContextTokens,GeneratedTokens``.

    Arrivals count from the first row; times without a zone are taken as UTC and digits beyond microseconds
    are cut. Rows without prompt or output tokens are calls that failed: skipped and counted.
    """
    first: datetime | None = None
    for line, columns, cells in source.rows(("timestamp", "contexttokens", "generatedtokens")):
        with source.at(f"line {line}"):
            time = _time(cells[columns["timestamp"]])
            first = first or time
            arrival = (time - first).total_seconds()
            if arrival < 0:
                raise TraceError(f"TIMESTAMP is before that of the first row, {first:%Y-%m-%d %H:%M:%S.%f}")
            prompt = cell_tokens(cells[columns["contexttokens"]], "ContextTokens")
            output = cell_tokens(cells[columns["generatedtokens"]], "GeneratedTokens")
            if prompt and output:
                yield Workflow(f"call-{line}", (Stage("0", "chat", prompt, output),), arrival, family="chat")
            else:
                source.tally("skipped {n} calls without prompt or output tokens")


def _time(cell: str) -> datetime:
    try:
        time = datetime.fromisoformat(cell.strip())
    except ValueError:
        raise TraceError(f"TIMESTAMP is {shown(cell)}, expected a time like 2023-11-16 18:15:46.6805900") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
