"""Simulated annealing over pairs and orders. The online optimiser, good at any time.

A move gives a call another pair, another place in the order beside one that it shares an instance with, or both, or
lets two calls change places, with their pairs or without. The whole plan is scheduled anew: an earlier prefill may move
every decode behind it. The move is kept if the objective does not rise beyond a threshold drawn before (Metropolis:
``-temperature log u``).
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.kernels import inlined, kernel
from hexopt.solvers.pairs.insertion import greedy_pairs
from hexopt.solvers.pairs.judge import objective_of
from hexopt.solvers.pairs.kernels import PairArrays, arrays_of, cost_of
from hexopt.solvers.pairs.plan import PairPlan
from hexopt.solvers.pairs.problem import PairProblem
from hexopt.solvers.plan import HELD

_LOOKS = 40
"""How often a run looks at the clock."""
_FIRST_CHUNK = 32
"""Moves until it is known how long they take."""
_FINISH = 1.5e-4
"""Seconds kept back for the judge."""
_COLD = 0.003
"""Last temperature over the mean increase of a random move that is worse."""
_HOT = 30.0
"""First temperature over the last one where there is time for ``_PASSES`` moves of each call, less where there is not:
a plan heated up in short time ends worse than one that is only polished."""
_PASSES = 400.0
_WARM = 5.0
"""The same as ``_HOT`` from a plan that was handed in."""
_CYCLE = 2000.0
"""Moves of each call after which a run that has time for more is heated up again, from the best plan."""
_SAMPLES = 60
"""Moves that the mean is of."""


class Search(NamedTuple):
    """Where a search stands."""

    prefill: NDArray[np.int64]
    decode: NDArray[np.int64]
    order: NDArray[np.int64]
    rank: NDArray[np.int64]
    """Inverse of ``order``."""
    best_prefill: NDArray[np.int64]
    best_decode: NDArray[np.int64]
    best_order: NDArray[np.int64]
    choice_first: NDArray[np.int64]
    """Call r's pairs are at choice_first[r] .. choice_first[r + 1], the fastest first."""
    choice: NDArray[np.int64]
    """Pairs, shape (., 2); -1, -1 for held."""
    cost: NDArray[np.float64]
    """Of the plan, and the best one."""
    seed: NDArray[np.uint64]
    """State of the random numbers, shape (1,)."""


def anneal_pairs(
    problem: PairProblem,
    *,
    time_limit: float | None = 0.02,
    moves: int | None = None,
    warm_start: PairPlan | None = None,
    seed: int = 0,
) -> PairPlan:
    """Improve a plan by simulated annealing; the result is never worse than the start.

    Parameters
    ----------
    time_limit
        Seconds; None for no limit in time.
    moves
        How many moves; with ``time_limit`` None the result depends on nothing but this and the seed.
    warm_start
        Where to start if it is better than greedy insertion's plan, which is where to start otherwise.
    seed
        Of the random moves.
    """
    started = time.perf_counter()
    if time_limit is None and moves is None:
        raise ValueError("time_limit or moves must be given")
    until = None if time_limit is None else max(0.5 * time_limit, time_limit - _FINISH)
    a = arrays_of(problem)
    start, warm = greedy_pairs(problem), False
    if warm_start is not None:
        mine = objective_of(problem, a, warm_start)
        if mine < start.objective:
            start, warm = PairPlan(warm_start.prefill, warm_start.decode, warm_start.order, mine), True
    best = start
    if problem.calls and moves != 0:
        s = _search_state(problem, start, seed)
        _search(a, s, _WARM if warm else _HOT, started, until, moves)
        best = PairPlan(s.best_prefill, s.best_decode, s.best_order)
        best = PairPlan(s.best_prefill, s.best_decode, s.best_order, objective_of(problem, a, best))
    return PairPlan(
        best.prefill, best.decode, best.order, best.objective, solver="annealing", seconds=time.perf_counter() - started
    )


