"""Portfolio: annealing at once, the bound beside it, exact solvers where size and time allow, then both again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec

from hexopt.solvers.annealing import anneal
from hexopt.solvers.cpsat import cpsat
from hexopt.solvers.exact import PROVEN, exact
from hexopt.solvers.extras import extra
from hexopt.solvers.lagrangian import Lagrangian
from hexopt.solvers.plan import Plan
from hexopt.solvers.problem import EpochProblem

_ALONE = 0.25
"""Share of the time in which annealing runs before the bound: prices and steps start from its plan."""
_FIRST = 0.2
"""Share of the time that annealing and the bound have before an exact solver is tried."""
_KEPT = 0.08
"""Share of the time that is kept back: what comes after a search - one last step, the judge - takes time too."""
_EXACT_STAGES, _EXACT_SECONDS = 60, 0.5
"""Up to how many stages, and from how many seconds left, an exact solver is worth a try."""
_CPSAT_STAGES, _CPSAT_SHARE = 12, 0.7
"""Up to how many stages CP-SAT proves faster than the arc flow, and its share of what is left."""


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
    enough = max(gap, PROVEN)

    def left() -> float:
        return time_limit - (time.perf_counter() - started)

    tries = problem.stages <= _EXACT_STAGES and time_limit > _EXACT_SECONDS
    first = _FIRST if tries else 1.0
    best = anneal(problem, time_limit=_ALONE * first * left(), warm_start=warm_start, seed=seed)
    search = Lagrangian(problem, best, 24)
    best = _beside(search, best, (1.0 - _KEPT) * first * left(), enough, seed + 1)
    bound = search.bound
    if tries and not _within(best, bound, enough):
        for solver, share in (("cp-sat", _CPSAT_SHARE), ("exact", 1.0)):
            if left() > _EXACT_SECONDS and not _within(best, bound, enough):
                found = _try(solver, problem, share * (1.0 - _KEPT) * left(), best, seed)
                best, bound = found, max(bound, found.bound)
    turn = 2
    while not _within(best, bound, enough) and left() > 2.0 * _KEPT * time_limit:
        search.settle()
        best = _beside(search, best, left() - _KEPT * time_limit, enough, seed + turn, fresh=turn % 2 == 0)
        bound = max(bound, search.bound)
        turn += 1
    bound = min(bound, best.objective)
    status = "optimal" if _within(best, bound, PROVEN) else "feasible"
    return replace(best, bound=bound, solver="portfolio", seconds=time.perf_counter() - started, status=status)


def _beside(search: Lagrangian, best: Plan, limit: float, gap: float, seed: int, fresh: bool = False) -> Plan:
    """Anneal while another thread raises the bound towards ``best``; the better plan. Ends with the bound's search.

    The first slice goes on from ``best``, or, if ``fresh``, starts anew.
    """
    started = time.perf_counter()
    with ThreadPoolExecutor(1) as pool:
        bounding = pool.submit(search.ascend, best.objective, time_limit=limit, gap=gap)
        while not bounding.done() and (left := limit - (time.perf_counter() - started)) > 0.05 * limit:
            found = anneal(
                search.problem, time_limit=min(limit / 2.0, left), warm_start=None if fresh else best, seed=seed
            )
            best = min(best, found, key=lambda plan: plan.objective)
            seed, fresh = seed + 1, False
        bounding.result()
    return best


def _try(solver: str, problem: EpochProblem, limit: float, best: Plan, seed: int) -> Plan:
    """What an exact solver makes of ``best``; that itself, if the libraries of the solver are not there."""
    if solver == "exact":
        usable = find_spec("pulp") is not None and find_spec("highspy") is not None
        return exact(problem, time_limit=limit, warm_start=best, seed=seed) if usable else best
    if problem.stages > _CPSAT_STAGES or find_spec("ortools") is None:
        return best
    started = time.perf_counter()
    extra("ortools.sat.python.cp_model")
    # The first import takes a good part of a second, which CP-SAT does not count.
    limit -= time.perf_counter() - started
    return cpsat(problem, time_limit=limit, warm_start=best) if limit > 0.0 else best


def _within(best: Plan, bound: float, gap: float) -> bool:
    return best.objective - bound <= gap * abs(best.objective)
