"""The judge's arithmetic, compiled: list schedules of single instances and the cost of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hexopt.solvers.problem import EpochProblem

Function = TypeVar("Function", bound=Callable[..., Any])

LATE = 1e-9
"""Seconds from which a workflow counts as late."""


def kernel(function: Function) -> Function:
    """Compile ``function`` and cache it on disk; it must not allocate.

    Without Numba's reference counting, handing the arrays around costs nothing, and a search is several times faster.
    Kernels run without the interpreter's lock, so that a bound and a search use two cores.
    """
    compiler: Any = njit  # its annotations do not know _nrt
    return cast(Function, compiler(cache=True, nogil=True, _nrt=False, no_cfunc_wrapper=True)(function))


def inlined(function: Function) -> Function:
    """Compile like :func:`kernel`, into the caller.

    To hand the arrays over takes longer than most of these functions.
    """
    compiler: Any = njit  # as above
    options = {"cache": True, "_nrt": False, "no_cfunc_wrapper": True, "error_model": "numpy"}
    return cast(Function, compiler(forceinline=True, **options)(function))


class Arrays(NamedTuple):
    """An :class:`EpochProblem` as kernels take it."""

    service: NDArray[np.float64]
    feasible: NDArray[np.bool_]
    tail: NDArray[np.float64]
    workflow: NDArray[np.int64]
    due: NDArray[np.float64]
    weight: NDArray[np.float64]
    seats: NDArray[np.int64]
    kv_capacity: NDArray[np.float64]
    kv: NDArray[np.float64]
    release: NDArray[np.float64]
    hold: NDArray[np.float64]
    busy_first: NDArray[np.int64]
    """Instance i's running calls are at busy_first[i] .. busy_first[i + 1], by their end."""
    busy_until: NDArray[np.float64]
    busy_kv: NDArray[np.float64]
    linear: NDArray[np.float64]
    """Imposed, moving and price, weighted: what a stage costs by where it goes; the last column is holding."""
    load: NDArray[np.float64]
    backlog: NDArray[np.float64]
    knots: NDArray[np.float64]
    slopes: NDArray[np.float64]
    """Weighted."""
    tenant: NDArray[np.int64]
    share: NDArray[np.float64]
    tardiness: float
    late: float
    completion: float
    fairness: float
    ends: NDArray[np.float64]
    """Scratch of :func:`schedule`: when calls end, what they hold, shape (n + most running calls,)."""
    held: NDArray[np.float64]
    sums: NDArray[np.float64]
    """Scratch: a number for each tenant."""


def arrays_of(problem: EpochProblem) -> Arrays:
    """The arrays of ``problem``, with weights multiplied in where a term is a sum over stages or instances."""
    p: Any = problem
    weights = problem.weights
    order = np.lexsort((p.busy_until, p.busy_instance))
    moved = (p.queued[:, None] >= 0) & (p.queued[:, None] != np.arange(problem.instances))
    cost = weights.imposed * p.imposed + weights.move * p.move_cost[:, None] * moved
    runs = np.where(problem.feasible, p.service, 0.0)
    linear = np.concatenate([cost + weights.price * p.price * runs, np.zeros((problem.stages, 1))], axis=1)
    first = np.searchsorted(p.busy_instance[order], np.arange(problem.instances + 1))
    longest = problem.stages + int(np.diff(first).max(initial=0))
    return Arrays(
        service=p.service,
        feasible=problem.feasible,
        tail=p.tail,
        workflow=p.workflow,
        due=p.due,
        weight=p.weight,
        seats=p.seats,
        kv_capacity=p.kv_capacity,
        kv=p.kv,
        release=p.release,
        hold=p.hold,
        busy_first=first,
        busy_until=p.busy_until[order],
        busy_kv=p.busy_kv[order],
        linear=np.ascontiguousarray(linear),
        load=p.load,
        backlog=p.backlog,
        knots=p.knots,
        slopes=p.slopes * weights.congestion,
        tenant=p.tenant,
        share=p.share,
        tardiness=weights.tardiness,
        late=weights.late,
        completion=weights.completion,
        fairness=weights.fairness,
        ends=np.zeros(longest),
        held=np.zeros(longest),
        sums=np.zeros(p.share.shape[0]),
    )


