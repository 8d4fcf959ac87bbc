"""Steps of a search: a stage is taken away, and put somewhere. What they change is logged and can be undone."""

from __future__ import annotations

import numpy as np

from hexopt.solvers.counting import load_cost, running, worst_share
from hexopt.solvers.kernels import Arrays, inlined, insert_call, late_cost
from hexopt.solvers.search_state import SearchState


@inlined
def place_of(s: SearchState, r: int) -> int:
    """Place of stage ``r`` in its queue."""
    i = s.where[r]
    for k in range(s.length[i]):
        if s.queue[i, k] == r:
            return k
    return -1


@inlined
def _shift_out(s: SearchState, i: int, place: int) -> None:
    for k in range(place, s.length[i] - 1):
        s.queue[i, k] = s.queue[i, k + 1]
    s.length[i] -= 1


@inlined
def _shift_in(s: SearchState, i: int, place: int, r: int) -> None:
    for k in range(s.length[i], place, -1):
        s.queue[i, k] = s.queue[i, k - 1]
    s.queue[i, place] = r
    s.length[i] += 1


@inlined
def _log_step(a: Arrays, s: SearchState, r: int, i: int, place: int, put: int) -> None:
    k = s.logged[0]
    s.log_step[k, 0], s.log_step[k, 1], s.log_step[k, 2], s.log_step[k, 3] = r, i, place, put
    s.log_step[k, 4], s.log_step[k, 5] = s.logged[1], s.logged[2]
    s.log_cost[k, 0] = s.cost[0]
    if i >= 0:
        s.log_cost[k, 1], s.log_cost[k, 2] = s.load[i], s.overload[i]
    s.logged[0] = k + 1


@inlined
def _set_times(s: SearchState, r: int, start: float, end: float, lateness: float) -> None:
    k = s.logged[1]
    s.log_stage[k] = r
    s.log_times[k, 0], s.log_times[k, 1], s.log_times[k, 2] = s.start[r], s.end[r], s.lateness[r]
    s.start[r], s.end[r], s.lateness[r] = start, end, lateness
    s.logged[1] = k + 1


@inlined
def _reschedule(a: Arrays, s: SearchState, i: int, place: int) -> None:
    """Schedule instance ``i`` anew from ``place`` on."""
    size, used, now = running(a, s, i, place)
    head = 0
    for k in range(place, s.length[i]):
        r = s.queue[i, k]
        now = max(now, a.release[r])
        while head < size and (size - head >= a.seats[i] or used + a.kv[r] > a.kv_capacity[i]):
            now = max(now, a.ends[head])
            used -= a.held[head]
            head += 1
        end = now + s.service[r, i]
        if end != s.end[r] or now != s.start[r]:
            s.cost[0] += s.urgency[r] * (end - s.end[r])
            _set_times(s, r, now, end, end - s.slack[r])
        insert_call(a, head, size, end, a.kv[r])
        used += a.kv[r]
        size += 1


@inlined
def _count_late(a: Arrays, s: SearchState, first: int) -> None:
    """Count anew the tardiness of the workflows whose stages are in the log from ``first`` on."""
    before = worst_share(a, s, False) if a.fairness > 0.0 else 0.0
    for e in range(first, s.logged[1]):
        w = a.workflow[s.log_stage[e]]
        late = 0.0
        for j in range(s.first_of[w], s.first_of[w + 1]):
            late = max(late, s.lateness[s.stages_of[j]])
        if late != s.tardiness[w]:
            k = s.logged[2]
            s.log_workflow[k], s.log_tardiness[k] = w, s.tardiness[w]
            s.logged[2] = k + 1
            s.cost[0] += late_cost(a, w, late) - late_cost(a, w, s.tardiness[w])
            s.late_sum[a.tenant[w]] += a.weight[w] * (late - s.tardiness[w])
            s.tardiness[w] = late
    if a.fairness > 0.0:
        s.cost[0] += worst_share(a, s, False) - before


@inlined
def take(a: Arrays, s: SearchState, r: int) -> None:
    """Take stage ``r`` away."""
    i = s.where[r]
    place = place_of(s, r) if i >= 0 else 0
    _log_step(a, s, r, i, place, 0)
    first = s.logged[1]
    s.cost[0] -= s.urgency[r] * s.end[r] + a.linear[r, i]
    _set_times(s, r, s.start[r], s.end[r], -np.inf)
    if i >= 0:
        _shift_out(s, i, place)
        _reschedule(a, s, i, place)
        s.load[i] -= a.load[r, i]
        s.cost[0] -= s.overload[i]
        s.overload[i] = load_cost(a, s, i, 0.0)
        s.cost[0] += s.overload[i]
    _count_late(a, s, first)


@inlined
def put(a: Arrays, s: SearchState, r: int, i: int, place: int) -> None:
    """Put stage ``r``, taken away before, to ``place`` of instance ``i``, or hold it."""
    _log_step(a, s, r, i, place, 1)
    first = s.logged[1]
    s.cost[0] += a.linear[r, i]
    s.where[r] = i
    if i >= 0:
        s.cost[0] += s.urgency[r] * s.end[r]
        _shift_in(s, i, place, r)
        _set_times(s, r, s.start[r], s.end[r], s.end[r] - s.slack[r])
        _reschedule(a, s, i, place)
        s.load[i] += a.load[r, i]
        s.cost[0] -= s.overload[i]
        s.overload[i] = load_cost(a, s, i, 0.0)
        s.cost[0] += s.overload[i]
    else:
        s.cost[0] += s.urgency[r] * a.hold[r]
        _set_times(s, r, s.start[r], a.hold[r], a.hold[r] - s.slack[r])
    _count_late(a, s, first)


@inlined
def accept(s: SearchState) -> None:
    """Forget the log."""
    s.logged[0], s.logged[1], s.logged[2] = 0, 0, 0


@inlined
def undo(a: Arrays, s: SearchState, keep: int) -> None:
    """Take the logged steps back, but for the first ``keep``."""
    if s.logged[0] <= keep:
        return
    stages, workflows = s.log_step[keep, 4], s.log_step[keep, 5]
    for k in range(s.logged[2] - 1, workflows - 1, -1):
        w = s.log_workflow[k]
        s.late_sum[a.tenant[w]] += a.weight[w] * (s.log_tardiness[k] - s.tardiness[w])
        s.tardiness[w] = s.log_tardiness[k]
    for k in range(s.logged[1] - 1, stages - 1, -1):
        r = s.log_stage[k]
        s.start[r], s.end[r], s.lateness[r] = s.log_times[k, 0], s.log_times[k, 1], s.log_times[k, 2]
    for k in range(s.logged[0] - 1, keep - 1, -1):
        r, i, place = s.log_step[k, 0], s.log_step[k, 1], s.log_step[k, 2]
        s.cost[0] = s.log_cost[k, 0]
        if s.log_step[k, 3] == 0:
            s.where[r] = i
        if i < 0:
            continue
        s.load[i], s.overload[i] = s.log_cost[k, 1], s.log_cost[k, 2]
        if s.log_step[k, 3] == 0:
            _shift_in(s, i, place, r)
        else:
            _shift_out(s, i, place)
    s.logged[0], s.logged[1], s.logged[2] = keep, stages, workflows
