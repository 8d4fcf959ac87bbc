"""Steps of the search: what they count is what the judge finds, what they log can be undone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solver_problems import random_plan, random_problem

from hexopt.solvers.judge import evaluate
from hexopt.solvers.kernels import arrays_of
from hexopt.solvers.moves import accept, put, take, undo
from hexopt.solvers.search_state import best_plan, keep_best, recount, search_state
from hexopt.solvers.trials import try_at

CASE = given(st.integers(0, 2**31), st.integers(1, 14), st.integers(1, 4), st.booleans())
CASES = settings(max_examples=150, deadline=None)


def counted_state(rng, n, m, whole):
    problem = random_problem(rng, n, m, whole)
    a = arrays_of(problem)
    s = search_state(problem, a, *random_plan(rng, problem), seed=0)
    recount(a, s)
    return problem, a, s


def random_place(rng, problem, s, r):
    """An instance, -1 for holding, and a place of its queue."""
    able = [int(i) for i in np.flatnonzero(problem.feasible[r])]
    able += [-1] if np.isfinite(problem.hold[r]) else []
    i = int(rng.choice(able))
    return i, int(rng.integers(s.length[i] + 1)) if i >= 0 else 0


def numbers(s):
    """All that a step may change."""
    queues = [s.queue[i, : s.length[i]].copy() for i in range(len(s.length))]
    arrays = (s.where, s.length, s.start, s.end, s.lateness, s.tardiness, s.load, s.overload, s.cost[:1])
    return [*queues, *(array.copy() for array in arrays)]


def same(one, two):
    return all(np.array_equal(x, y) for x, y in zip(one, two, strict=True))


@CASE
@CASES
def test_the_cost_is_the_judges_after_every_step(seed, n, m, whole):
    rng = np.random.default_rng(seed)
    problem, a, s = counted_state(rng, n, m, whole)
    for r in rng.choice(s.movable, 12) if s.movable.size else ():
        take(a, s, r)
        put(a, s, r, *random_place(rng, problem, s, r))
        accept(s)
        keep_best(s)
        where, order = best_plan(problem, s)
        found = evaluate(problem, where, order)
        placed = where >= 0
        assert s.cost[0] == pytest.approx(found.objective, rel=1e-9, abs=1e-9)
        np.testing.assert_allclose(s.tardiness, found.tardiness, atol=1e-9)
        np.testing.assert_allclose(s.start[placed], found.start[placed], atol=1e-9)


@CASE
@CASES
def test_a_trial_finds_what_putting_the_stage_there_costs(seed, n, m, whole):
    rng = np.random.default_rng(seed)
    problem, a, s = counted_state(rng, n, m, whole)
    for r in rng.choice(s.movable, 12) if s.movable.size else ():
        take(a, s, r)
        i, place = random_place(rng, problem, s, r)
        before, there = s.cost[0], numbers(s)
        increase = try_at(a, s, r, i, place, np.inf)
        assert try_at(a, s, r, i, place, 0.5 * increase) > 0.5 * increase or increase == 0.0
        assert same(numbers(s), there)
        put(a, s, r, i, place)
        assert s.cost[0] - before == pytest.approx(increase, rel=1e-9, abs=1e-9)
        accept(s)


@CASE
@CASES
def test_steps_are_undone_one_by_one(seed, n, m, whole):
    rng = np.random.default_rng(seed)
    problem, a, s = counted_state(rng, n, m, whole)
    if s.movable.size < 2:
        return
    one, two = rng.choice(s.movable, 2, replace=False)
    seen = [numbers(s)]
    take(a, s, one)
    seen.append(numbers(s))
    take(a, s, two)
    seen.append(numbers(s))
    put(a, s, one, *random_place(rng, problem, s, one))
    seen.append(numbers(s))
    put(a, s, two, *random_place(rng, problem, s, two))
    for keep in (3, 2, 1, 0):
        undo(a, s, keep)
        # A stage that is taken out keeps the instance it was put to: nothing reads it there.
        where = len(s.length)
        now = numbers(s)
        if keep:
            now[where] = seen[keep][where]
        assert same(now, seen[keep])
    np.testing.assert_allclose(s.late_sum, np.bincount(a.tenant, a.weight * s.tardiness, len(a.share)), atol=1e-9)
