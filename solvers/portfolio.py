"""Portfolio: greedy at once, annealing beside the bound, and the exact solver where size and time allow."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec

from hexopt.solvers.annealing import anneal
from hexopt.solvers.exact import PROVEN, exact
from hexopt.solvers.insertion import greedy
from hexopt.solvers.lagrangian import Lagrangian
from hexopt.solvers.plan import Plan
from hexopt.solvers.problem import EpochProblem

_ALONE = 0.25
"""Share of the time in which annealing runs before the bound: prices and steps start from its plan."""
_EXACT_STAGES, _EXACT_SECONDS = 60, 0.5
"""Up to how many stages, and from how many seconds left, the exact solver is worth a try."""


def portfolio(
    problem: EpochProblem,
    *,
    time_limit: float = 0.05,
    gap: float = 0.0,
    warm_start: Plan | None = None,
    seed: int = 0,
) -> Plan:
    """The best plan and the best bound that the time allows.

    Parameters
    ----------
    time_limit
        Seconds.
    gap
        Stop as soon as the plan is proven to be within this share of the optimum.
    warm_start
        A plan to start from.
    seed
        Of annealing.
    """
    started = time.perf_counter()

    def left() -> float:
        return time_limit - (time.perf_counter() - started)

    best = warm_start or greedy(problem)
    short = 0.2 if problem.stages <= _EXACT_STAGES and time_limit > _EXACT_SECONDS else 1.0
    if left() > 0.0:
        best = anneal(problem, time_limit=_ALONE * short * left(), warm_start=best, seed=seed)
    search = Lagrangian(problem, best, 24)
    with ThreadPoolExecutor(1) as pool:
        # What comes after the search - one last step, the judge - takes its share of the time too.
        limit = 0.9 * short * left()
        bounding = pool.submit(search.ascend, best.objective, time_limit=limit, gap=max(gap, PROVEN))
        while not bounding.done() and left() > 0.1 * time_limit:
            slice_ = min(limit / 2, left() - 0.08 * time_limit)
            best = anneal(problem, time_limit=slice_, warm_start=best, seed=seed + 1)
            seed += 1
        bounding.result()
    bound = min(search.bound, best.objective)
    proven = best.objective - bound <= max(gap, PROVEN) * abs(best.objective)
    if not proven and problem.stages <= _EXACT_STAGES and left() > _EXACT_SECONDS and _has_exact():
        finished = exact(problem, time_limit=left(), warm_start=best, seed=seed)
        best, bound = finished, max(bound, finished.bound)
    status = "optimal" if best.objective - bound <= PROVEN * abs(best.objective) else "feasible"
    return replace(best, bound=bound, solver="portfolio", seconds=time.perf_counter() - started, status=status)


def _has_exact() -> bool:
    return find_spec("pulp") is not None and find_spec("highspy") is not None
