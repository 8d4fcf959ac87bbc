"""``hexopt simulate``: a trace on a cluster under one or more policies."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hexopt.cluster import Cluster
    from hexopt.policies.policy import Policy
    from hexopt.simulation.experiment import Experiment
    from hexopt.simulation.metrics import Summary
    from hexopt.simulation.simulator import Run
    from hexopt.traces import Workflow

Arrivals = Literal["poisson", "gamma", "diurnal", "trace"]


def simulate(
    trace: Annotated[str, typer.Option(help="Trace file or folder, or a bundled sample: text-to-sql, coding-agent.")],
    cluster: Annotated[str, typer.Option(help="Cluster TOML, or a bundled one: hetero-1, hetero-2, a100, h100-l40s.")],
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Policy, may be given several times; parameters after a colon: hexgen-flow:alpha=0.3."),
    ] = None,
    solver: Annotated[
        str | None, typer.Option(help="Solver of rolling-horizon: annealing (default), portfolio, exact ...")
    ] = None,
    epoch: Annotated[
        str | None, typer.Option(help="rolling-horizon: time between solves while nothing happens (200ms).")
    ] = None,
    time_limit: Annotated[str | None, typer.Option(help="rolling-horizon: time that a solve may take (20ms).")] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="rolling-horizon: objective; deadline (default), attainment, latency, throughput, cost, fair, "
            "hexgen-flow, each with weights after a colon (deadline:price=5), or a TOML file."
        ),
    ] = None,
    freeze_solver: Annotated[
        bool, typer.Option("--freeze-solver", help="rolling-horizon: solving takes no time; runs repeat bit for bit.")
    ] = False,
    trace_format: Annotated[str | None, typer.Option("--format", help="Trace format; guessed by default.")] = None,
    rate: Annotated[float | None, typer.Option(help="Workflows a second; by default the trace's own times.")] = None,
    load: Annotated[float | None, typer.Option(help="Rate as a share of the cluster's measured capacity.")] = None,
    workflows: Annotated[int | None, typer.Option(help="Workflows to run; by default those of the trace.")] = None,
    arrivals: Annotated[Arrivals, typer.Option(help="Arrival process at the given rate.")] = "poisson",
    burstiness: Annotated[float, typer.Option(help="Coefficient of variation of gamma arrivals.")] = 2.0,
    period: Annotated[float, typer.Option(help="Period of diurnal arrivals, seconds.")] = 86400.0,
    drop_long: Annotated[
        bool, typer.Option("--drop-long", help="Leave out workflows with a call longer than every context.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    slo: Annotated[float | None, typer.Option(help="Deadline of every workflow, seconds.")] = None,
    slo_factor: Annotated[
        float, typer.Option(help="Deadline as a multiple of the family's mean stand-alone latency.")
    ] = 3.0,
    training: Annotated[
        str | None, typer.Option(help="Trace that predictors start from; by default every fifth workflow.")
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option(
            help="What happens to an instance: 'NAME down at 300s for 120s', 'NAME drains at 5min', 'NAME starts at "
            "60s', or a TOML file with a list of such events; several times."
        ),
    ] = None,
    until: Annotated[float | None, typer.Option(help="Stop at this simulated time, seconds.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a policy.")] = False,
    export: Annotated[
        list[Path] | None,
        typer.Option(help="Write the last policy's run: .json, .parquet, or .trace.json for Perfetto; several times."),
    ] = None,
    page: Annotated[Path | None, typer.Option(help="Write a self-contained HTML page.")] = None,
) -> None:
    """Simulate a trace on a cluster under one or more policies and compare them."""
    check_positive(
        rate=rate, load=load, slo=slo, slo_factor=slo_factor, until=until, burstiness=burstiness, period=period,
        workflows=workflows,
    )  # fmt: skip
    if rate is not None and load is not None:
        raise ValueError("--rate and --load: give one of the two")
    if seed < 0:
        raise ValueError(f"--seed is {seed}, expected at least 0")
    from hexopt.cli import console
    from hexopt.cluster import load_cluster
    from hexopt.policies.registry import make_policy
    from hexopt.simulation.events import event_table, parse_events
    from hexopt.simulation.experiment import Experiment
    from hexopt.simulation.metrics import summarise

    for path in export or ():
        _check_export(path)
    if page is not None:
        console.check_writable("--page", page)
    policies = [make_policy(text) for text in policy or ["greedy-urgency"]]
    policies = _with_settings(policies, solver, epoch, time_limit, weights, freeze_solver)
    fleet = load_cluster(cluster)
    events = parse_events(event or ())
    event_table(events, fleet)  # refuses them before the work begins
    pool = console.load_workflows(trace, trace_format)
    pool = that_fit(pool, fleet, drop_long)
    known = console.load_workflows(training, flag="--training") if training else None
    experiment = Experiment.of(pool, fleet, training=known, slo=slo, slo_factor=slo_factor)
    if load is not None:
        rate = rate_at(experiment, load)
    picks, times = _arrivals(experiment, rate, workflows, arrivals, burstiness, period, seed)

    runs: list[Run] = []
    summaries: list[Summary] = []
    for chosen in policies:
        run = experiment.run(chosen, picks, times, until=math.inf if until is None else until, events=events)
        summary = summarise(run, experiment.standalone[picks])
        runs.append(run)
        summaries.append(summary)
        if as_json:
            print(json.dumps(summary.row(), allow_nan=False), flush=True)
    if not as_json:
        title = f"{fleet.name}, {len(picks)} workflows"
        title += f" at {len(picks) / times[-1]:.3g}/s" if times[-1] > 0 else " at once"
        print_summaries(title + (" (the trace's own times)" if rate is None else ""), summaries)
    for path in export or ():
        _export(runs[-1], path)
    if page is not None:
        from hexopt.report import Scenario, write_page

        rows = [summary.row() for summary in summaries]
        write_page(page, f"{fleet.name}: {trace}", [Scenario(name=f"{trace}", runs=runs, rows=rows)])
        console.note(f"Wrote {page}")


def _with_settings(
    policies: list[Policy],
    solver: str | None,
    epoch: str | None,
    time_limit: str | None,
    weights: str | None,
    freeze: bool,
) -> list[Policy]:
    """The policies, with the flags of the rolling horizon where they are one."""
    from hexopt.cli import units
    from hexopt.policies.rolling_horizon import RollingHorizon

    given: dict[str, Any] = {"solver": solver, "objective": weights}
    for name, text in (("epoch", epoch), ("time_limit", time_limit)):
        given[name] = None if text is None else units.seconds(f"--{name.replace('_', '-')}", text)
    given |= {"freeze": freeze or None}
    given = {name: value for name, value in given.items() if value is not None}
    if given and not any(isinstance(policy, RollingHorizon) for policy in policies):
        flags = "--solver, --epoch, --time-limit, --weights and --freeze-solver"
        raise ValueError(f"{flags} are rolling-horizon's: give --policy rolling-horizon")
    return [replace(policy, **given) if isinstance(policy, RollingHorizon) else policy for policy in policies]


def check_positive(**flags: float | None) -> None:
    """Refuse what is not above 0; the names are the flags'."""
    for name, value in flags.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"--{name.replace('_', '-')} is {value}, expected more than 0")


