"""What a search counts again and again: costs of single workflows and instances, and the calls that run at a moment."""

from __future__ import annotations

from hexopt.solvers.kernels import Arrays, inlined, insert_call, late_cost, overload_at
from hexopt.solvers.search_state import SearchState


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
    return float(overload_at(a, i, s.load[i] + more))


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
