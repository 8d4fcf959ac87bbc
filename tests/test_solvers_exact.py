"""Bounds and proofs: the Lagrangian bound, the arc-flow solver, the portfolio, against trying all plans."""

from __future__ import annotations

import importlib.util
import math
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solver_problems import best_by_trying_all, judged, random_plan, random_problem

from hexopt.solvers import SOLVERS, EpochProblem, ObjectiveWeights, anneal, evaluate, greedy, lower_bound, solve
from hexopt.solvers.arcs import surviving_arcs
from hexopt.solvers.exact import exact, on_grid
from hexopt.solvers.lagrangian import Lagrangian
from hexopt.solvers.portfolio import portfolio

pulp = pytest.importorskip("pulp", reason="needs the extra hexopt[exact]")

CASE = given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 4), st.booleans())


def small(seed: int, stages: int = 5) -> EpochProblem:
    rng = np.random.default_rng(seed)
    return random_problem(rng, int(rng.integers(1, stages)), int(rng.integers(1, 4)), whole=bool(seed % 2))


@CASE
@settings(max_examples=150, deadline=None)
def test_no_plan_is_below_the_bound(seed, n, m, whole):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, n, m, whole)
    bound = lower_bound(problem, greedy(problem), time_limit=None, iterations=60, buckets=int(rng.integers(1, 30)))
    best = anneal(problem, time_limit=None, moves=2000)
    assert bound <= best.objective + 1e-9 * abs(best.objective)
    for _ in range(5):
        assert bound <= judged(problem, *random_plan(rng, problem))[0] + 1e-9


def test_the_bound_is_near_the_optimum():
    gaps = []
    for seed in range(60):
        problem = small(seed)
        best = best_by_trying_all(problem)
        bound = lower_bound(problem, greedy(problem), time_limit=None, iterations=150)
        assert bound <= best + 1e-9 * (1.0 + abs(best))
        gaps.append((best - bound) / best if best else 0.0)
    assert np.median(gaps) < 0.01 and np.mean(gaps) < 0.06


def test_more_steps_and_finer_buckets_never_lower_the_bound():
    problem = random_problem(np.random.default_rng(3), 14, 3)
    plan = anneal(problem, time_limit=None, moves=3000)
    search = Lagrangian(problem, plan, 8)
    bounds = []
    for _ in range(6):
        search.ascend(plan.objective, iterations=30)
        bounds.append(search.bound)
        search.refine()
    assert bounds == sorted(bounds) and math.isfinite(bounds[0])


@pytest.mark.parametrize("back_end", ["highs", "cbc"])
@pytest.mark.parametrize("first", range(0, 80, 20))
def test_exact_finds_the_best_of_all_plans(first, back_end):
    for seed in range(first, first + 20):
        problem = small(seed)
        best = best_by_trying_all(problem)
        plan = exact(problem, time_limit=20.0, back_end=back_end)
        assert plan.status == "optimal"
        assert plan.objective == pytest.approx(best, rel=1e-6, abs=1e-6)
        assert plan.objective == evaluate(problem, plan.instance, plan.order).objective
        assert plan.bound <= best + 1e-9 * (1.0 + abs(best))


def test_exact_proves_what_the_bound_alone_does_not():
    proven = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        problem = on_grid(random_problem(rng, 10, 3, whole=True), 1.0)
        plan = exact(problem, time_limit=20.0)
        alone = lower_bound(problem, plan, time_limit=None, iterations=300)
        assert alone <= plan.bound + 1e-6 * abs(plan.bound)
        proven += plan.status == "optimal" and alone < plan.objective * (1 - 1e-3)
        assert plan.objective <= anneal(problem, time_limit=None, moves=5000).objective + 1e-9
    assert proven >= 5


def test_arcs_of_the_best_plan_survive():
    for seed in range(30):
        problem = random_problem(np.random.default_rng(seed), 6, 2, whole=True)
        best = exact(problem, time_limit=20.0)
        search = Lagrangian(problem, greedy(problem), 24)
        search.ascend(best.objective, iterations=100)
        arcs = surviving_arcs(search, best.objective, 10**6)
        start = evaluate(problem, best.instance, best.order).start
        kept = {
            (int(r), int(i), round(float(t), 6)) for r, i, t in zip(arcs.stage, arcs.instance, arcs.start, strict=True)
        }
        for r in np.setdiff1d(np.arange(6), problem.homeless):
            i = int(best.instance[r])
            assert (int(r), i, round(float(start[r]), 6) if i >= 0 else 0.0) in kept


@CASE
@settings(max_examples=60, deadline=None)
def test_cutting_times_to_a_grid_makes_no_plan_worse(seed, n, m, whole):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, n, m, whole)
    plan = random_plan(rng, problem)
    cut = evaluate(on_grid(problem, 0.5), *plan).objective
    assert cut <= evaluate(problem, *plan).objective + 1e-9


