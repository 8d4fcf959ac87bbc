"""One call for every solver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hexopt.solvers.annealing import anneal
from hexopt.solvers.choice import solve_by_name
from hexopt.solvers.congestion import solve_congestion
from hexopt.solvers.cpsat import cpsat
from hexopt.solvers.exact import exact
from hexopt.solvers.insertion import greedy
from hexopt.solvers.plan import Plan
from hexopt.solvers.portfolio import portfolio
from hexopt.solvers.problem import EpochProblem


def _greedy(problem: EpochProblem, **_: Any) -> Plan:
    return greedy(problem)


def _annealing(problem: EpochProblem, *, time_limit: float, warm_start: Plan | None, seed: int) -> Plan:
    return anneal(problem, time_limit=time_limit, warm_start=warm_start, seed=seed)


def _congestion(integer: bool) -> Callable[..., Plan]:
    def solver(problem: EpochProblem, *, time_limit: float, **_: Any) -> Plan:
        return solve_congestion(problem, integer=integer, time_limit=time_limit)

    return solver


def _cpsat(problem: EpochProblem, *, time_limit: float, warm_start: Plan | None, **_: Any) -> Plan:
    return cpsat(problem, time_limit=time_limit, warm_start=warm_start)


SOLVERS: dict[str, Callable[..., Plan]] = {
    "greedy": _greedy,
    "annealing": _annealing,
    "congestion-lp": _congestion(integer=False),
    "congestion-milp": _congestion(integer=True),
    "portfolio": portfolio,
    "exact": exact,
    "cp-sat": _cpsat,
}
"""Solvers by name; ``exact`` and ``cp-sat`` need the extra ``hexopt[exact]``."""


def solve(
    problem: EpochProblem,
    *,
    solver: str = "portfolio",
    time_limit: float = 0.05,
    warm_start: Plan | None = None,
    seed: int = 0,
) -> Plan:
    """A plan for the problem, judged, with the bound and the status that the solver can vouch for.

    Parameters
    ----------
    solver
        A name of :data:`SOLVERS`.
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
    return solve_by_name(SOLVERS, problem, solver=solver, time_limit=time_limit, warm_start=warm_start, seed=seed)
