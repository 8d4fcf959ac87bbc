"""Solvers of pairs against trying all plans: plans are never below the optimum, bounds never above."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_problems import best_by_trying_all, random_pairs, random_plan

from hexopt.solvers.pairs import (
    PAIR_SOLVERS,
    PairPlan,
    alone_bound,
    anneal_pairs,
    cpsat_pairs,
    greedy_pairs,
    judge_pairs,
    lower_bound_pairs,
    solve_pairs,
)

SMALL = given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 2), st.integers(1, 2), st.booleans())


@SMALL
@settings(max_examples=200, deadline=None)
def test_plans_and_bounds_enclose_the_optimum(seed, n, p, d, whole):
    problem = random_pairs(np.random.default_rng(seed), n, p, d, whole)
    best = best_by_trying_all(problem)
    dust = 1e-9 * (1.0 + best)
    assert alone_bound(problem) <= best + dust
    assert greedy_pairs(problem).objective >= best - dust
    annealed = anneal_pairs(problem, time_limit=None, moves=3000)
    assert best - dust <= annealed.objective <= greedy_pairs(problem).objective
    for start in (annealed, greedy_pairs(problem), random_plan(np.random.default_rng(seed), problem)):
        assert lower_bound_pairs(problem, start, steps=40) <= best + dust
    plan = cpsat_pairs(problem, time_limit=20.0, warm_start=annealed)
    assert plan.bound <= best + dust and best - dust <= plan.objective <= annealed.objective
    if plan.status == "optimal":
        assert plan.objective == pytest.approx(best, rel=1e-6, abs=1e-4)


def test_the_program_finds_the_optimum_and_mostly_proves_it():
    found = proven = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        problem = random_pairs(rng, int(rng.integers(2, 5)), 2, 2, whole=True)
        plan = cpsat_pairs(problem, time_limit=20.0)
        found += plan.objective <= best_by_trying_all(problem) + 1e-9
        proven += plan.status == "optimal"
    # The rest is what a queue loses that never waits for a call yet to come.
    assert found >= 98 and proven >= 85


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_prices_never_bound_above_a_plan_and_never_below_what_is_seen_at_once(seed, n, p, d):
    problem = random_pairs(np.random.default_rng(seed), n, p, d)
    good = anneal_pairs(problem, time_limit=None, moves=5000)
    # From a bad plan, too: that its objective is above the optimum must not lift the bound.
    bad = random_plan(np.random.default_rng(seed), problem)
    for start in (good, bad):
        assert alone_bound(problem) <= lower_bound_pairs(problem, start, steps=60) <= good.objective * (1.0 + 1e-12)


def test_prices_see_the_queue_that_each_call_alone_does_not():
    n = 12
    problem = random_pairs(
        np.random.default_rng(0), n, 1, 1, prefill=np.full((n, 1), 1.0), decode=np.full((n, 1), 1.0),
        transfer=np.zeros((n, 1, 1)), weight=np.ones(n), workflow=np.arange(n), due=np.full(n, 1e3), kv=np.ones(n),
        kv_capacity=[n], seats=[n], prefill_free=[0.0], busy_instance=[], busy_until=[], busy_kv=[],
        release=np.zeros(n), bound=np.full(n, -1), kv_ready=np.full((n, 1), np.inf), hold=np.full(n, np.inf),
        imposed=np.zeros((n, 1)),
    )  # fmt: skip
    plan = greedy_pairs(problem)
    assert plan.objective == pytest.approx(0.05 * (n * (n + 1) / 2 + n))
    assert alone_bound(problem) == pytest.approx(0.05 * 2 * n)
    assert lower_bound_pairs(problem, plan) >= 0.93 * plan.objective


@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 3), st.integers(1, 3), st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_start_is_improved_or_kept_and_its_claims_are_not_believed(seed, n, p, d, whole):
    rng = np.random.default_rng(seed)
    problem = random_pairs(rng, n, p, d, whole)
    start = random_plan(rng, problem)
    cost = judge_pairs(problem, start).objective
    claims = PairPlan(start.prefill, start.decode, start.order, objective=-1.0, bound=1e9)
    for solver in ("annealing", "portfolio", "cp-sat"):
        plan = solve_pairs(problem, solver=solver, time_limit=0.1, warm_start=claims)
        assert plan.objective == judge_pairs(problem, plan).objective <= cost
        assert plan.bound <= plan.objective
        assert plan.bound <= greedy_pairs(problem).objective


def test_annealing_depends_on_nothing_but_the_seed_and_stops_in_time():
    problem = random_pairs(np.random.default_rng(1), 60, 4, 4)
    one, two = (anneal_pairs(problem, time_limit=None, moves=2000, seed=3) for _ in range(2))
    assert one.order.tolist() == two.order.tolist() and one.objective == two.objective
    with pytest.raises(ValueError, match="time_limit or moves"):
        anneal_pairs(problem, time_limit=None)
    anneal_pairs(problem, time_limit=0.01)
    assert anneal_pairs(problem, time_limit=0.2).seconds < 1.0


def test_without_time_greedy_insertion_answers():
    problem = random_pairs(np.random.default_rng(3), 80, 8, 8)
    first = greedy_pairs(problem)
    for solver in PAIR_SOLVERS:
        plan = solve_pairs(problem, solver=solver, time_limit=1e-6)
        assert plan.objective <= first.objective


def test_all_free_and_alike_is_one_machine_after_another():
    """One prefill instance, decodes without limits, equal weights: shortest prompt first is best (Smith 1956)."""
    rng = np.random.default_rng(7)
    n = 6
    prompt = rng.permutation(n) + 1.0
    problem = random_pairs(
        rng, n, 1, 1, prefill=prompt[:, None], decode=np.full((n, 1), 2.0), transfer=np.full((n, 1, 1), 0.5),
        weight=np.ones(n), workflow=np.arange(n), due=np.full(n, 1e3), kv=np.ones(n), kv_capacity=[n], seats=[n],
        prefill_free=[0.0], busy_instance=[], busy_until=[], busy_kv=[], release=np.zeros(n), bound=np.full(n, -1),
        kv_ready=np.full((n, 1), np.inf), hold=np.full(n, np.inf), imposed=np.zeros((n, 1)),
            tail=np.zeros(n),
    )  # fmt: skip
    expected = 0.05 * sum(np.cumsum(np.sort(prompt)) + 2.5)
    for solver in PAIR_SOLVERS:
        assert solve_pairs(problem, solver=solver, time_limit=2.0).objective == pytest.approx(expected)
    assert solve_pairs(problem, time_limit=5.0).status == "optimal"


def test_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ortools.sat.python.cp_model", None)
    problem = random_pairs(np.random.default_rng(0), 3, 1, 1)
    with pytest.raises(ImportError, match=r"pip install 'hexopt\[exact\]'"):
        cpsat_pairs(problem)
