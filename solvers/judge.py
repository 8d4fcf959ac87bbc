"""The one judge: what a plan costs. Every solver's answer is scored here, so comparisons are honest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hexopt.solvers.kernels import LATE, Arrays, arrays_of, cost_of, kernel, overload, schedule, worst_tenant
from hexopt.solvers.plan import HELD, Evaluation
from hexopt.solvers.problem import EpochProblem, ProblemError


def sequences(problem: EpochProblem, instance: ArrayLike, order: ArrayLike) -> list[NDArray[np.int64]]:
    """Each instance's stages in their order; raises as :func:`by_instance` does."""
    stages, first = by_instance(problem, instance, order)
    return np.split(stages, first)[1:-1]


def by_instance(
    problem: EpochProblem, instance: ArrayLike, order: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The stages by instance and order, shape (n,), and where each instance's begin and the last one's end, (m + 1,).

    Raises
    ------
    ProblemError
        If ``order`` is no permutation of the stages, or ``instance`` puts a stage where it cannot be.
    """
    where, ranks = np.asarray(instance), np.asarray(order)
    n, m = problem.stages, problem.instances
    if where.shape != (n,) or ranks.shape != (n,):
        raise ProblemError(f"plan: instance and order have shapes {where.shape} and {ranks.shape}, expected ({n},)")
    if not np.array_equal(np.sort(ranks), np.arange(n)):
        raise ProblemError(f"plan: order is no permutation of the {n} stages")
    held = where == HELD
    placed = (where >= 0) & (where < m)
    on = np.where(placed, where, 0).astype(np.int64)
    fits = problem.feasible
    unfit = ~held & ~(placed & fits[np.arange(n), on])
    stuck = held & np.isinf(np.asarray(problem.hold)) & fits.any(axis=1)
    if (unfit | stuck).any():
        r = int(np.argmax(unfit | stuck))
        if unfit[r]:
            raise ProblemError(f"plan: stage {r} cannot run on instance {where[r]}")
        raise ProblemError(f"plan: stage {r} must not be held")
    ranks = ranks.astype(np.int64)
    stages = ranks[np.argsort(where[ranks], kind="stable")]
    return stages, np.searchsorted(where[stages], np.arange(m + 1)).astype(np.int64)


@kernel
def _schedule_all(a: Arrays, stages: NDArray[np.int64], first: NDArray[np.int64], start: NDArray[np.float64]) -> float:
    """Schedule each instance's stages; returns the congestion."""
    congestion = 0.0
    for i in range(a.seats.shape[0]):
        count = first[i + 1] - first[i]
        schedule(a, i, stages[first[i] :], count, start)
        congestion += overload(a, i, stages[first[i] :], count)
    return congestion


def objective_of(problem: EpochProblem, a: Arrays, instance: ArrayLike, order: ArrayLike) -> float:
    """The objective that :func:`evaluate` finds, and nothing else, where the problem's arrays are there already."""
    return _scheduled(problem, a, instance, order)[0]


def _scheduled(
    problem: EpochProblem, a: Arrays, instance: ArrayLike, order: ArrayLike
) -> tuple[float, float, NDArray[np.float64], NDArray[np.float64]]:
    """Objective, congestion, when each stage starts, tardiness of each workflow."""
    start = np.full(problem.stages, np.nan)
    tardiness = np.zeros(a.due.shape[0])
    unweighted = a._replace(slopes=_any(problem).slopes)
    congestion = _schedule_all(unweighted, *by_instance(problem, instance, order), start)
    cost = cost_of(a, np.asarray(instance, dtype=np.int64), start, tardiness)
    return float(cost + problem.weights.congestion * congestion), float(congestion), start, tardiness


def evaluate(problem: EpochProblem, instance: ArrayLike, order: ArrayLike) -> Evaluation:
    """What it costs to put each stage on ``instance`` (``HELD`` for none), dispatched in ``order``, both shape (n,).

    Raises
    ------
    ProblemError
        If the plan is none for this problem.
    """
    a, p = arrays_of(problem), _any(problem)
    objective, congestion, start, tardiness = _scheduled(problem, a, instance, order)
    where = np.asarray(instance, dtype=np.int64)
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
        "congestion": congestion,
        "move": float(p.move_cost[placed][moved].sum()),
        "price": float((p.price[on] * p.service[placed, on]).sum()),
        "fairness": float(worst_tenant(a, tardiness)),
    }
    return Evaluation(objective, terms, start, completion, tardiness)


def _any(problem: EpochProblem) -> Any:
    """The problem, whose optional arrays are there once it is checked."""
    return problem
