"""Local search: simulated annealing over instances and orders. The online optimiser, good at any time.

Moves: a stage goes elsewhere in its queue, to another instance, or is held; two stages change places. A move is judged
by scheduling the one or two instances that it touches anew and summing all costs (:mod:`hexopt.solvers.kernels`).
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.greedy import greedy
from hexopt.solvers.judge import evaluate, sequences
from hexopt.solvers.kernels import Arrays, arrays_of, cost_of, kernel, overload, schedule
from hexopt.solvers.plan import HELD, Plan
from hexopt.solvers.problem import EpochProblem

_CHUNK = 256
"""Moves between two looks at the clock."""
_COOLING = 1e-3
"""Last temperature over the first."""


def anneal(
    problem: EpochProblem,
    *,
    time_limit: float | None = 0.02,
    moves: int | None = None,
    warm_start: Plan | None = None,
    seed: int = 0,
) -> Plan:
    """Improve a plan by simulated annealing; the result is never worse than the start.

    Parameters
    ----------
    time_limit
        Seconds; None for no limit in time.
    moves
        Moves to try; with ``time_limit`` None the result depends on nothing but this and the seed.
    warm_start
        Where to start; greedy insertion's plan by default.
    seed
        Of the random moves.
    """
    started = time.perf_counter()
    if time_limit is None and moves is None:
        raise ValueError("time_limit or moves must be given")
    first = warm_start or greedy(problem)
    rng = np.random.default_rng(seed)
    a = arrays_of(problem)
    n, m = problem.stages, problem.instances
    movable = np.setdiff1d(np.arange(n), problem.homeless).astype(np.int64)
    where = np.array(first.instance, dtype=np.int64)
    queue = np.zeros((m, max(n, 1)), dtype=np.int64)
    count = np.zeros(m, dtype=np.int64)
    for i, sequence in enumerate(sequences(problem, first.instance, first.order)):
        queue[i, : len(sequence)] = sequence
        count[i] = len(sequence)
    best_where, best_queue, best_count = where.copy(), queue.copy(), count.copy()
    start = np.full(n, np.nan)
    state = (where, queue, count, start, best_where, best_queue, best_count)
    if movable.size:
        costs = _begin(a, queue, count, start, where)
        temperature = _typical_increase(a, rng, movable, *state, costs)
        done = 0
        while True:
            spent = 0.0 if time_limit is None else (time.perf_counter() - started) / time_limit
            share = max(spent, 0.0 if moves is None else done / max(moves, 1), 1.0 if moves == 0 else 0.0)
            if share >= 1.0:
                break
            chunk = _CHUNK if moves is None else min(_CHUNK, moves - done)
            _anneal(a, rng, movable, *state, costs, temperature * _COOLING**share, chunk)
            done += chunk
    order = np.concatenate([*(best_queue[i, : best_count[i]] for i in range(m)), np.flatnonzero(best_where == HELD)])
    start = _starts(problem, best_where, order.astype(np.int64))
    order = order[np.lexsort((np.arange(n), start[order]))].astype(np.int64)
    found = evaluate(problem, best_where, order)
    return Plan(best_where, order, found.objective, solver="annealing", seconds=time.perf_counter() - started)


def _starts(problem: EpochProblem, where: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.float64]:
    return evaluate(problem, where, order).start


@kernel
def _begin(
    a: Arrays,
    queue: NDArray[np.int64],
    count: NDArray[np.int64],
    start: NDArray[np.float64],
    where: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Schedule all; returns each instance's overload, then the total and the least total cost. Shape (m + 2,)."""
    m = queue.shape[0]
    costs = np.zeros(m + 2)
    for i in range(m):
        schedule(a, i, queue[i], count[i], start)
        costs[i] = overload(a, i, queue[i], count[i])
    costs[m] = cost_of(a, where, start, np.zeros(a.due.shape[0])) + costs[:m].sum()
    costs[m + 1] = costs[m]
    return costs


@kernel
def _take(queue: NDArray[np.int64], count: NDArray[np.int64], i: int, place: int) -> None:
    for k in range(place, count[i] - 1):
        queue[i, k] = queue[i, k + 1]
    count[i] -= 1


@kernel
def _put(queue: NDArray[np.int64], count: NDArray[np.int64], i: int, place: int, r: int) -> None:
    for k in range(count[i], place, -1):
        queue[i, k] = queue[i, k - 1]
    queue[i, place] = r
    count[i] += 1


@kernel
def _place_of(queue: NDArray[np.int64], count: NDArray[np.int64], i: int, r: int) -> int:
    for k in range(count[i]):
        if queue[i, k] == r:
            return k
    return -1


