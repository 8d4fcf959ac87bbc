"""What it would cost to put a stage somewhere, nothing changed.

A stage that is taken out of a queue lets those behind it start earlier or as before, one that is put in lets them start
later or as before: nothing passes in a queue, so by induction every moment at which a stage fits in the fuller queue
fits it in the emptier one too. Hence a trial can stop as soon as what it has counted is too much.
"""

from __future__ import annotations

import numpy as np

from hexopt.solvers.counting import load_cost, own_cost, running, worst_share
from hexopt.solvers.kernels import Arrays, inlined, insert_call, late_cost
from hexopt.solvers.search_state import SearchState


@inlined
def try_at(a: Arrays, s: SearchState, r: int, i: int, place: int, limit: float) -> float:
    """By how much the objective grows if stage ``r``, taken away, goes to ``place`` of instance ``i``, or is held.

    Anything above ``limit``, infinite included, if it is more than that.
    """
    cost = a.linear[r, i]
    counted = 0
    if i < 0:
        cost += own_cost(a, s, r, a.hold[r])
        w = a.workflow[r]
        s.trial_workflow[0], s.trial_tardiness[w] = w, max(s.tardiness[w], a.hold[r] - s.slack[r])
        counted = 1
    else:
        begin = max(s.start[s.queue[i, place - 1]] if place > 0 else 0.0, a.release[r])
        if cost + own_cost(a, s, r, begin + s.service[r, i]) > limit:
            return np.inf
        if a.knots.shape[1] > 0:
            cost += load_cost(a, s, i, a.load[r, i]) - s.overload[i]
        if cost > limit:
            return np.inf
        cost, counted = _count_queue(a, s, r, i, place, cost, limit)
    if a.fairness > 0.0 and cost <= limit:
        for k in range(counted):
            w = s.trial_workflow[k]
            s.trial_sum[a.tenant[w]] += a.weight[w] * (s.trial_tardiness[w] - s.tardiness[w])
        cost += worst_share(a, s, True) - worst_share(a, s, False)
        s.trial_sum[:] = 0.0
    return float(cost)


@inlined
def _count_queue(a: Arrays, s: SearchState, r: int, i: int, place: int, cost: float, limit: float) -> tuple[float, int]:
    """``cost`` and what stage ``r`` at ``place`` adds for itself and those behind; how many workflows end later."""
    size, used, now = running(a, s, i, place)
    s.logged[3] += 1
    number = s.logged[3]
    head, counted = 0, 0
    changed = -1.0
    q = r
    for k in range(place - 1, s.length[i]):
        if k >= place:
            q = s.queue[i, k]
        now = max(now, a.release[q])
        while head < size and (size - head >= a.seats[i] or used + a.kv[q] > a.kv_capacity[i]):
            now = max(now, a.ends[head])
            used -= a.held[head]
            head += 1
        end = now + s.service[q, i]
        if k < place:
            cost += s.urgency[q] * end
            changed = end
        elif end == s.end[q]:
            if changed <= now:
                break
        else:
            cost += s.urgency[q] * (end - s.end[q])
            changed = max(changed, end)
        if k < place or end != s.end[q]:
            w = a.workflow[q]
            late = end - s.slack[q]
            before = s.trial_tardiness[w] if s.trial[w] == number else s.tardiness[w]
            if late > before:
                cost += late_cost(a, w, late) - late_cost(a, w, before)
                if s.trial[w] != number:
                    s.trial[w] = number
                    s.trial_workflow[counted] = w
                    counted += 1
                s.trial_tardiness[w] = late
            if cost > limit:
                return np.inf, 0
        insert_call(a, head, size, end, a.kv[q])
        used += a.kv[q]
        size += 1
    return cost, counted
