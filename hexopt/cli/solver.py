"""``hexopt solve`` and ``hexopt explain``: one epoch problem, solved and explained."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from hexopt.explain import Explanation
    from hexopt.solvers import EpochProblem, Evaluation, Plan

Model = Literal["arc-flow", "congestion"]


def solve(
    problem: Annotated[Path, typer.Argument(help="Epoch problem, JSON: the arrays by name, null for infinite.")],
    solver: Annotated[
        str, typer.Option(help="greedy, annealing, congestion-lp, congestion-milp, portfolio, exact, cp-sat.")
    ] = "portfolio",
    time_limit: Annotated[float, typer.Option(help="Seconds.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of random moves.")] = 0,
    export: Annotated[Path | None, typer.Option(help="Write the model as .lp or .mps instead of solving it.")] = None,
    model: Annotated[Model, typer.Option(help="Which model to write.")] = "arc-flow",
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Solve one epoch problem; print the plan, its cost by term, the bound and the gap."""
    from hexopt.cli import console
    from hexopt.solvers import evaluate
    from hexopt.solvers import solve as solved
    from hexopt.solvers.files import read_problem

    epoch = read_problem(problem)
    if export is not None:
        _export(epoch, export, model)
        return
    plan = solved(epoch, solver=solver, time_limit=time_limit, seed=seed)
    found = evaluate(epoch, plan.instance, plan.order)
    if as_json:
        row = {
            "solver": plan.solver,
            "status": plan.status,
            "seconds": plan.seconds,
            "objective": plan.objective,
            "bound": plan.bound if math.isfinite(plan.bound) else None,
            "gap": plan.gap if math.isfinite(plan.gap) else None,
            "terms": found.terms,
            "instance": plan.instance.tolist(),
            "order": plan.order.tolist(),
            "homeless": epoch.homeless.tolist(),
        }
        print(json.dumps(row, allow_nan=False))
        return
    console.out.print(_plan_table(epoch, plan, found))
    gap = f"bound {plan.bound:.6g}, gap {plan.gap:.2%}" if math.isfinite(plan.bound) else "no bound"
    console.out.print(
        f"{plan.solver}: {plan.status}, objective {plan.objective:.6g}, {gap}, {1e3 * plan.seconds:.1f} ms"
    )
    terms = (f"{name} {value:.4g}" for name, value in found.terms.items() if value)
    console.out.print("terms before their weights: " + (", ".join(terms) or "all 0"))
    for r in epoch.homeless.tolist():
        console.note(f"stage {r} fits nowhere: it is left out")


def _export(epoch: EpochProblem, path: Path, model: Model) -> None:
    from hexopt.cli import console
    from hexopt.solvers.formulations import congestion_model, epoch_model, export

    if path.suffix not in (".lp", ".mps"):
        raise ValueError(f"--export {path}: expected a name that ends in .lp or .mps")
    console.check_writable("--export", path)
    export(epoch_model(epoch) if model == "arc-flow" else congestion_model(epoch), path)
    console.note(f"Wrote {path}")


def _plan_table(epoch: EpochProblem, plan: Plan, found: Evaluation) -> object:
    import numpy as np
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("stage", "workflow", "instance", "start s", "end s", "due s"):
        table.add_column(column, justify="right")
    workflow, due, tail = (np.asarray(x) for x in (epoch.workflow, epoch.due, epoch.tail))
    for r in plan.order.tolist():
        w, i = int(workflow[r]), int(plan.instance[r])
        late = found.completion[r] + tail[r] > due[w]
        times = [f"{x:.2f}" if math.isfinite(x) else "-" for x in (found.start[r], found.completion[r])]
        table.add_row(
            str(r),
            str(w),
            str(i) if i >= 0 else "held",
            *times,
            f"{due[w] - tail[r]:.2f}",
            style="red" if late else None,
        )
    return table