@kernel
def _propose(a, rng, movable, where, queue, count, change):  # type: ignore[no-untyped-def]
    """Make a random move; ``change`` becomes (r, its instance, its place, s or -1, its instance, its place).

    Returns whether anything changed.
    """
    m = queue.shape[0]
    r = movable[int(rng.random() * movable.shape[0])]
    i = where[r]
    change[0], change[1], change[2], change[3] = r, i, -1, -1
    if rng.random() < 0.3 and movable.shape[0] > 1 and i >= 0:
        s = movable[int(rng.random() * movable.shape[0])]
        j = where[s]
        if s == r or j < 0 or not a.feasible[r, j] or not a.feasible[s, i]:
            return False
        p, q = _place_of(queue, count, i, r), _place_of(queue, count, j, s)
        queue[i, p], queue[j, q] = s, r
        where[r], where[s] = j, i
        change[2], change[3], change[4], change[5] = p, s, j, q
        return True
    target = int(rng.random() * (m + 1)) if np.isfinite(a.hold[r]) else int(rng.random() * m)
    if rng.random() < 0.3 and i >= 0:
        target = i
    if (target < m and not a.feasible[r, target]) or (target == m and i < 0):
        return False
    if i >= 0:
        change[2] = _place_of(queue, count, i, r)
        _take(queue, count, i, change[2])
    if target == m:
        where[r] = -1
    else:
        _put(queue, count, target, int(rng.random() * (count[target] + 1)), r)
        where[r] = target
    return True


@kernel
def _undo(where, queue, count, change):  # type: ignore[no-untyped-def]
    r, i, p, s = change[0], change[1], change[2], change[3]
    if s >= 0:
        j, q = change[4], change[5]
        queue[i, p], queue[j, q] = r, s
        where[r], where[s] = i, j
        return
    now = where[r]
    if now >= 0:
        _take(queue, count, now, _place_of(queue, count, now, r))
    if i >= 0:
        _put(queue, count, i, p, r)
    where[r] = i


@kernel
def _reschedule(a, where, queue, count, start, change, moved, costs):  # type: ignore[no-untyped-def]
    """Schedule the instances that a change touched anew; ``moved`` is where its stage was before."""
    for i in (moved, where[change[0]]):
        if i >= 0:
            schedule(a, i, queue[i], count[i], start)
            costs[i] = overload(a, i, queue[i], count[i])


@kernel
def _total(a, where, start, costs, tardiness):  # type: ignore[no-untyped-def]
    return cost_of(a, where, start, tardiness) + costs[: a.service.shape[1]].sum()


@kernel
def _typical_increase(  # type: ignore[no-untyped-def]
    a, rng, movable, where, queue, count, start, best_where, best_queue, best_count, costs
):
    """Mean increase of the objective over moves that raise it: the first temperature."""
    m = queue.shape[0]
    change = np.zeros(6, dtype=np.int64)
    tardiness = np.zeros(a.due.shape[0])
    total, worse = 0.0, 0
    for _ in range(64):
        if not _propose(a, rng, movable, where, queue, count, change):
            continue
        _reschedule(a, where, queue, count, start, change, change[1], costs)
        increase = _total(a, where, start, costs, tardiness) - costs[m]
        there = where[change[0]]
        _undo(where, queue, count, change)
        _reschedule(a, where, queue, count, start, change, there, costs)
        if increase > 0.0:
            total += increase
            worse += 1
    return 0.1 * total / worse if worse > 0 else 1e-9


@kernel
def _anneal(  # type: ignore[no-untyped-def]
    a, rng, movable, where, queue, count, start, best_where, best_queue, best_count, costs, temperature, moves
):
    m = queue.shape[0]
    change = np.zeros(6, dtype=np.int64)
    tardiness = np.zeros(a.due.shape[0])
    for _ in range(moves):
        if not _propose(a, rng, movable, where, queue, count, change):
            continue
        _reschedule(a, where, queue, count, start, change, change[1], costs)
        total = _total(a, where, start, costs, tardiness)
        if total <= costs[m] or rng.random() < np.exp((costs[m] - total) / temperature):
            costs[m] = total
            if total < costs[m + 1] - 1e-12 * abs(total):
                costs[m + 1] = total
                best_where[:] = where
                best_count[:] = count
                best_queue[:] = queue
        else:
            there = where[change[0]]
            _undo(where, queue, count, change)
            _reschedule(a, where, queue, count, start, change, there, costs)