def rate_at(experiment: Experiment, load: float) -> float:
    """Workflows a second that are this share of the cluster's capacity."""
    capacity = experiment.capacity()
    if not 0 < capacity < math.inf:
        which = "too few" if capacity == 0 else "most"
        raise ValueError(f"--load: {which} workflows meet their deadlines at any rate; give --rate or another --slo")
    return load * capacity


def that_fit(pool: list[Workflow], fleet: Cluster, drop_long: bool) -> list[Workflow]:
    """The workflows whose calls all fit the context of an instance; others are refused unless they may be dropped."""
    from hexopt.cli import console
    from hexopt.simulation import experiment
    from hexopt.simulation.simulator import instance_table, limits_of

    fitting = experiment.that_fit(pool, fleet)
    if len(fitting) == len(pool):
        return pool
    kept = {workflow.id for workflow in fitting}
    first = next(workflow for workflow in pool if workflow.id not in kept)
    tokens = max(stage.prompt_tokens + stage.output_tokens for stage in first.stages)
    why = limits_of(instance_table(fleet, True))
    if not drop_long:
        raise ValueError(
            f"--trace: workflow {first.id!r} has a call of {tokens} tokens, {why}; "
            "--drop-long leaves such workflows out"
        )
    if not fitting:
        raise ValueError(f"--trace: every workflow has a call {why}")
    console.note(f"left out {len(pool) - len(fitting)} of {len(pool)} workflows with a call {why}")
    return fitting


