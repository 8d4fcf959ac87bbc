"""Exact solver: annealed plan, Lagrangian bound, reduced-cost fixing, and an arc-flow MILP over what is left."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np

from hexopt.solvers.annealing import anneal
from hexopt.solvers.arcflow import solve_arcflow
from hexopt.solvers.arcs import surviving_arcs
from hexopt.solvers.judge import evaluate
from hexopt.solvers.lagrangian import Lagrangian
from hexopt.solvers.plan import Plan
from hexopt.solvers.problem import EpochProblem

PROVEN = 1e-6
"""Relative gap at which a plan counts as optimal."""
_GRIDS = (None, 0.001, 0.01, 0.1)
"""Seconds to which times are cut, tried in turn until the arcs are few enough."""


def exact(
    problem: EpochProblem,
    *,
    time_limit: float = 60.0,
    warm_start: Plan | None = None,
    back_end: str = "highs",
    most_arcs: int = 20_000,
    seed: int = 0,
) -> Plan:
    """The best plan, with the proof that it is, or the best plan and the best bound found in time.

    Where real-valued times make too many arcs, services, releases, running calls' ends, tails and holds are cut to a
    grid and due times raised to it; that problem's optimum is a bound for the true one, so the gap stays honest.

    Parameters
    ----------
    time_limit
        Seconds.
    warm_start
        A plan to start from.
    back_end
        ``highs`` or ``cbc``.
    most_arcs
        Arcs beyond which the times are cut.
    seed
        Of annealing.
    """
    started = time.perf_counter()

    def left() -> float:
        return time_limit - (time.perf_counter() - started)

    seconds = min(0.1 * time_limit, 0.02 * problem.stages)
    best = anneal(problem, time_limit=seconds, warm_start=warm_start, seed=seed)
    bound = -math.inf
    for grid in _GRIDS:
        cut = problem if grid is None else on_grid(problem, grid)
        search = Lagrangian(cut, best, 48)
        limit = min(0.3 * left(), 0.02 * problem.stages)
        search.ascend(best.objective, time_limit=limit, gap=PROVEN)
        bound = max(bound, search.bound)
        if best.objective - bound <= PROVEN * abs(best.objective) or left() <= 0.0:
            break
        arcs = surviving_arcs(search, best.objective, most_arcs)
        if arcs is None:
            continue
        plan, proven = solve_arcflow(cut, arcs, time_limit=left(), back_end=back_end)
        if plan is not None:
            found = evaluate(problem, *plan)
            if found.objective < best.objective:
                best = Plan(*plan, found.objective)
        # Fixing leaves out only plans that are worse than the best one known.
        bound = max(bound, min(proven, best.objective))
        break
    status = "optimal" if best.objective - bound <= PROVEN * max(abs(best.objective), 1e-9) else "feasible"
    return replace(
        best,
        bound=min(bound, best.objective),
        solver="exact",
        seconds=time.perf_counter() - started,
        status=status,
    )


def on_grid(problem: EpochProblem, grid: float) -> EpochProblem:
    """The problem with times as multiples of ``grid`` seconds, none worse for any plan than they were."""
    p: Any = problem

    def cut(times: Any) -> Any:
        return np.floor(times / grid + 1e-9) * grid

    return replace(
        problem,
        service=np.where(np.isfinite(p.service), np.maximum(cut(p.service), np.minimum(grid, p.service)), np.inf),
        busy_until=cut(p.busy_until),
        release=cut(p.release),
        tail=cut(p.tail),
        hold=np.where(np.isfinite(p.hold), np.maximum(cut(p.hold), np.minimum(grid, p.hold)), np.inf),
        due=np.ceil(p.due / grid - 1e-9) * grid,
    )
