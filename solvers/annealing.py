"""Local search: simulated annealing over instances and orders. The online optimiser, good at any time.

Moves: a stage goes elsewhere in its queue, to another instance, or is held; two stages change places. Only the one or
two instances that a move touches are scheduled anew, and only the workflows whose stages then end at another time are
counted anew (:mod:`hexopt.solvers.search_state`).
"""

from __future__ import annotations

import time

import numpy as np

from hexopt.solvers.insertion import greedy
from hexopt.solvers.judge import evaluate
from hexopt.solvers.kernels import Arrays, arrays_of, kernel
from hexopt.solvers.plan import Plan
from hexopt.solvers.problem import EpochProblem
from hexopt.solvers.search_state import (
    SearchState,
    apply_move,
    best_plan,
    keep_best,
    put_back,
    recount,
    search_state,
    swap_move,
    undo_move,
    uniform,
)

_CHUNK = 256
"""Moves between two looks at the clock."""
_COOLING = 1e-3
"""Last temperature over the first."""
_HEAT = 0.05
"""First temperature over the mean increase of a random move that is worse."""


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
    a = arrays_of(problem)
    state = search_state(problem, first, seed)
    if state.movable.size and moves != 0:
        recount(a, state)
        keep_best(state)
        temperature = _HEAT * _typical_increase(a, state)
        done = 0
        while True:
            spent = 0.0 if time_limit is None else (time.perf_counter() - started) / time_limit
            share = max(spent, 0.0 if moves is None else done / moves)
            if share >= 1.0:
                break
            chunk = _CHUNK if moves is None else min(_CHUNK, moves - done)
            _anneal(a, state, temperature * _COOLING**share, chunk)
            done += chunk
        where, order = best_plan(problem, state)
    else:
        where, order = first.instance, first.order
    found = evaluate(problem, where, order)
    return Plan(where, order, found.objective, solver="annealing", seconds=time.perf_counter() - started)


@kernel
def _random_move(a: Arrays, s: SearchState) -> bool:
    """Make a random move; returns whether anything changed."""
    m = s.queue.shape[0]
    r = s.movable[int(uniform(s) * s.movable.shape[0])]
    i = s.where[r]
    if uniform(s) < 0.3:
        return swap_move(a, s, r, s.movable[int(uniform(s) * s.movable.shape[0])])
    target = i
    if i < 0 or uniform(s) < 0.7:
        target = int(uniform(s) * (m + 1)) if np.isfinite(a.hold[r]) else int(uniform(s) * m)
        if target == m:
            target = -1
    if (target >= 0 and not a.feasible[r, target]) or (target < 0 and i < 0):
        return False
    places = s.length[target] + (0 if target == i else 1) if target >= 0 else 1
    return apply_move(a, s, r, target, int(uniform(s) * places))


@kernel
def _typical_increase(a: Arrays, s: SearchState) -> float:
    """Mean increase of the objective over moves that raise it."""
    total, worse = 0.0, 0
    for _ in range(64):
        before = s.cost[0]
        if not _random_move(a, s):
            continue
        if s.cost[0] > before:
            total += s.cost[0] - before
            worse += 1
        undo_move(s)
    return total / worse if worse > 0 else 1e-9


@kernel
def _anneal(a: Arrays, s: SearchState, temperature: float, moves: int) -> None:
    recount(a, s)  # sums of differences drift
    for _ in range(moves):
        before = s.cost[0]
        if not _random_move(a, s):
            continue
        worse = s.cost[0] - before
        if worse <= 0.0 or uniform(s) < np.exp(-worse / temperature):
            put_back(s)
            if s.cost[0] < s.cost[1] - 1e-12 * abs(s.cost[1]):
                keep_best(s)
        else:
            undo_move(s)
