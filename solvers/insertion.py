"""Greedy insertion: least slack first, each stage to where it adds least. The fallback: never fails, never late."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.judge import objective_of
from hexopt.solvers.kernels import LATE, Arrays, arrays_of, kernel
from hexopt.solvers.plan import HELD, Plan
from hexopt.solvers.problem import EpochProblem

_PROMPTER = 0.5
"""Mean work of a seat by which a stage of twice the weight is inserted earlier."""


def greedy(problem: EpochProblem) -> Plan:
    """Insert the stages by slack, each at the end of the instance's queue.

    Slack is ``due - tail - fastest service``, less for stages of heavy workflows. The instance is the one, holding
    included, for which the objective without fairness grows least.
    """
    started = time.perf_counter()
    a = arrays_of(problem)
    where, order = greedy_plan(problem, a)
    objective = objective_of(problem, a, where, order)
    return Plan(where, order, objective, solver="greedy", seconds=time.perf_counter() - started)


def greedy_plan(problem: EpochProblem, a: Arrays) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Instance and order of greedy insertion's plan."""
    order = by_slack(problem)
    where = np.full(problem.stages, HELD)
    m = problem.instances
    busy = np.diff(a.busy_first)
    ends = np.zeros((m, problem.stages + int(busy.max(initial=0))))
    held = np.zeros_like(ends)
    queues = Queues(busy.copy(), np.zeros_like(busy), np.zeros(m), np.zeros(m), ends, held)
    _insert(a, order, where, queues, a.backlog.copy(), np.zeros(a.due.shape[0]))
    return where, order


def by_slack(problem: EpochProblem) -> NDArray[np.int64]:
    """The stages, least slack first, those of heavy workflows earlier.

    One that is released only later than that counts by its release: ahead of others it would keep them waiting.
    """
    p: Any = problem
    fastest = np.minimum(np.where(problem.feasible, p.service, np.inf).min(axis=1, initial=np.inf), p.hold)
    fastest[np.isinf(fastest)] = 0.0
    weight = np.maximum(p.weight[p.workflow], 1e-3 * p.weight.max(initial=1e-9))
    prompter = _PROMPTER * fastest.sum() / p.seats.sum() * np.log2(weight)
    slack = p.due[p.workflow] - p.tail - fastest - prompter
    order: NDArray[np.int64] = np.argsort(not_before_release(problem, slack), kind="stable").astype(np.int64)
    return order


def not_before_release(problem: EpochProblem, moment: NDArray[np.float64]) -> NDArray[np.float64]:
    """``moment`` of each stage, shape (n,), its release if that is later and there is one."""
    p: Any = problem
    return np.where(p.release > 0.0, np.maximum(moment, p.release), moment)


@kernel
def _increase(a: Arrays, r: int, end: float, tardiness: NDArray[np.float64]) -> float:
    """By how much stage ``r`` ending at ``end`` raises completion and tardiness costs."""
    w = a.workflow[r]
    late = max(tardiness[w], end + a.tail[r] - a.due[w])
    cost = a.completion * end + a.tardiness * (late - tardiness[w])
    if late > LATE and tardiness[w] <= LATE:
        cost += a.late
    return float(a.weight[w] * cost)


class Queues(NamedTuple):
    """What runs on each instance as its queue grows; the first ``head`` of ``size`` calls have ended."""

    size: NDArray[np.int64]
    head: NDArray[np.int64]
    used: NDArray[np.float64]
    now: NDArray[np.float64]
    ends: NDArray[np.float64]
    held: NDArray[np.float64]


@kernel
def _insert(
    a: Arrays,
    order: NDArray[np.int64],
    where: NDArray[np.int64],
    queues: Queues,
    load: NDArray[np.float64],
    tardiness: NDArray[np.float64],
) -> None:
    m = a.service.shape[1]
    size, head, used, now, ends, held = queues
    for i in range(m):
        for k in range(size[i]):
            ends[i, k] = a.busy_until[a.busy_first[i] + k]
            held[i, k] = a.busy_kv[a.busy_first[i] + k]
            used[i] += held[i, k]
    for r in order:
        best, least, best_end = HELD, np.inf, a.hold[r]
        if np.isfinite(a.hold[r]):
            least = _increase(a, r, a.hold[r], tardiness) + a.linear[r, m]
        for i in range(m):
            if not a.feasible[r, i]:
                continue
            first, free, start = head[i], a.kv_capacity[i] - used[i], max(now[i], a.release[r])
            while first < size[i] and (size[i] - first >= a.seats[i] or a.kv[r] > free):
                start = max(start, ends[i, first])
                free += held[i, first]
                first += 1
            cost = _increase(a, r, start + a.service[r, i], tardiness) + a.linear[r, i]
            for j in range(a.knots.shape[1]):
                over = max(0.0, load[i] + a.load[r, i] - a.knots[i, j]) - max(0.0, load[i] - a.knots[i, j])
                cost += a.slopes[i, j] * over
            if cost < least:
                best, least, best_end = i, cost, start + a.service[r, i]
        where[r] = best
        if best == HELD and not np.isfinite(best_end):
            continue
        w = a.workflow[r]
        tardiness[w] = max(tardiness[w], best_end + a.tail[r] - a.due[w])
        if best == HELD:
            continue
        now[best] = max(now[best], a.release[r])
        while head[best] < size[best] and (
            size[best] - head[best] >= a.seats[best] or used[best] + a.kv[r] > a.kv_capacity[best]
        ):
            now[best] = max(now[best], ends[best, head[best]])
            used[best] -= held[best, head[best]]
            head[best] += 1
        k = size[best]
        while k > head[best] and ends[best, k - 1] > best_end:
            ends[best, k] = ends[best, k - 1]
            held[best, k] = held[best, k - 1]
            k -= 1
        ends[best, k] = best_end
        held[best, k] = a.kv[r]
        used[best] += a.kv[r]
        size[best] += 1
        load[best] += a.load[r, best]
