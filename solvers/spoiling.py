"""Plans made worse by a known amount, to measure what an optimality gap costs whoever follows them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hexopt.solvers.judge import objective_of
from hexopt.solvers.kernels import arrays_of
from hexopt.solvers.plan import Plan
from hexopt.solvers.problem import EpochProblem

_TRIES = 30
"""Random moves tried a stage."""


def spoil(problem: EpochProblem, plan: Plan, gap: float, *, seed: int = 0) -> Plan:
    """A random plan near ``plan`` whose objective is at most ``objective / (1 - gap)``, and seldom much less.

    Stages are moved to random places of random instances; a move that makes the plan worse is kept as long as it does
    not make it worse than that. Where no move does, such as in problems of one stage whose second best instance is far
    worse than the best, the plan stays what it was: its gap is then below ``gap``.

    Parameters
    ----------
    gap
        (objective - that of ``plan``) / objective at most; 0 to below 1.
    seed
        Of the random moves.

    Raises
    ------
    ValueError
        If ``gap`` is out of range.
    """
    if not 0.0 <= gap < 1.0:
        raise ValueError(f"gap is {gap}, expected 0 to below 1")
    arrays = arrays_of(problem)
    rng = np.random.default_rng(seed)
    places = problem.feasible & (plan.instance >= 0)[:, None]
    movable = np.flatnonzero(places.any(axis=1))
    most = plan.objective / (1.0 - gap) if plan.objective > 0.0 else plan.objective
    instance, order, cost = plan.instance.copy(), plan.order.copy(), plan.objective
    for _ in range(_TRIES * movable.size):
        r = int(rng.choice(movable))
        tried_instance, rest = instance.copy(), order[order != r]
        tried_instance[r] = rng.choice(np.flatnonzero(places[r]))
        tried_order = np.insert(rest, int(rng.integers(order.size)), r)
        tried = objective_of(problem, arrays, tried_instance, tried_order)
        if cost < tried <= most:
            instance, order, cost = tried_instance, tried_order, tried
    return replace(plan, instance=instance, order=order, objective=cost, status="feasible")