def _search_state(problem: PairProblem, start: PairPlan, seed: int) -> Search:
    n = problem.calls
    sums = problem.arrival + np.where(np.isfinite(problem.decode), problem.decode, np.inf)[:, None]
    flat = np.argsort(sums.reshape(n, -1), axis=1, kind="stable")
    count = problem.possible.sum(axis=(1, 2))
    can_hold = np.isfinite(np.asarray(problem.hold))
    first = np.zeros(n + 1, np.int64)
    np.cumsum(count + can_hold, out=first[1:])
    choice = np.full((int(first[-1]), 2), HELD)
    for r in range(n):
        at = slice(first[r], first[r] + count[r])
        choice[at, 0], choice[at, 1] = np.divmod(flat[r, : count[r]], problem.decodes)
    choice[np.repeat(problem.settled, np.diff(first)), 0] = HELD
    prefill, decode, order = (np.array(x, dtype=np.int64) for x in (start.prefill, start.decode, start.order))
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    cost = np.array([start.objective, start.objective])
    state = np.array([np.random.default_rng(seed).integers(1, 2**63)], dtype=np.uint64)
    return Search(prefill, decode, order, rank, prefill.copy(), decode.copy(), order.copy(), first, choice, cost, state)


def _search(a: PairArrays, s: Search, heat: float, started: float, time_limit: float | None, moves: int | None) -> None:
    """Anneal until time or moves are used up; the best plan is kept."""
    n = s.order.shape[0]
    last = _COLD * _typical_increase(a, s, _SAMPLES if moves is None else min(_SAMPLES, moves))
    begun, done = time.perf_counter(), 0
    cycle = 0
    chunk, total = _FIRST_CHUNK, float(moves or _FIRST_CHUNK)
    while True:
        now = time.perf_counter()
        share = 0.0 if moves is None else done / moves
        if time_limit is not None:
            share = max(share, (now - started) / max(time_limit, 1e-9))
        if share >= 1.0:
            break
        if time_limit is not None and done:
            left = started + time_limit - now
            total = done + left * done / (now - begun)
            chunk = 1 + int(min(time_limit / _LOOKS, left) * done / (now - begun))
        if moves is not None:
            chunk, total = min(chunk, moves - done), min(total, moves)
        cycles = max(1, int(total / (_CYCLE * n)))
        if int(share * cycles) != cycle:
            cycle = int(share * cycles)
            _start_anew(s)
        hot = 1.0 + heat * min(1.0, total / (_PASSES * n)) ** 0.5
        _anneal(a, s, last * hot ** (1.0 - share * cycles % 1.0), chunk)
        done += chunk


def _start_anew(s: Search) -> None:
    """Go on from the best plan."""
    for now, best in ((s.prefill, s.best_prefill), (s.decode, s.best_decode), (s.order, s.best_order)):
        now[:] = best
    s.rank[s.order] = np.arange(s.order.shape[0])
    s.cost[0] = s.cost[1]


