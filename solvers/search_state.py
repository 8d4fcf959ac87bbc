"""A plan under search: it changes by moves that know what they changed, so that they cost little and can be undone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.judge import sequences
from hexopt.solvers.kernels import LATE, Arrays, cost_of, kernel, overload, schedule, worst_tenant
from hexopt.solvers.plan import HELD, Plan
from hexopt.solvers.problem import EpochProblem


class SearchState(NamedTuple):
    """Arrays of a search; n stages, m instances, q workflows."""

    movable: NDArray[np.int64]
    """Stages that fit somewhere or may be held."""
    where: NDArray[np.int64]
    """Instance of each stage, HELD for none; shape (n,)."""
    queue: NDArray[np.int64]
    """Each instance's stages in their order, shape (m, n)."""
    length: NDArray[np.int64]
    """How many they are, shape (m,)."""
    start: NDArray[np.float64]
    """Seconds until each stage starts, shape (n,)."""
    end: NDArray[np.float64]
    """Seconds until it ends, NaN for one that is left out; shape (n,)."""
    tardiness: NDArray[np.float64]
    """Of each workflow, shape (q,)."""
    overload: NDArray[np.float64]
    """Weighted, of each instance, shape (m,)."""
    cost: NDArray[np.float64]
    """The objective now, and the least so far; shape (2,)."""
    stages_of: NDArray[np.int64]
    """Workflow w's stages are at first_of[w] .. first_of[w + 1]; shape (n,)."""
    first_of: NDArray[np.int64]
    fresh: NDArray[np.float64]
    """Scratch: starts of a queue scheduled anew, shape (n,)."""
    move: NDArray[np.int64]
    """The last move: stage, instance and place before; the other stage of a swap or -1, its instance and place."""
    logged: NDArray[np.int64]
    """How many stages, workflows and instances the last move changed; shape (3,)."""
    log_stage: NDArray[np.int64]
    log_start: NDArray[np.float64]
    log_end: NDArray[np.float64]
    log_workflow: NDArray[np.int64]
    log_tardiness: NDArray[np.float64]
    marked: NDArray[np.bool_]
    """Whether a workflow is in the log."""
    log_instance: NDArray[np.int64]
    log_overload: NDArray[np.float64]
    log_cost: NDArray[np.float64]
    random: NDArray[np.uint64]
    """State of the random numbers, shape (1,)."""
    best_where: NDArray[np.int64]
    best_queue: NDArray[np.int64]
    best_length: NDArray[np.int64]


def search_state(problem: EpochProblem, plan: Plan, seed: int) -> SearchState:
    """The state that stands for ``plan``; its costs are not counted yet."""
    n, m = problem.stages, problem.instances
    workflow = np.asarray(problem.workflow)
    q = np.size(problem.due)
    queue = np.zeros((m, max(n, 1)), dtype=np.int64)
    count = np.zeros(m, dtype=np.int64)
    for i, sequence in enumerate(sequences(problem, plan.instance, plan.order)):
        queue[i, : len(sequence)] = sequence
        count[i] = len(sequence)
    by_workflow = np.argsort(workflow, kind="stable").astype(np.int64)
    return SearchState(
        movable=np.setdiff1d(np.arange(n), problem.homeless).astype(np.int64),
        where=np.array(plan.instance, dtype=np.int64),
        queue=queue,
        length=count,
        start=np.full(n, np.nan),
        end=np.full(n, np.nan),
        tardiness=np.zeros(q),
        overload=np.zeros(m),
        cost=np.full(2, np.inf),
        stages_of=by_workflow,
        first_of=np.searchsorted(workflow[by_workflow], np.arange(q + 1)),
        fresh=np.zeros(n),
        move=np.zeros(6, dtype=np.int64),
        logged=np.zeros(3, dtype=np.int64),
        log_stage=np.zeros(n + 2, dtype=np.int64),
        log_start=np.zeros(n + 2),
        log_end=np.zeros(n + 2),
        log_workflow=np.zeros(q, dtype=np.int64),
        log_tardiness=np.zeros(q),
        marked=np.zeros(q, dtype=np.bool_),
        log_instance=np.zeros(2, dtype=np.int64),
        log_overload=np.zeros(2),
        log_cost=np.zeros(1),
        random=np.array(np.random.SeedSequence(seed).generate_state(1, np.uint64), dtype=np.uint64),
        best_where=np.zeros(n, dtype=np.int64),
        best_queue=np.zeros_like(queue),
        best_length=np.zeros_like(count),
    )


