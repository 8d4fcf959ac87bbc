"""Greedy insertion of pairs: most urgent first, each to the pair where it adds least. Never fails, never late.

HexAGenT's planning (Y. Peng et al., arXiv 2605.16637) with this problem's objective: a call is applied to a copy of the
cluster's state, then the next one looks at that.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.kernels import LATE, inlined, kernel
from hexopt.solvers.pairs.kernels import PairArrays, arrays_of, cost_of
from hexopt.solvers.pairs.plan import PairPlan
from hexopt.solvers.pairs.problem import PairProblem
from hexopt.solvers.plan import HELD

_PROMPTER = 0.5
"""Mean work of an instance by which a call of twice the weight is inserted earlier."""


def greedy_pairs(problem: PairProblem) -> PairPlan:
    """Insert the calls in several orders (:func:`orders`); the best plan.

    Slack is ``due - tail - time of the fastest pair``. The pair is the one, holding included, for which the objective
    grows least; of equals, the one whose KV cache arrives first.
    """
    started = time.perf_counter()
    a = arrays_of(problem)
    # One call has one order, and few calls seldom have four.
    different = {order.tobytes(): order for order in orders(problem)}.values()
    best = min((_inserted(problem, a, order) for order in different), key=lambda plan: plan.objective)
    return PairPlan(
        best.prefill, best.decode, best.order, best.objective, solver="greedy", seconds=time.perf_counter() - started
    )


def orders(problem: PairProblem) -> list[NDArray[np.int64]]:
    """Orders of the calls worth a try, shape (n,) each.

    By slack; by slack, those of heavy workflows earlier; by positive slack and work; by both ranks. Work is what a call
    takes of prefill seconds and of token-seconds at the fastest instances, in means of all calls and for its weight
    (Smith's rule).
    """
    p: Any = problem
    if problem.calls < 2:
        return [np.arange(problem.calls)]
    weight = np.maximum(p.weight[p.workflow], 1e-3 * p.weight.max() + 1e-9)
    decode = np.where(problem.possible.any(axis=1), p.decode, np.inf)
    prefill = np.where(problem.possible.any(axis=2) & ~problem.settled[:, None], p.prefill, np.inf)
    fastest = np.minimum((problem.arrival + decode[:, None]).min(axis=(1, 2)), p.hold)
    slack = p.due[p.workflow] - p.tail - fastest - np.where(problem.settled, 0.0, p.release)
    heavy = slack - _PROMPTER * fastest.sum() / (problem.prefills + problem.decodes) * np.log2(weight)
    work = _in_means(_finite(prefill.min(axis=1)) / weight) + _in_means(p.kv * _finite(decode.min(axis=1)) / weight)
    both = np.argsort(np.argsort(slack)) + np.argsort(np.argsort(work))
    keys = (slack, heavy, np.maximum(slack, 0.0) / fastest.mean() + work, both)
    return [np.argsort(key, kind="stable") for key in keys]


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, 0.0)


def _in_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values / max(float(values.mean()), 1e-12)


def _inserted(problem: PairProblem, a: PairArrays, order: NDArray[np.int64]) -> PairPlan:
    n, d = problem.calls, problem.decodes
    prefill, decode = np.full(n, HELD), np.full(n, HELD)
    there = np.diff(a.busy_first)
    shape = (d, n + int(there.max(initial=0)))
    a.lateness[:] = 0.0
    _insert(a, order, prefill, decode, there.copy(), np.zeros(d), np.zeros(shape), np.zeros(shape, np.int64))
    return PairPlan(prefill, decode, order, float(cost_of(a, prefill, decode, order)))


@inlined
def _increase(a: PairArrays, r: int, end: float) -> float:
    """By how much call ``r`` ending at ``end`` raises completion and tardiness costs."""
    w = a.workflow[r]
    late = max(a.lateness[w], end + a.tail[r] - a.due[w])
    cost = a.completion * end + a.tardiness * (late - a.lateness[w])
    if late > LATE and a.lateness[w] <= LATE:
        cost += a.late
    return float(a.weight[w] * cost)


@kernel
def _insert(
    a: PairArrays,
    order: NDArray[np.int64],
    prefill: NDArray[np.int64],
    decode: NDArray[np.int64],
    size: NDArray[np.int64],
    room: NDArray[np.float64],
    ends: NDArray[np.float64],
    held: NDArray[np.int64],
) -> None:
    """Insert the calls in this order; ``ends`` and ``held`` are those of the calls on each decode instance, by end."""
    p, d = a.prefill.shape[1], a.decode.shape[1]
    for i in range(p):
        a.free[i] = a.prefill_free[i]
    for j in range(d):
        for k in range(size[j]):
            ends[j, k] = a.busy_until[a.busy_first[j] + k]
            held[j, k] = a.busy_kv[a.busy_first[j] + k]
    for r in order:
        w = a.workflow[r]
        # All that is planned counts as there until it ends, though some of it may come after this call.
        for j in range(d):
            used, k = 0, size[j]
            while k > 0 and size[j] - k + 1 < a.seats[j] and used + held[j, k - 1] + a.kv[r] <= a.kv_capacity[j]:
                k -= 1
                used += held[j, k]
            room[j] = ends[j, k - 1] if k > 0 else 0.0
        best_i, best_j, least, soonest, best_end = HELD, HELD, np.inf, np.inf, a.hold[r]
        if np.isfinite(a.hold[r]):
            least = _increase(a, r, a.hold[r])
        for i in range(1 if a.settled[r] else p):
            begin = 0.0 if a.settled[r] else max(a.free[i], a.release[r])
            for j in range(d):
                ready = begin + a.arrival[r, i, j]
                if np.isinf(ready):
                    continue
                end = max(ready, room[j]) + a.decode[r, j]
                cost = _increase(a, r, end) + a.imposed[r, j]
                if cost < least or (cost == least and ready < soonest):
                    best_i, best_j, least, soonest, best_end = i, j, cost, ready, end
        a.lateness[w] = max(a.lateness[w], best_end + a.tail[r] - a.due[w])
        decode[r] = best_j
        if best_j == HELD:
            continue
        if not a.settled[r]:
            prefill[r] = best_i
            a.free[best_i] = max(a.free[best_i], a.release[r]) + a.prefill[r, best_i]
        k = size[best_j]
        while k > 0 and ends[best_j, k - 1] > best_end:
            ends[best_j, k], held[best_j, k] = ends[best_j, k - 1], held[best_j, k - 1]
            k -= 1
        ends[best_j, k], held[best_j, k] = best_end, a.kv[r]
        size[best_j] += 1
