"""The one judge: what a plan costs. Every solver's answer is scored here, so comparisons are honest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hexopt.solvers.kernels import LATE, arrays_of, cost_of, overload, schedule, worst_tenant
from hexopt.solvers.plan import HELD, Evaluation
from hexopt.solvers.problem import EpochProblem, ProblemError


def sequences(problem: EpochProblem, instance: ArrayLike, order: ArrayLike) -> list[NDArray[np.int64]]:
    """Each instance's stages in their order.

    Raises
    ------
    ProblemError
        If ``order`` is no permutation of the stages, or ``instance`` puts a stage where it cannot be.
    """
    where, ranks = np.asarray(instance), np.asarray(order)
    n, m = problem.stages, problem.instances
    if where.shape != (n,) or ranks.shape != (n,):
        raise ProblemError(f"plan: instance and order have shapes {where.shape} and {ranks.shape}, expected ({n},)")
    if sorted(ranks.tolist()) != list(range(n)):
        raise ProblemError(f"plan: order is no permutation of the {n} stages")
    for r, i in enumerate(where.tolist()):
        if not (i == HELD or (0 <= i < m and problem.feasible[r, int(i)])):
            raise ProblemError(f"plan: stage {r} cannot run on instance {i}")
        if i == HELD and r not in problem.homeless and np.isinf(np.asarray(problem.hold)[r]):
            raise ProblemError(f"plan: stage {r} must not be held")
    return [ranks[where[ranks] == i].astype(np.int64) for i in range(m)]


def evaluate(problem: EpochProblem, instance: ArrayLike, order: ArrayLike) -> Evaluation:
    """What it costs to put each stage on ``instance`` (``HELD`` for none), dispatched in ``order``, both shape (n,).

    Raises
    ------
    ProblemError
        If the plan is none for this problem.
    """
    a, p = arrays_of(problem), _any(problem)
    unweighted = a._replace(slopes=p.slopes)
    where = np.asarray(instance, dtype=np.int64)
    start = np.full(problem.stages, np.nan)
    congestion = 0.0
    for i, sequence in enumerate(sequences(problem, instance, order)):
        schedule(a, i, sequence, len(sequence), start)
        congestion += overload(unweighted, i, sequence, len(sequence))
    tardiness = np.zeros(p.due.shape[0])
    objective = cost_of(a, where, start, tardiness) + problem.weights.congestion * congestion
    placed = np.flatnonzero(where != HELD)
    on = where[placed]
    completion = np.where(np.isfinite(p.hold), p.hold, np.nan)
    completion[placed] = start[placed] + p.service[placed, on]
    moved = (p.queued[placed] >= 0) & (p.queued[placed] != on)
    terms = {
        "tardiness": float(p.weight @ tardiness),
        "late": float(p.weight @ (tardiness > LATE)),
        "completion": float(np.nansum(p.weight[p.workflow] * completion)),
        "imposed": float(p.imposed[placed, on].sum()),
        "congestion": float(congestion),
        "move": float(p.move_cost[placed][moved].sum()),
        "price": float((p.price[on] * p.service[placed, on]).sum()),
        "fairness": float(worst_tenant(a, tardiness)),
    }
    return Evaluation(float(objective), terms, start, completion, tardiness)


def _any(problem: EpochProblem) -> Any:
    """The problem, whose optional arrays are there once it is checked."""
    return problem
