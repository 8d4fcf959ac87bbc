"""The judge's arithmetic for pairs, compiled: the list schedule and what it costs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.kernels import LATE, inlined, kernel
from hexopt.solvers.pairs.problem import PairProblem


class PairArrays(NamedTuple):
    """A :class:`PairProblem` as kernels take it, and what they write."""

    prefill: NDArray[np.float64]
    prefill_free: NDArray[np.float64]
    decode: NDArray[np.float64]
    arrival: NDArray[np.float64]
    """Shape (n, p, d)."""
    settled: NDArray[np.bool_]
    release: NDArray[np.float64]
    hold: NDArray[np.float64]
    tail: NDArray[np.float64]
    workflow: NDArray[np.int64]
    due: NDArray[np.float64]
    weight: NDArray[np.float64]
    seats: NDArray[np.int64]
    kv: NDArray[np.int64]
    kv_capacity: NDArray[np.int64]
    busy_first: NDArray[np.int64]
    """Decode instance j's running calls are at busy_first[j] .. busy_first[j + 1], by their end."""
    busy_until: NDArray[np.float64]
    busy_kv: NDArray[np.int64]
    imposed: NDArray[np.float64]
    """Weighted."""
    tardiness: float
    late: float
    completion: float
    begin: NDArray[np.float64]
    """Written by :func:`schedule`: start of prefill, arrival of the KV cache, start of decode. Shape (n,)."""
    ready: NDArray[np.float64]
    start: NDArray[np.float64]
    free: NDArray[np.float64]
    """Scratch: a moment of each prefill instance."""
    first: NDArray[np.int64]
    """Scratch: decode instance j's calls are at first[j] .. first[j + 1] of ``members``, in the plan's order."""
    members: NDArray[np.int64]
    arriving: NDArray[np.int64]
    """Scratch: places within an instance's members, by arrival; those that wait, in the plan's order."""
    waiting: NDArray[np.int64]
    ends: NDArray[np.float64]
    """Scratch: when calls end, what they hold, shape (n + most running calls,)."""
    held: NDArray[np.int64]
    lateness: NDArray[np.float64]
    """Written by :func:`cost_of`: tardiness of each workflow, shape (q,)."""


def arrays_of(problem: PairProblem) -> PairArrays:
    """The arrays of ``problem``, ``imposed`` multiplied by its weight."""
    p: Any = problem
    n, d = problem.calls, problem.decodes
    order = np.lexsort((p.busy_until, p.busy_instance))
    first = np.searchsorted(p.busy_instance[order], np.arange(d + 1))
    longest = n + int(np.diff(first).max(initial=0))
    return PairArrays(
        prefill=p.prefill, prefill_free=p.prefill_free, decode=p.decode, arrival=p.arrival, settled=p.settled,
        release=p.release, hold=p.hold, tail=p.tail, workflow=p.workflow, due=p.due, weight=p.weight,
        seats=p.seats, kv=p.kv, kv_capacity=p.kv_capacity,
        busy_first=first, busy_until=p.busy_until[order], busy_kv=p.busy_kv[order],
        imposed=problem.weights.imposed * p.imposed,
        tardiness=problem.weights.tardiness, late=problem.weights.late, completion=problem.weights.completion,
        begin=np.zeros(n), ready=np.zeros(n), start=np.zeros(n), free=np.zeros(problem.prefills),
        first=np.zeros(d + 1, np.int64), members=np.zeros(n, np.int64), arriving=np.zeros(n, np.int64),
        waiting=np.zeros(n, np.int64), ends=np.zeros(longest), held=np.zeros(longest, np.int64),
        lateness=np.zeros(len(p.due)),
    )  # fmt: skip


