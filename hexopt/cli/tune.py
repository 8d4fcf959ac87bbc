"""``hexopt tune``: objective weights that fit a workload."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hexopt.cli import parallel

if TYPE_CHECKING:
    from hexopt.policies.policy import Policy
    from hexopt.traces import Workflow
    from hexopt.tuning import TuningReport

Sampler = Literal["tpe", "nsga2"]


def tune(
    cluster: Annotated[str, typer.Option(help="Cluster TOML, or a bundled one: hetero-1, hetero-2, a100, h100-l40s.")],
    trace: Annotated[
        str | None, typer.Option(help="Trace file or folder, or a bundled sample: text-to-sql, coding-agent.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Database of a gateway, for the traffic that it served: sqlite:///hexopt.db.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="--store: arrived at this time or later; ISO 8601, UTC.")] = None,
    until: Annotated[str | None, typer.Option(help="--store: arrived before this time.")] = None,
    trace_format: Annotated[str | None, typer.Option("--format", help="Trace format; guessed by default.")] = None,
    rate: Annotated[float | None, typer.Option(help="Workflows a second; by default the trace's own times.")] = None,
    load: Annotated[float | None, typer.Option(help="Rate as a share of the cluster's measured capacity.")] = None,
    slo: Annotated[float | None, typer.Option(help="Deadline of every workflow, seconds.")] = None,
    slo_factor: Annotated[
        float, typer.Option(help="Deadline as a multiple of the family's mean stand-alone latency.")
    ] = 3.0,
    drop_long: Annotated[
        bool, typer.Option("--drop-long", help="Leave out workflows with a call longer than every context.")
    ] = False,
    policy: Annotated[str, typer.Option(help="Whose weights: rolling-horizon or greedy-urgency.")] = "rolling-horizon",
    weights: Annotated[
        str | None, typer.Option(help="rolling-horizon: the present objective: a preset, weights, or a TOML file.")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="What to improve, one or more with commas: attainment, p95, cost.")
    ] = "attainment,p95",
    trials: Annotated[int, typer.Option(help="Weights to try.")] = 48,
    workflows: Annotated[int, typer.Option(help="Workflows of a simulation; the first, short ones have half.")] = (200),
    seeds: Annotated[int, typer.Option(help="Simulations of each weights in the last round of the search.")] = 4,
    held_out: Annotated[int, typer.Option(help="Simulations on held-out traffic to judge by.")] = 20,
    sampler: Annotated[Sampler, typer.Option(help="Optuna's sampler.")] = "tpe",
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    jobs: parallel.Jobs = None,
    ray: parallel.Ray = None,
    resume: parallel.Resume = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[Path | None, typer.Option(help="TOML file for the weights, written only if they win.")] = None,
) -> None:
    """Search objective weights by simulation, and say whether they win on traffic that was not searched on."""
    from hexopt.cli import console
    from hexopt.cli.simulate import check_positive, rate_at, that_fit
    from hexopt.cluster import load_cluster
    from hexopt.tuning import Scenario, Settings
    from hexopt.tuning import tune as search
    from hexopt.tuning.weights import write_weights

    check_positive(rate=rate, load=load, slo=slo, slo_factor=slo_factor)
    if rate is not None and load is not None:
        raise ValueError("--rate and --load: give one of the two")
    settings = Settings(
        goals=tuple(name.strip() for name in objective.split(",")),
        trials=trials, workflows=workflows, seeds=seeds, held_out=held_out, sampler=sampler, seed=seed,
    )  # fmt: skip
    chosen = _frozen(policy, weights)
    if out is not None:
        console.check_writable("--out", out)
        if chosen.name != "rolling-horizon":
            raise ValueError(f"--out: weights files are rolling-horizon's, not {chosen.name}'s")
    fleet = load_cluster(cluster)
    pool = that_fit(_workflows(trace, trace_format, store, since, until), fleet, drop_long)
    scenario = Scenario.of(pool, fleet, rate=rate or load, slo=slo, slo_factor=slo_factor)
    if load is not None:
        scenario = replace(scenario, rate=rate_at(scenario.experiment, load))
    with parallel.runner("Simulating", jobs, ray, resume) as runner:
        report = search(runner, scenario, chosen, settings)
    if as_json:
        print(json.dumps(report.row(), allow_nan=False))
    else:
        _print(report, f"{fleet.name}, held-out traffic, {held_out} x {workflows} workflows")
    if out is not None and report.wins:
        words = (
            f"Found by hexopt tune, {datetime.now(UTC):%Y-%m-%d}, for {fleet.name}, {trace or store}.\n{report.verdict}"
        )
        write_weights(out, report.found, words)
        console.note(f"Wrote {out}")
    elif out is not None:
        console.note(f"Did not write {out}: {report.verdict}")


def _frozen(text: str, weights: str | None) -> Policy:
    """The policy to tune; its solver takes no time, so that runs repeat."""
    from hexopt.policies.registry import make_policy
    from hexopt.policies.rolling_horizon import RollingHorizon
    from hexopt.tuning.space import objective_of

    chosen = make_policy(text)
    if isinstance(chosen, RollingHorizon):
        return replace(chosen, freeze=True, objective=weights or chosen.objective)
    if weights is not None:
        raise ValueError("--weights belongs to --policy rolling-horizon")
    objective_of(chosen)
    return chosen


def _workflows(
    trace: str | None, trace_format: str | None, store: str | None, since: str | None, until: str | None
) -> list[Workflow]:
    from hexopt.cli import console
    from hexopt.cli.traces import traffic_of

    if (trace is None) == (store is None):
        raise ValueError("--trace and --store: give one of the two")
    if store is None:
        if since is not None or until is not None:
            raise ValueError("--since and --until belong to --store")
        return console.load_workflows(trace or "", trace_format)
    return list(traffic_of(store, since, until, None).workflows())


def _print(report: TuningReport, title: str) -> None:
    from rich import box
    from rich.table import Table

    from hexopt.cli import console
    from hexopt.tuning import GOALS

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("policy", overflow="fold")
    for column in ("P95 s", "in time", "cost"):
        table.add_column(column, justify="right")
    for row in report.contestants:
        figures = row.figures
        cells = (f"{figures.p95:,.1f}", f"{figures.attainment:.1%}", f"{figures.cost:.4g}")
        table.add_row(row.role, row.policy, *cells, style="bold" if row.role == "found" and report.wins else None)
    console.out.print(table)
    for gain in report.gains:
        goal = GOALS[gain.goal]
        low, high = sorted((gain.gain.low, gain.gain.high), reverse=goal.direction == "minimize")
        text = (
            f"against {gain.against}, {goal.words}: {goal.said(gain.gain.mean)}, {goal.said(low)} to {goal.said(high)}"
        )
        console.out.print(text, markup=False, highlight=False)
    console.out.print(f"{report.verdict}\nweights found: {report.found}", markup=False, highlight=False, soft_wrap=True)
