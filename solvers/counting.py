"""What a search counts again and again: costs of single workflows and instances, and the calls that run at a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

from hexopt.solvers.kernels import LATE, Arrays
from hexopt.solvers.search_state import SearchState

Function = TypeVar("Function", bound=Callable[..., Any])


def inlined(function: Function) -> Function:
    """Compile like :func:`hexopt.solvers.kernels.kernel`, into the caller.

    To hand the arrays over takes longer than most of these functions.
    """
    compiler: Any = njit
    return cast(Function, compiler(cache=True, _nrt=False, forceinline=True, error_model="numpy")(function))


@inlined
def late_cost(a: Arrays, w: int, tardiness: float) -> float:
    """Cost of workflow ``w``'s tardiness; below LATE it is in time, as the judge has it."""
    if tardiness <= LATE:
        return 0.0
    return float(a.weight[w] * (a.tardiness * tardiness + a.late))


@inlined
def own_cost(a: Arrays, s: SearchState, r: int, end: float) -> float:
    """By how much stage ``r``, taken away, raises completion and tardiness costs if it ends at ``end``."""
    w = a.workflow[r]
    cost = s.urgency[r] * end
    late = end - s.slack[r]
    if late > s.tardiness[w]:
        cost += late_cost(a, w, late) - late_cost(a, w, s.tardiness[w])
    return float(cost)


@inlined
def load_cost(a: Arrays, s: SearchState, i: int, more: float) -> float:
    """Overload of instance ``i`` with ``more`` load than now."""
    load = s.load[i] + more
    cost = 0.0
    for j in range(a.knots.shape[1]):
        cost += a.slopes[i, j] * max(0.0, load - a.knots[i, j])
    return cost


@inlined
def worst_share(a: Arrays, s: SearchState, more: bool) -> float:
    """Cost of fairness; with ``more``, trial_sum comes on top."""
    worst = 0.0
    for t in range(s.late_sum.shape[0]):
        worst = max(worst, (s.late_sum[t] + (s.trial_sum[t] if more else 0.0)) / a.share[t])
    return float(a.fairness * worst)


@inlined
def running(a: Arrays, s: SearchState, i: int, place: int) -> tuple[int, float, float]:
    """Write the calls that run when the stage before ``place`` has started to the scratch of ``a``, by their end.

    Returns how many they are, their KV tokens, and that moment.
    """
    now = s.start[s.queue[i, place - 1]] if place > 0 else 0.0
    size = 0
    used = 0.0
    for k in range(a.busy_first[i], a.busy_first[i + 1]):
        if a.busy_until[k] > now:
            a.ends[size], a.held[size] = a.busy_until[k], a.busy_kv[k]
            used += a.busy_kv[k]
            size += 1
    for k in range(place):
        r = s.queue[i, k]
        if s.end[r] > now:
            insert_call(a, 0, size, s.end[r], a.kv[r])
            used += a.kv[r]
            size += 1
    return size, used, now


@inlined
def insert_call(a: Arrays, head: int, size: int, end: float, kv: float) -> None:
    """Add a call to those that run, head .. size of the scratch of ``a``."""
    k = size
    while k > head and a.ends[k - 1] > end:
        a.ends[k], a.held[k] = a.ends[k - 1], a.held[k - 1]
        k -= 1
    a.ends[k], a.held[k] = end, kv