@inlined
def _admit_all(a: PairArrays, j: int) -> None:
    """Write when the calls of decode instance ``j`` start to decode."""
    first, count = a.first[j], a.first[j + 1] - a.first[j]
    for k in range(count):
        moment = a.ready[a.members[first + k]]
        place = k
        while place > 0 and a.ready[a.members[first + a.arriving[place - 1]]] > moment:
            a.arriving[place] = a.arriving[place - 1]
            place -= 1
        a.arriving[place] = k
    head, used = 0, 0
    size = a.busy_first[j + 1] - a.busy_first[j]
    for k in range(size):
        a.ends[k] = a.busy_until[a.busy_first[j] + k]
        a.held[k] = a.busy_kv[a.busy_first[j] + k]
        used += a.held[k]
    arrived, front, back = 0, 0, 0
    while arrived < count or front < back:
        now = np.inf
        if arrived < count:
            now = a.ready[a.members[first + a.arriving[arrived]]]
        if front < back:
            now = min(now, a.ends[head])
        while head < size and a.ends[head] <= now:
            used -= a.held[head]
            head += 1
        while arrived < count and a.ready[a.members[first + a.arriving[arrived]]] <= now:
            place = back
            while place > front and a.waiting[place - 1] > a.arriving[arrived]:
                a.waiting[place] = a.waiting[place - 1]
                place -= 1
            a.waiting[place] = a.arriving[arrived]
            back += 1
            arrived += 1
        while front < back and size - head < a.seats[j]:
            r = a.members[first + a.waiting[front]]
            if used + a.kv[r] > a.kv_capacity[j]:
                break
            front += 1
            a.start[r] = now
            end = now + a.decode[r, j]
            place = size
            while place > head and a.ends[place - 1] > end:
                a.ends[place], a.held[place] = a.ends[place - 1], a.held[place - 1]
                place -= 1
            a.ends[place], a.held[place] = end, a.kv[r]
            used += a.kv[r]
            size += 1


@inlined
def schedule(a: PairArrays, prefill: NDArray[np.int64], decode: NDArray[np.int64], order: NDArray[np.int64]) -> None:
    """Write when each call prefills, has its KV cache where it decodes, and decodes.

    A prefill instance takes its calls one after the other, in the plan's order, none before its release. A decode
    instance has a waiting queue, in the plan's order, of the calls whose KV cache has arrived; whenever a call arrives
    or ends, those at its head are admitted while they fit.
    """
    n, d = order.shape[0], a.decode.shape[1]
    for i in range(a.free.shape[0]):
        a.free[i] = a.prefill_free[i]
    for j in range(d + 1):
        a.first[j] = 0
    for k in range(n):
        r = order[k]
        j = decode[r]
        if j < 0:
            continue
        if j < d - 1:
            a.first[j + 2] += 1
        if a.settled[r]:
            a.ready[r] = a.arrival[r, 0, j]
            continue
        i = prefill[r]
        begin = max(a.free[i], a.release[r])
        a.begin[r] = begin
        a.free[i] = begin + a.prefill[r, i]
        a.ready[r] = begin + a.arrival[r, i, j]
    for j in range(d):
        a.first[j + 1] += a.first[j]
    for k in range(n):
        r = order[k]
        if decode[r] >= 0:
            a.members[a.first[decode[r] + 1]] = r
            a.first[decode[r] + 1] += 1
    for j in range(d):
        _admit_all(a, j)


@inlined
def late_cost(a: PairArrays, w: int, tardiness: float) -> float:
    """Cost of workflow ``w``'s tardiness; below LATE it is in time, as the judge has it."""
    if tardiness <= LATE:
        return 0.0
    return float(a.weight[w] * (a.tardiness * tardiness + a.late))


@kernel
def cost_of(a: PairArrays, prefill: NDArray[np.int64], decode: NDArray[np.int64], order: NDArray[np.int64]) -> float:
    """Schedule a plan; returns what it costs."""
    schedule(a, prefill, decode, order)
    a.lateness[:] = 0.0
    cost = 0.0
    for r in range(decode.shape[0]):
        j, w = decode[r], a.workflow[r]
        if j < 0:
            end = a.hold[r]
        else:
            end = a.start[r] + a.decode[r, j]
            cost += a.imposed[r, j]
        cost += a.completion * a.weight[w] * end
        a.lateness[w] = max(a.lateness[w], end + a.tail[r] - a.due[w])
    for w in range(a.lateness.shape[0]):
        cost += late_cost(a, w, a.lateness[w])
    return cost
