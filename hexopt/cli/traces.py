"""``hexopt traces``: look at, convert, export and synthesize traces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hexopt.service.traffic import Traffic
    from hexopt.traces.statistics import TraceSummary

app = typer.Typer(help="Look at, convert, export and synthesize traces.", no_args_is_help=True)


@app.command()
def info(
    trace: Annotated[str, typer.Argument(help="Trace file or folder, or a bundled sample.")],
    trace_format: Annotated[str | None, typer.Option("--format", help="Trace format; guessed by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a trace holds."""
    from hexopt.cli import console
    from hexopt.traces.statistics import describe

    summary = describe(console.load_workflows(trace, trace_format, flag="trace"))
    if as_json:
        print(json.dumps(console.plain(summary)))
    else:
        _print(trace, summary)


@app.command()
def convert(
    trace: Annotated[str, typer.Argument(help="Trace file or folder, or a bundled sample.")],
    out: Annotated[Path, typer.Argument(help="agentic_mooncake v2 file to write; .gz packs it.")],
    trace_format: Annotated[str | None, typer.Option("--format", help="Trace format; guessed by default.")] = None,
    block_size: Annotated[int, typer.Option(help="Tokens a block hash stands for.", min=1)] = 64,
) -> None:
    """Write a trace in the interchange format, agentic_mooncake v2."""
    from hexopt.cli import console
    from hexopt.traces import write_trace

    workflows = console.load_workflows(trace, trace_format, flag="trace")
    write_trace(workflows, out, block_size=block_size)
    console.say_written(workflows, out)


@app.command()
def export(
    store: Annotated[str, typer.Option(help="Database of a gateway: sqlite:///hexopt.db, postgresql://...")],
    out: Annotated[Path, typer.Option(help="agentic_mooncake v2 file to write; .gz packs it.")],
    since: Annotated[str | None, typer.Option(help="Arrived at this time or later; ISO 8601, UTC by default.")] = None,
    until: Annotated[str | None, typer.Option(help="Arrived before this time.")] = None,
    tenant: Annotated[str | None, typer.Option(help="This tenant's only.")] = None,
    block_size: Annotated[int, typer.Option(help="Tokens a block hash stands for.", min=1)] = 64,
) -> None:
    """Write the traffic that a gateway has served as a trace, to simulate it again."""
    from itertools import chain

    from hexopt.cli import console
    from hexopt.traces import Workflow, write_trace

    traffic = traffic_of(store, since, until, tenant)
    console.check_writable("--out", out)
    found = traffic.workflows()
    first = next(found, None)
    if first is None:
        name = traffic.database.name
        raise ValueError(f"--store {name}: holds no finished workflow that arrived in this time, expected one")
    calls = 0

    def counted() -> Iterator[Workflow]:
        nonlocal calls
        for workflow in chain((first,), found):
            calls += len(workflow.stages)
            yield workflow

    written = write_trace(counted(), out, block_size=block_size)
    console.note(f"Wrote {written} workflows, {calls} calls to {out}")
    if traffic.left_out:
        console.note(f"Left out {traffic.left_out} calls that failed or whose lengths are unknown", style="dim")


def _moment(flag: str, text: str | None) -> float | None:
    """Unix seconds of an ISO 8601 date or time."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{flag} is {text!r}, expected a time like 2026-01-01T00:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def traffic_of(store: str, since: str | None, until: str | None, tenant: str | None) -> Traffic:
    """What a gateway's database holds of this time."""
    try:
        from hexopt.service.database import Database
        from hexopt.service.traffic import Traffic
    except ModuleNotFoundError as error:
        raise ValueError(f"--store needs {error.name}: pip install 'hexopt[service]'") from error
    return Traffic(Database(store), _moment("--since", since), _moment("--until", until), tenant)


@app.command()
def synth(
    family: Annotated[str, typer.Argument(help="Workload family, or mix.")],
    out: Annotated[Path, typer.Argument(help="agentic_mooncake v2 file to write; .gz packs it.")],
    workflows: Annotated[int, typer.Option(help="How many.", min=1)] = 300,
    rate: Annotated[float, typer.Option(help="Poisson arrivals, workflows a second.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.", min=0)] = 0,
) -> None:
    """Draw workflows of a family from published distributions."""
    import numpy as np

    from hexopt.cli import console
    from hexopt.traces import write_trace
    from hexopt.traces.arrivals import poisson, with_arrivals
    from hexopt.traces.synthesis import synthesize

    rng = np.random.default_rng(seed)
    drawn = synthesize(family, workflows, rng)
    drawn = with_arrivals(drawn, poisson(rate, workflows, rng))
    write_trace(drawn, out)
    console.say_written(drawn, out)


def _print(name: str, summary: TraceSummary) -> None:
    from rich.markup import escape
    from rich.table import Table

    from hexopt.cli.console import out

    rate = "no arrival times" if summary.arrival_rate is None else f"{summary.arrival_rate:.4g} workflows/s"
    families = ", ".join(f"{escape(family) or 'unnamed'} {count}" for family, count in summary.families.items())
    out.print(
        f"[bold]{escape(name)}[/bold]: {summary.workflows:,} workflows ({families}), {summary.calls:,} calls, {rate}"
    )
    out.print(
        f"{summary.prompt_tokens:,} prompt and {summary.output_tokens:,} output tokens; an endless prefix cache would "
        f"hold {summary.prefix_hit_ratio:.1%} of the prompts; {summary.with_deadline:,} workflows have a deadline",
        highlight=False,
    )
    shapes = Table(title="Per workflow", title_justify="left")
    columns = ("mean", "min", "p50", "p95", "max")
    for column in ("", *columns):
        shapes.add_column(column, justify="left" if not column else "right")
    for label, spread in (
        ("calls", summary.calls_per_workflow),
        ("depth", summary.depth),
        ("width", summary.width),
        ("output tokens on the longest path", summary.critical_output_tokens),
        ("tool seconds", summary.tool_seconds),
    ):
        shapes.add_row(label, *(f"{getattr(spread, c):,.4g}" for c in columns))
    out.print(shapes)
    kinds = Table(title="Per kind", title_justify="left")
    for column in ("kind", "calls", "prompt mean", "p95", "output mean", "p95", "shared prefix"):
        kinds.add_column(column, justify="left" if column == "kind" else "right")
    for kind, k in summary.kinds.items():
        kinds.add_row(
            escape(kind), f"{k.calls:,}", f"{k.prompt.mean:,.0f}", f"{k.prompt.p95:,.0f}", f"{k.output.mean:,.0f}",
            f"{k.output.p95:,.0f}", f"{k.prefix_hit_ratio:.0%}",
        )  # fmt: skip
    out.print(kinds)