@inlined
def _uniform(s: Search) -> float:
    """A random number in [0, 1): xorshift64* (Vigna 2016)."""
    x = s.seed[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    s.seed[0] = x
    return float((x * np.uint64(2685821657736338717)) >> np.uint64(11)) / 9007199254740992.0


@inlined
def _shift(s: Search, r: int, place: int) -> None:
    """Move call ``r`` to ``place`` of the order."""
    k = s.rank[r]
    while k < place:
        s.order[k] = s.order[k + 1]
        s.rank[s.order[k]] = k
        k += 1
    while k > place:
        s.order[k] = s.order[k - 1]
        s.rank[s.order[k]] = k
        k -= 1
    s.order[place] = r
    s.rank[r] = place


@inlined
def _company(s: Search, r: int) -> int:
    """A random call, one that shares an instance with ``r`` if a few tries find it."""
    n = s.order.shape[0]
    other = r
    for _ in range(12):
        other = int(_uniform(s) * n)
        if other == r:
            continue
        if (s.prefill[other] == s.prefill[r] and s.prefill[r] >= 0) or s.decode[other] == s.decode[r]:
            break
    return other


@inlined
def _draw(s: Search, r: int) -> int:
    """A random pair of call ``r``, a fast one rather than a slow one."""
    u = _uniform(s)
    if _uniform(s) < 0.7:
        u *= u * u
    return int(s.choice_first[r]) + int(u * (s.choice_first[r + 1] - s.choice_first[r]))


@inlined
def _cost_with(a: PairArrays, s: Search, r: int, i: int, j: int, place: int) -> float:
    """Objective once call ``r`` has this pair and place."""
    s.prefill[r], s.decode[r] = i, j
    _shift(s, r, place)
    return float(cost_of(a, s.prefill, s.decode, s.order))


@inlined
def _exchange(s: Search, r: int, other: int, pairs: bool) -> None:
    """Let two calls change places, and their pairs if ``pairs``."""
    k, m = s.rank[r], s.rank[other]
    s.order[k], s.order[m] = other, r
    s.rank[r], s.rank[other] = m, k
    if pairs:
        s.prefill[r], s.prefill[other] = s.prefill[other], s.prefill[r]
        s.decode[r], s.decode[other] = s.decode[other], s.decode[r]


@inlined
def _can_have(a: PairArrays, s: Search, r: int, i: int, j: int) -> bool:
    """Whether unsettled call ``r`` can have this pair."""
    if j < 0:
        return bool(np.isfinite(a.hold[r]))
    return bool(np.isfinite(a.arrival[r, i, j]))


@kernel
def _move(a: PairArrays, s: Search, bar: float) -> float:
    """Try one random move; it stays if the objective is at most ``bar``. Returns what it would have cost."""
    n = s.order.shape[0]
    r = int(_uniform(s) * n)
    i, j, place = s.prefill[r], s.decode[r], s.rank[r]
    kind = _uniform(s)
    if kind < 0.3 and n > 1:
        other = _company(s, r)
        pairs = (
            kind < 0.15
            and not (a.settled[r] or a.settled[other])
            and _can_have(a, s, r, s.prefill[other], s.decode[other])
            and _can_have(a, s, other, i, j)
        )
        if other == r:
            return np.inf
        _exchange(s, r, other, pairs)
        cost = float(cost_of(a, s.prefill, s.decode, s.order))
        if cost > bar:
            _exchange(s, r, other, pairs)
        else:
            s.cost[0] = cost
        return cost
    new_i, new_j, new_place = i, j, place
    if kind < 0.8:
        k = _draw(s, r)
        new_i, new_j = s.choice[k, 0], s.choice[k, 1]
        if kind > 0.6 and i >= 0 and new_j >= 0 and j >= 0:
            # One of the two stays.
            if kind > 0.7 and np.isfinite(a.arrival[r, i, new_j]):
                new_i = i
            elif np.isfinite(a.arrival[r, new_i, j]):
                new_j = j
    if kind > 0.7 or (kind < 0.5 and _uniform(s) < 0.5):
        new_place = s.rank[_company(s, r)]
    if new_i == i and new_j == j and new_place == place:
        return np.inf
    cost = _cost_with(a, s, r, new_i, new_j, new_place)
    if cost > bar:
        s.prefill[r], s.decode[r] = i, j
        _shift(s, r, place)
    else:
        s.cost[0] = cost
    return cost


@kernel
def _typical_increase(a: PairArrays, s: Search, samples: int) -> float:
    """Mean increase of the objective over random moves that raise it; none is made."""
    total, worse = 0.0, 0
    for _ in range(samples):
        increase = _move(a, s, -np.inf) - s.cost[0]
        if increase > 0.0 and np.isfinite(increase):
            total += increase
            worse += 1
    return total / worse if worse > 0 else 1e-9


@kernel
def _anneal(a: PairArrays, s: Search, temperature: float, moves: int) -> None:
    for _ in range(moves):
        before = s.cost[0]
        _move(a, s, before - temperature * np.log(1.0 - _uniform(s)))
        if s.cost[0] < s.cost[1]:
            s.cost[1] = s.cost[0]
            for r in range(s.order.shape[0]):
                s.best_prefill[r], s.best_decode[r], s.best_order[r] = s.prefill[r], s.decode[r], s.order[r]
