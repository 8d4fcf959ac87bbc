"""One call for every solver of pairs."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from hexopt.solvers.choice import solve_by_name
from hexopt.solvers.extras import extra
from hexopt.solvers.pairs.annealing import anneal_pairs
from hexopt.solvers.pairs.bounds import alone_bound
from hexopt.solvers.pairs.cpsat import cpsat_pairs
from hexopt.solvers.pairs.insertion import greedy_pairs
from hexopt.solvers.pairs.lagrangian import lower_bound_pairs
from hexopt.solvers.pairs.plan import PairPlan
from hexopt.solvers.pairs.problem import PairProblem

_EXACT_CALLS, _EXACT_SECONDS = 40, 0.3
"""Up to how many calls, and from how many seconds left, CP-SAT is worth a try."""
_FIRST = 0.25
"""Share of the time that annealing and the bound have before it."""
_ALONE = 0.3
"""Share of that in which annealing runs before the bound: its prices start from a plan."""
_KEPT = 0.05
"""Share of the time that is kept back: what comes after a search - one last step, the judge - takes time too."""
_PROVEN = 1e-9
"""Share of the objective by which a plan may be above the bound and is called optimal."""


def _greedy(problem: PairProblem, **_: Any) -> PairPlan:
    return greedy_pairs(problem)


def _annealing(problem: PairProblem, *, time_limit: float, warm_start: PairPlan | None, seed: int) -> PairPlan:
    return anneal_pairs(problem, time_limit=time_limit, warm_start=warm_start, seed=seed)


def _cpsat(problem: PairProblem, *, time_limit: float, warm_start: PairPlan | None, **_: Any) -> PairPlan:
    return cpsat_pairs(problem, time_limit=time_limit, warm_start=warm_start)


def portfolio_pairs(
    problem: PairProblem, *, time_limit: float = 0.05, warm_start: PairPlan | None = None, seed: int = 0
) -> PairPlan:
    """The best plan and the best bound that the time allows: annealing, the bound beside it, CP-SAT if it is small.

    Parameters
    ----------
    time_limit
        Seconds.
    warm_start
        A plan to start from.
    seed
        Of annealing.
    """
    started = time.perf_counter()
    limit = (1.0 - _KEPT) * time_limit

    def left() -> float:
        return limit - (time.perf_counter() - started)

    tries = problem.calls <= _EXACT_CALLS and time_limit > _EXACT_SECONDS and find_spec("ortools") is not None
    share = _FIRST if tries else 1.0
    best = anneal_pairs(problem, time_limit=_ALONE * share * limit, warm_start=warm_start, seed=seed)
    bound = alone_bound(problem)
    if best.objective > bound:
        best, bound = _beside(problem, best, share * limit - (limit - left()), seed + 1)
    if tries and best.objective - bound > _PROVEN * best.objective:
        extra("ortools.sat.python.cp_model")
        # The first import takes a good part of a second, which CP-SAT does not count.
        if left() > 0.0:
            best = cpsat_pairs(problem, time_limit=left(), warm_start=best)
            bound = max(bound, best.bound)
    bound = min(bound, best.objective)
    proven = best.status == "optimal" or best.objective - bound <= _PROVEN * best.objective
    return replace(
        best, bound=bound, solver="portfolio", seconds=time.perf_counter() - started,
        status="optimal" if proven else "feasible",
    )  # fmt: skip


def _beside(problem: PairProblem, best: PairPlan, limit: float, seed: int) -> tuple[PairPlan, float]:
    """Anneal further while another thread raises the bound: the better plan, the bound."""
    limit = max(limit, 1e-4)
    with ThreadPoolExecutor(1) as pool:
        bounding = pool.submit(lower_bound_pairs, problem, best, time_limit=limit, steps=10**6)
        better = anneal_pairs(problem, time_limit=limit, warm_start=best, seed=seed)
        bound = bounding.result()
    return min(best, better, key=lambda plan: plan.objective), bound


PAIR_SOLVERS: dict[str, Callable[..., PairPlan]] = {
    "greedy": _greedy,
    "annealing": _annealing,
    "portfolio": portfolio_pairs,
    "cp-sat": _cpsat,
}
"""Solvers by name; ``cp-sat`` needs the extra ``hexopt[exact]``."""


def solve_pairs(
    problem: PairProblem,
    *,
    solver: str = "portfolio",
    time_limit: float = 0.05,
    warm_start: PairPlan | None = None,
    seed: int = 0,
) -> PairPlan:
    """A plan for the problem, judged, with the bound and the status that the solver can vouch for.

    Parameters
    ----------
    solver
        A name of :data:`PAIR_SOLVERS`.
    time_limit
        Seconds; greedy insertion needs none.
    warm_start
        A plan to start from, for the solvers that can.
    seed
        Of the solvers that draw random numbers.

    Raises
    ------
    ValueError
        If there is no such solver, or the limit is not positive.
    MissingExtraError
        If the solver needs the extra ``hexopt[exact]``, and it is not there.
    """
    return solve_by_name(PAIR_SOLVERS, problem, solver=solver, time_limit=time_limit, warm_start=warm_start, seed=seed)