def _arrivals(
    experiment: Experiment,
    rate: float | None,
    workflows: int | None,
    process: Arrivals,
    burstiness: float,
    period: float,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Templates and their arrival times, seconds, both shape (w,)."""
    import numpy as np

    from hexopt.traces import arrivals

    own = experiment.workload.arrival
    count = workflows or len(experiment.workload)
    if rate is None or process == "trace":
        if not own.max() > own.min() and len(own) > 1:
            raise ValueError("the trace has no arrival times: give --rate or --load (and no --arrivals trace)")
        order = np.argsort(own, kind="stable")
        if rate is not None:
            return order[np.arange(count) % len(order)], arrivals.rescaled(own[order], rate, count)
        if count > len(order):
            raise ValueError(f"--workflows is {count}, but the trace has {len(order)}: give --rate to repeat it")
        return order[:count], own[order][:count]
    picks, times = experiment.sample(count, rate, seed)
    rng = np.random.default_rng((seed, 1))
    if process == "gamma":
        times = arrivals.gamma(rate, count, rng, burstiness)
    elif process == "diurnal":
        times = arrivals.diurnal(rate, count, rng, period, 0.8)
    return picks, times


def _check_export(path: Path) -> None:
    from hexopt.cli import console

    if not path.name.endswith((".json", ".json.gz", ".parquet")):
        raise ValueError(f"--export {path}: expected a name that ends in .json, .trace.json or .parquet")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ValueError(f"--export {path}: Parquet needs pyarrow: pip install 'hexopt[parquet]'")
    console.check_writable("--export", path)


def _export(run: Run, path: Path) -> None:
    from hexopt.cli import console
    from hexopt.simulation import export

    if path.suffix == ".parquet":
        export.write_parquet(run, path)
    elif path.name.removesuffix(".gz").endswith(".trace.json"):
        export.write_chrome_trace(run, path)
    else:
        export.write_json(run, path)
    console.note(f"Wrote {path}")


def print_summaries(title: str, summaries: list[Summary]) -> None:
    """A table of the policies; the ratio is round-robin's P95 over the policy's, where round-robin is among them."""
    from rich import box
    from rich.table import Table

    from hexopt.cli import console

    base = next((s for s in summaries if s.policy == "round-robin"), None)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("policy", no_wrap=True)
    columns = ["mean s", "P50 s", "P95 s", "P99 s"]
    columns += ["vs RR"] if base is not None else []
    columns += ["in time", "Req95", "Req99"]
    for column in columns:
        table.add_column(column, justify="right")
    best = min(s.p95_s for s in summaries)
    for s in summaries:
        cells = [s.policy, *(f"{x:,.1f}" if x < 1000 else f"{x:,.0f}" for x in (s.mean_s, s.p50_s, s.p95_s, s.p99_s))]
        if base is not None:
            cells.append(f"{base.p95_s / s.p95_s:.2f}x")
        cells += [f"{s.attainment:.1%}", console.ratio(s.req95), console.ratio(s.req99)]
        table.add_row(*cells, style="bold" if s.p95_s == best and len(summaries) > 1 else None)
    console.out.print(table)
