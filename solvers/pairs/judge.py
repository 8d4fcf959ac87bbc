"""The one judge of pairs: what a plan costs. Every solver's answer is scored here, so comparisons are honest."""

from __future__ import annotations

from typing import Any

import numpy as np

from hexopt.solvers.kernels import LATE
from hexopt.solvers.pairs.kernels import PairArrays, arrays_of, cost_of
from hexopt.solvers.pairs.plan import PairEvaluation, PairPlan
from hexopt.solvers.pairs.problem import PairProblem
from hexopt.solvers.plan import HELD
from hexopt.solvers.problem import ProblemError


def judge_pairs(problem: PairProblem, plan: PairPlan) -> PairEvaluation:
    """What ``plan``'s pairs and order cost; what it claims of them is not looked at.

    Raises
    ------
    ProblemError
        If the plan is none for this problem.
    """
    a, p = arrays_of(problem), _any(problem)
    objective = objective_of(problem, a, plan)
    decodes = plan.decode != HELD
    at = np.flatnonzero(decodes)
    on = plan.decode[at]
    start = np.where(decodes, a.start, np.nan)
    completion = np.where(decodes, 0.0, p.hold)
    completion[at] = start[at] + p.decode[at, on]
    terms = {
        "tardiness": float(p.weight @ a.lateness),
        "late": float(p.weight @ (a.lateness > LATE)),
        "completion": float((p.weight[p.workflow] * completion).sum()),
        "imposed": float(p.imposed[at, on].sum()),
    }
    return PairEvaluation(
        objective, terms, np.where(decodes & ~problem.settled, a.begin, np.nan),
        np.where(decodes, a.ready, np.nan), start, completion, a.lateness,
    )  # fmt: skip


def objective_of(problem: PairProblem, a: PairArrays, plan: PairPlan) -> float:
    """The objective that :func:`judge_pairs` finds, and nothing else; the schedule is in ``a``.

    Raises
    ------
    ProblemError
        If ``order`` is no permutation of the calls, or a call has a pair that it cannot have, or must not be held.
    """
    n = problem.calls
    for name in ("prefill", "decode", "order"):
        if np.shape(getattr(plan, name)) != (n,):
            raise ProblemError(f"plan: {name} has shape {np.shape(getattr(plan, name))}, expected ({n},)")
    if not np.array_equal(np.sort(plan.order), np.arange(n)):
        raise ProblemError(f"plan: order is no permutation of the {n} calls")
    prefill, decode = plan.prefill, plan.decode
    none = (decode == HELD) | problem.settled
    known = (prefill >= HELD) & (prefill < problem.prefills) & (decode >= HELD) & (decode < problem.decodes)
    good = known & (none == (prefill == HELD))
    calls = np.flatnonzero(good)
    at = np.where(none, 0, prefill)[calls], np.maximum(decode, 0)[calls]
    held = decode[calls] == HELD
    good[calls] = np.where(held, np.isfinite(np.asarray(problem.hold))[calls], problem.possible[calls, *at])
    if not good.all():
        r = int(np.argmin(good))
        raise ProblemError(f"plan: call {r} cannot have prefill instance {prefill[r]} and decode instance {decode[r]}")
    as_int = (np.ascontiguousarray(array, dtype=np.int64) for array in (prefill, decode, plan.order))
    return float(cost_of(a, *as_int))


def _any(problem: PairProblem) -> Any:
    """The problem, whose optional arrays are there once it is checked."""
    return problem