def best_plan(problem: EpochProblem, s: SearchState) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Instance and order of the best plan seen."""
    placed = [s.best_queue[i, : s.best_length[i]] for i in range(problem.instances)]
    order = np.concatenate([*placed, np.flatnonzero(s.best_where == HELD)]).astype(np.int64)
    return s.best_where.copy(), order


@kernel
def uniform(s: SearchState) -> float:
    """A random number in [0, 1): SplitMix64 (Steele, Lea and Flood 2014), since NumPy's would need allocation."""
    s.random[0] += np.uint64(0x9E3779B97F4A7C15)
    z = s.random[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return float((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


@kernel
def recount(a: Arrays, s: SearchState) -> None:
    """Count everything anew."""
    for i in range(s.queue.shape[0]):
        schedule(a, i, s.queue[i], s.length[i], s.start)
        s.overload[i] = overload(a, i, s.queue[i], s.length[i])
    s.cost[0] = cost_of(a, s.where, s.start, s.tardiness) + s.overload.sum()
    for r in range(s.where.shape[0]):
        i = s.where[r]
        s.end[r] = s.start[r] + a.service[r, i] if i >= 0 else (a.hold[r] if np.isfinite(a.hold[r]) else np.nan)


@kernel
def keep_best(s: SearchState) -> None:
    """Remember this plan as the best one."""
    s.cost[1] = s.cost[0]
    for r in range(s.where.shape[0]):
        s.best_where[r] = s.where[r]
    for i in range(s.queue.shape[0]):
        s.best_length[i] = s.length[i]
        for k in range(s.length[i]):
            s.best_queue[i, k] = s.queue[i, k]


@kernel
def put_back(s: SearchState) -> None:
    """Accept the last move: forget what it changed."""
    for k in range(s.logged[1]):
        s.marked[s.log_workflow[k]] = False
    s.logged[:] = 0


@kernel
def undo_move(s: SearchState) -> None:
    """Take the last move back."""
    r, i, place, other = s.move[0], s.move[1], s.move[2], s.move[3]
    if other >= 0:
        j, there = s.move[4], s.move[5]
        s.queue[i, place], s.queue[j, there] = r, other
        s.where[r], s.where[other] = i, j
    else:
        now = s.where[r]
        if now >= 0:
            _take(s, now, _place_of(s, now, r))
        if i >= 0:
            _put(s, i, place, r)
        s.where[r] = i
    for k in range(s.logged[0] - 1, -1, -1):
        s.start[s.log_stage[k]] = s.log_start[k]
        s.end[s.log_stage[k]] = s.log_end[k]
    for k in range(s.logged[1]):
        s.tardiness[s.log_workflow[k]] = s.log_tardiness[k]
    for k in range(s.logged[2] - 1, -1, -1):
        s.overload[s.log_instance[k]] = s.log_overload[k]
    s.cost[0] = s.log_cost[0]
    put_back(s)


@kernel
def swap_move(a: Arrays, s: SearchState, r: int, other: int) -> bool:
    """Let two stages change places; returns False, and does nothing, where they cannot."""
    i, j = s.where[r], s.where[other]
    if r == other or i < 0 or j < 0 or not a.feasible[r, j] or not a.feasible[other, i]:
        return False
    place, there = _place_of(s, i, r), _place_of(s, j, other)
    s.queue[i, place], s.queue[j, there] = other, r
    s.where[r], s.where[other] = j, i
    s.move[0], s.move[1], s.move[2], s.move[3], s.move[4], s.move[5] = r, i, place, other, j, there
    s.log_cost[0] = s.cost[0]
    s.cost[0] += a.linear[r, j] - a.linear[r, i] + a.linear[other, i] - a.linear[other, j]
    _reschedule(a, s, i)
    if j != i:
        _reschedule(a, s, j)
    _count_late(a, s)
    return True


@kernel
def apply_move(a: Arrays, s: SearchState, r: int, target: int, place: int) -> bool:
    """Move stage ``r`` to ``place`` of instance ``target``'s queue, or hold it; returns False if nothing changes."""
    i = s.where[r]
    before = _place_of(s, i, r) if i >= 0 else -1
    if target == i and place == before:
        return False
    s.move[0], s.move[1], s.move[2], s.move[3] = r, i, before, -1
    s.log_cost[0] = s.cost[0]
    s.cost[0] += a.linear[r, target] - a.linear[r, i]
    if i >= 0:
        _take(s, i, before)
    s.where[r] = target
    if target >= 0:
        _put(s, target, place, r)
    if i >= 0 and i != target:
        _reschedule(a, s, i)
    if target >= 0:
        _reschedule(a, s, target)
    else:
        _ends_at(a, s, r, np.nan, a.hold[r])
    _count_late(a, s)
    return True


@kernel
def _take(s: SearchState, i: int, place: int) -> None:
    for k in range(place, s.length[i] - 1):
        s.queue[i, k] = s.queue[i, k + 1]
    s.length[i] -= 1


@kernel
def _put(s: SearchState, i: int, place: int, r: int) -> None:
    for k in range(s.length[i], place, -1):
        s.queue[i, k] = s.queue[i, k - 1]
    s.queue[i, place] = r
    s.length[i] += 1


@kernel
def _place_of(s: SearchState, i: int, r: int) -> int:
    for k in range(s.length[i]):
        if s.queue[i, k] == r:
            return k
    return -1


@kernel
def _ends_at(a: Arrays, s: SearchState, r: int, start: float, end: float) -> None:
    """Log stage ``r``'s times, set new ones, and mark its workflow."""
    k = s.logged[0]
    s.log_stage[k], s.log_start[k], s.log_end[k] = r, s.start[r], s.end[r]
    s.logged[0] = k + 1
    w = a.workflow[r]
    s.cost[0] += a.completion * a.weight[w] * (end - s.end[r])
    s.start[r], s.end[r] = start, end
    if not s.marked[w]:
        s.marked[w] = True
        s.log_workflow[s.logged[1]] = w
        s.log_tardiness[s.logged[1]] = s.tardiness[w]
        s.logged[1] += 1


@kernel
def _reschedule(a: Arrays, s: SearchState, i: int) -> None:
    """Schedule instance ``i`` anew."""
    schedule(a, i, s.queue[i], s.length[i], s.fresh)
    for k in range(s.length[i]):
        r = s.queue[i, k]
        end = s.fresh[r] + a.service[r, i]
        if end != s.end[r] or s.fresh[r] != s.start[r]:
            _ends_at(a, s, r, s.fresh[r], end)
    if a.knots.shape[1] > 0:
        k = s.logged[2]
        s.log_instance[k], s.log_overload[k] = i, s.overload[i]
        s.logged[2] = k + 1
        s.overload[i] = overload(a, i, s.queue[i], s.length[i])
        s.cost[0] += s.overload[i] - s.log_overload[k]


@kernel
def _count_late(a: Arrays, s: SearchState) -> None:
    """Count the tardiness of the marked workflows anew."""
    unfair = worst_tenant(a, s.tardiness) if a.fairness > 0.0 else 0.0
    for k in range(s.logged[1]):
        w = s.log_workflow[k]
        late = 0.0
        for j in range(s.first_of[w], s.first_of[w + 1]):
            r = s.stages_of[j]
            if not np.isnan(s.end[r]):
                late = max(late, s.end[r] + a.tail[r] - a.due[w])
        change = a.tardiness * (late - s.tardiness[w])
        # Below LATE a workflow counts as in time, as the judge has it.
        if late <= LATE:
            change -= a.tardiness * late
        if s.tardiness[w] <= LATE:
            change += a.tardiness * s.tardiness[w]
        change += a.late * ((late > LATE) - (s.tardiness[w] > LATE))
        s.cost[0] += a.weight[w] * change
        s.tardiness[w] = late
    if a.fairness > 0.0:
        s.cost[0] += a.fairness * (worst_tenant(a, s.tardiness) - unfair)