def test_too_many_arcs_leave_a_valid_bound_and_a_plan():
    problem = random_problem(np.random.default_rng(1), 14, 3)
    plan = exact(problem, time_limit=5.0, most_arcs=30)
    assert plan.bound <= plan.objective and plan.objective <= greedy(problem).objective


@pytest.mark.parametrize("limit", [0.05, 0.3])
def test_the_portfolio_keeps_its_time_and_its_word(limit):
    portfolio(random_problem(np.random.default_rng(0), 30, 4), time_limit=5.0, gap=0.5)  # compiled
    taken = []
    for seed in range(8):
        problem = random_problem(np.random.default_rng(seed), 30, 4)
        begun = time.perf_counter()
        plan = portfolio(problem, time_limit=limit)
        taken.append(time.perf_counter() - begun)
        assert plan.objective == evaluate(problem, plan.instance, plan.order).objective
        assert plan.bound <= plan.objective <= greedy(problem).objective
        assert plan.gap < 0.5
    # Generous, for loaded machines: benchmarks/bench_solvers.py measures how well limits are kept.
    assert np.median(taken) <= 2.0 * limit


def test_the_portfolio_stops_at_the_gap():
    problem = random_problem(np.random.default_rng(2), 25, 4)
    begun = time.perf_counter()
    plan = portfolio(problem, time_limit=20.0, gap=0.4)
    assert plan.gap <= 0.4 and time.perf_counter() - begun < 10.0


def test_the_portfolio_works_until_its_limit_and_gains_by_it():
    shares, short, long = [], [], []
    for seed in range(4):
        problem = random_problem(np.random.default_rng(seed), 30, 4)
        plans = [portfolio(problem, time_limit=limit) for limit in (0.05, 0.7)]
        short.append(plans[0].gap)
        long.append(plans[1].gap)
        shares.append(plans[1].seconds / 0.7)
    assert min(shares) > 0.75
    assert np.mean(long) < np.mean(short)


def test_the_portfolio_proves_small_problems():
    pytest.importorskip("ortools", reason="needs the extra hexopt[exact]")
    for seed in range(6):
        problem = random_problem(np.random.default_rng(seed), 8, 3, whole=bool(seed % 2))
        plan, best = portfolio(problem, time_limit=20.0), solve(problem, solver="cp-sat", time_limit=20.0)
        assert plan.status == best.status == "optimal"
        assert plan.objective == pytest.approx(best.objective, rel=1e-6)


@pytest.mark.parametrize("missing", [("ortools",), ("ortools", "pulp")])
def test_the_portfolio_does_without_exact_solvers(monkeypatch, missing):
    there = importlib.util.find_spec
    # The package's attribute of that name is the function.
    module = sys.modules["hexopt.solvers.portfolio"]
    monkeypatch.setattr(module, "find_spec", lambda name: None if name in missing else there(name))
    problem = random_problem(np.random.default_rng(1), 9, 3)
    plan = portfolio(problem, time_limit=0.8)
    assert plan.objective == evaluate(problem, plan.instance, plan.order).objective
    assert 0.8 * plan.objective < plan.bound <= plan.objective


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_by_name(solver):
    if solver == "cp-sat":
        pytest.importorskip("ortools", reason="needs the extra hexopt[exact]")
    for seed in range(6):
        problem = random_problem(np.random.default_rng(seed), 6, 2, whole=True)
        plan = solve(problem, solver=solver, time_limit=10.0 if solver in ("exact", "cp-sat") else 0.1)
        assert plan.solver == solver
        assert plan.objective == evaluate(problem, plan.instance, plan.order).objective
        assert plan.bound <= plan.objective + 1e-9
        if solver in ("exact", "cp-sat"):
            assert plan.status == "optimal"


def test_two_exact_solvers_agree():
    pytest.importorskip("ortools", reason="needs the extra hexopt[exact]")
    for seed in range(12):
        problem = random_problem(np.random.default_rng(100 + seed), 7, 3, whole=bool(seed % 2))
        one, two = (solve(problem, solver=name, time_limit=30.0) for name in ("exact", "cp-sat"))
        assert one.status == two.status == "optimal"
        assert one.objective == pytest.approx(two.objective, rel=1e-6)


def test_doubling_all_weights_doubles_optimum_and_bound():
    problem = small(11, 6)
    weights = ObjectiveWeights(**{k: 2.0 * getattr(problem.weights, k) for k in problem.weights.__slots__})
    double = replace(problem, weights=weights)
    assert exact(double).objective == pytest.approx(2.0 * exact(problem).objective, rel=1e-6)


def test_bad_calls_are_named():
    problem = small(0)
    with pytest.raises(ValueError, match="solver 'magic': expected one of greedy, annealing"):
        solve(problem, solver="magic")
    with pytest.raises(ValueError, match="time_limit is 0"):
        solve(problem, time_limit=0.0)
    with pytest.raises(ValueError, match="back end 'x': expected highs or cbc"):
        exact(random_problem(np.random.default_rng(0), 10, 3, whole=True), back_end="x")
