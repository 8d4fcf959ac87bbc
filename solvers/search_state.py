"""A plan under search, as arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.judge import sequences
from hexopt.solvers.kernels import Arrays, cost_of, kernel, overload, schedule
from hexopt.solvers.plan import HELD
from hexopt.solvers.problem import EpochProblem


class SearchState(NamedTuple):
    """Arrays of a search; n stages, m instances, q workflows, k tenants."""

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
    """Seconds until it ends, shape (n,); of no meaning for one that is left out."""
    lateness: NDArray[np.float64]
    """Seconds that its workflow is late for its sake, negative if it is not; -inf if it is left out. Shape (n,)."""
    tardiness: NDArray[np.float64]
    """Of each workflow, shape (q,)."""
    load: NDArray[np.float64]
    """Of each instance, backlog included, shape (m,)."""
    overload: NDArray[np.float64]
    """Weighted, of each instance, shape (m,)."""
    burden: NDArray[np.float64]
    """What each stage cost those behind it when it was last taken away, shape (n,)."""
    late_sum: NDArray[np.float64]
    """Weighted tardiness of each tenant, shape (k,)."""
    cost: NDArray[np.float64]
    """The objective now, and the least so far; shape (2,)."""
    service: NDArray[np.float64]
    """Seconds from start to end, infinite where the stage cannot run; shape (n, m)."""
    slack: NDArray[np.float64]
    """Seconds by which the stage may end without making its workflow late, shape (n,)."""
    urgency: NDArray[np.float64]
    """Cost of a second until the stage ends, tardiness apart, shape (n,)."""
    stages_of: NDArray[np.int64]
    """Workflow w's stages are at first_of[w] .. first_of[w + 1]; shape (n,)."""
    first_of: NDArray[np.int64]
    logged: NDArray[np.int64]
    """How many steps, stages and workflows are in the log, and how often a trial was made; shape (4,)."""
    log_step: NDArray[np.int64]
    """Stage, its instance and place, 1 if it was put there, 0 if it was taken away; entries of stages and of workflows
    before; shape (steps, 6)."""
    log_cost: NDArray[np.float64]
    """The objective, the instance's load and its overload before; shape (steps, 3)."""
    log_stage: NDArray[np.int64]
    log_times: NDArray[np.float64]
    """Start, end and lateness before; shape (entries, 3)."""
    log_workflow: NDArray[np.int64]
    log_tardiness: NDArray[np.float64]
    trial: NDArray[np.int64]
    """In which trial a workflow was counted last, shape (q,)."""
    trial_tardiness: NDArray[np.float64]
    trial_workflow: NDArray[np.int64]
    trial_sum: NDArray[np.float64]
    """Scratch: a number for each tenant."""
    random: NDArray[np.uint64]
    """State of the random numbers, shape (1,)."""
    best_where: NDArray[np.int64]
    best_queue: NDArray[np.int64]
    best_length: NDArray[np.int64]


STEPS = 4
"""Most steps that can be undone together."""


def search_state(
    problem: EpochProblem, a: Arrays, instance: NDArray[np.int64], order: NDArray[np.int64], seed: int
) -> SearchState:
    """The state that stands for a plan; its costs are not counted yet."""
    n, m, q, k = problem.stages, problem.instances, a.due.shape[0], a.share.shape[0]
    queue = np.zeros((m, max(n, 1)), dtype=np.int64)
    count = np.zeros(m, dtype=np.int64)
    for i, sequence in enumerate(sequences(problem, instance, order)):
        queue[i, : len(sequence)] = sequence
        count[i] = len(sequence)
    by_workflow = np.argsort(a.workflow, kind="stable").astype(np.int64)
    fits = problem.feasible.any(axis=1) | np.isfinite(a.hold)
    return SearchState(
        movable=np.flatnonzero(fits).astype(np.int64),
        where=np.array(instance, dtype=np.int64),
        queue=queue,
        length=count,
        start=np.zeros(n),
        end=np.zeros(n),
        lateness=np.zeros(n),
        tardiness=np.zeros(q),
        load=np.zeros(m),
        overload=np.zeros(m),
        burden=np.zeros(n),
        late_sum=np.zeros(k),
        cost=np.full(2, np.inf),
        service=np.where(problem.feasible, a.service, np.inf),
        slack=a.due[a.workflow] - a.tail,
        urgency=a.completion * a.weight[a.workflow],
        stages_of=by_workflow,
        first_of=np.searchsorted(a.workflow[by_workflow], np.arange(q + 1)),
        logged=np.zeros(4, dtype=np.int64),
        log_step=np.zeros((STEPS, 6), dtype=np.int64),
        log_cost=np.zeros((STEPS, 3)),
        log_stage=np.zeros(STEPS * (n + 1), dtype=np.int64),
        log_times=np.zeros((STEPS * (n + 1), 3)),
        log_workflow=np.zeros(STEPS * (n + 1), dtype=np.int64),
        log_tardiness=np.zeros(STEPS * (n + 1)),
        trial=np.zeros(q, dtype=np.int64),
        trial_tardiness=np.zeros(q),
        trial_workflow=np.zeros(q, dtype=np.int64),
        trial_sum=np.zeros(k),
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
    """Count everything anew, as the judge does."""
    for i in range(s.queue.shape[0]):
        schedule(a, i, s.queue[i], s.length[i], s.start)
        s.overload[i] = overload(a, i, s.queue[i], s.length[i])
        s.load[i] = a.backlog[i]
        for k in range(s.length[i]):
            s.load[i] += a.load[s.queue[i, k], i]
    s.cost[0] = cost_of(a, s.where, s.start, s.tardiness) + s.overload.sum()
    for r in range(s.where.shape[0]):
        i = s.where[r]
        s.end[r] = s.start[r] + a.service[r, i] if i >= 0 else a.hold[r]
        s.lateness[r] = s.end[r] - s.slack[r] if np.isfinite(s.end[r]) else -np.inf
    s.late_sum[:] = 0.0
    for w in range(s.tardiness.shape[0]):
        s.late_sum[a.tenant[w]] += a.weight[w] * s.tardiness[w]


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
def restore_best(s: SearchState) -> None:
    """Go back to the best plan; its costs are not counted yet."""
    for r in range(s.where.shape[0]):
        s.where[r] = s.best_where[r]
    for i in range(s.queue.shape[0]):
        s.length[i] = s.best_length[i]
        for k in range(s.length[i]):
            s.queue[i, k] = s.best_queue[i, k]