@inlined
def insert_call(a: Arrays, head: int, size: int, end: float, kv: float) -> None:
    """Add a call to those that run, head .. size of the scratch of ``a``."""
    k = size
    while k > head and a.ends[k - 1] > end:
        a.ends[k], a.held[k] = a.ends[k - 1], a.held[k - 1]
        k -= 1
    a.ends[k], a.held[k] = end, kv


@inlined
def overload_at(a: Arrays, i: int, load: float) -> float:
    """Weighted congestion of instance ``i`` at this load."""
    cost = 0.0
    for j in range(a.knots.shape[1]):
        cost += a.slopes[i, j] * max(0.0, load - a.knots[i, j])
    return cost


@inlined
def late_cost(a: Arrays, w: int, tardiness: float) -> float:
    """Cost of workflow ``w``'s tardiness; below LATE it is in time, as the judge has it."""
    if tardiness <= LATE:
        return 0.0
    return float(a.weight[w] * (a.tardiness * tardiness + a.late))


@kernel
def schedule(a: Arrays, i: int, sequence: NDArray[np.int64], count: int, start: NDArray[np.float64]) -> None:
    """Write when the first ``count`` stages of ``sequence`` start on instance ``i``.

    Each starts as soon as it is released and a seat and its KV tokens are free, and not before the one ahead of it: a
    scheduler with a waiting queue does not let later ones pass, even while the one ahead is not released yet.
    """
    first, last = a.busy_first[i], a.busy_first[i + 1]
    size = last - first
    ends, held = a.ends, a.held
    used = 0.0
    for k in range(size):
        ends[k] = a.busy_until[first + k]
        held[k] = a.busy_kv[first + k]
        used += held[k]
    head = 0
    now = 0.0
    for place in range(count):
        r = sequence[place]
        now = max(now, a.release[r])
        while head < size and (size - head >= a.seats[i] or used + a.kv[r] > a.kv_capacity[i]):
            now = max(now, ends[head])
            used -= held[head]
            head += 1
        start[r] = now
        end = now + a.service[r, i]
        insert_call(a, head, size, end, a.kv[r])
        used += a.kv[r]
        size += 1


@kernel
def overload(a: Arrays, i: int, sequence: NDArray[np.int64], count: int) -> float:
    """Weighted congestion of instance ``i`` with the first ``count`` stages of ``sequence``."""
    if a.knots.shape[1] == 0:
        return 0.0
    load = a.backlog[i]
    for place in range(count):
        load += a.load[sequence[place], i]
    return float(overload_at(a, i, load))


@kernel
def completion_of(a: Arrays, r: int, i: int, start: float) -> float:
    """Seconds until stage ``r`` ends on instance ``i``, or held; NaN where it is neither."""
    if i >= 0:
        return float(start + a.service[r, i])
    return float(a.hold[r]) if np.isfinite(a.hold[r]) else np.nan


@kernel
def cost_of(a: Arrays, where: NDArray[np.int64], start: NDArray[np.float64], tardiness: NDArray[np.float64]) -> float:
    """Cost of all but congestion; writes each workflow's tardiness, shape (q,)."""
    tardiness[:] = 0.0
    cost = 0.0
    for r in range(where.shape[0]):
        i = where[r]
        end = completion_of(a, r, i, start[r])
        if np.isnan(end):
            continue
        w = a.workflow[r]
        tardiness[w] = max(tardiness[w], end + a.tail[r] - a.due[w])
        cost += a.completion * a.weight[w] * end + a.linear[r, i]
    for w in range(tardiness.shape[0]):
        cost += late_cost(a, w, tardiness[w])
    if a.fairness > 0.0:
        cost += a.fairness * worst_tenant(a, tardiness)
    return cost


@kernel
def worst_tenant(a: Arrays, tardiness: NDArray[np.float64]) -> float:
    """Weighted tardiness per share of the tenant who has most of it."""
    worst = 0.0
    sums = a.sums
    sums[:] = 0.0
    for w in range(tardiness.shape[0]):
        sums[a.tenant[w]] += a.weight[w] * tardiness[w]
    for t in range(sums.shape[0]):
        worst = max(worst, sums[t] / a.share[t])
    return worst