def explain(
    problem: Annotated[Path | None, typer.Argument(help="Epoch problem, JSON; or give a trace and a cluster.")] = None,
    trace: Annotated[str | None, typer.Option(help="Trace, as for simulate.")] = None,
    cluster: Annotated[str, typer.Option(help="Cluster, as for simulate.")] = "hetero-1",
    load: Annotated[float, typer.Option(help="Rate as a share of the cluster's measured capacity.")] = 0.95,
    at: Annotated[float, typer.Option(help="Take the first epoch from this simulated second on.")] = 600.0,
    stages: Annotated[int, typer.Option(help="That has at least so many stages.")] = 2,
    weights: Annotated[str, typer.Option(help="Objective, as for simulate.")] = "deadline",
    solver: Annotated[str, typer.Option(help="As for solve.")] = "portfolio",
    time_limit: Annotated[float, typer.Option(help="Seconds.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the epoch problem as JSON.")] = None,
) -> None:
    """Show for one epoch each stage's candidates, what they would cost, and why the chosen one won."""
    from hexopt.atomic import atomic_write
    from hexopt.cli import console
    from hexopt.explain import explain as explained
    from hexopt.solvers import solve as solved
    from hexopt.solvers.files import problem_table, read_problem

    if (problem is None) == (trace is None):
        raise ValueError("give an epoch problem, or --trace")
    if out is not None:
        console.check_writable("--out", out)
    names: list[str] | None = None
    if problem is not None:
        epoch = read_problem(problem)
    else:
        assert trace is not None
        epoch, names = _epoch_of(trace, cluster, load, at, stages, weights, seed)
    plan = solved(epoch, solver=solver, time_limit=time_limit, seed=seed)
    for stage in range(epoch.stages):
        _print_explanation(epoch, explained(epoch, plan, stage), names)
    if out is not None:
        with atomic_write(out) as stream:
            json.dump(problem_table(epoch), stream)
        console.note(f"Wrote {out}")


def _epoch_of(
    trace: str, cluster: str, load: float, at: float, stages: int, weights: str, seed: int
) -> tuple[EpochProblem, list[str]]:
    from hexopt.cli import console
    from hexopt.cluster import load_cluster
    from hexopt.policies.rolling_horizon import RollingHorizon
    from hexopt.scheduler import epoch_at
    from hexopt.simulation.experiment import Experiment

    fleet = load_cluster(cluster)
    experiment = Experiment.of(console.load_workflows(trace, None), fleet)
    rate = load * experiment.capacity()
    count = max(200, round(2.0 * at * rate))
    picks, times = experiment.sample(count, rate, seed)
    policy = RollingHorizon(objective=weights, freeze=True)
    found = epoch_at(experiment, policy, picks, times, at, stages)
    if found is None:
        raise ValueError(f"--at {at:g}: no epoch of {stages} stages from then on in {count} workflows")
    epoch, now = found
    console.out.print(f"epoch at {now:.3f} s: {epoch.problem.stages} stages, {epoch.problem.instances} instances")
    return epoch.problem, [instance.name for instance in fleet.instances]


def _print_explanation(epoch: EpochProblem, why: Explanation, names: list[str] | None) -> None:
    from rich import box
    from rich.table import Table

    from hexopt.cli import console

    chosen = why.candidates[0]
    used = [name for name in chosen.terms if any(abs(c.terms[name]) > 1e-9 for c in why.candidates)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.title = f"stage {why.stage} of workflow {int(epoch.workflow[why.stage])}"
    table.add_column("instance", no_wrap=True)
    for column in ("end s", "objective", *used):
        table.add_column(column, justify="right")
    for k, candidate in enumerate(why.candidates):
        i = candidate.instance
        name = "held" if i < 0 else f"{i} {names[i]}" if names else str(i)
        differences = [f"{candidate.terms[term]:+.3g}" if k else "" for term in used]
        table.add_row(
            name, f"{candidate.finish:.2f}", f"{candidate.objective:.4g}", *differences, style=None if k else "bold"
        )
    console.out.print(table)
    if len(why.candidates) > 1:
        console.out.print(f"wins by {why.margin:.3g}; the second loses most by {why.decided}")
