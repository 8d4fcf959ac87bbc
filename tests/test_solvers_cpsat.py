"""CP-SAT against the best of all plans: what it finds, what it proves, and what it may be told."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solver_problems import best_by_trying_all, choices, judged, random_plan, random_problem

from hexopt.solvers.insertion import greedy
from hexopt.solvers.judge import evaluate
from hexopt.solvers.plan import HELD, Plan
from hexopt.solvers.problem import EpochProblem, ObjectiveWeights, ProblemError

pytest.importorskip("ortools")
from hexopt.solvers.cpsat import cpsat


def tiny(n: int, m: int, **changes) -> EpochProblem:
    """One call at a time, 2 s each on every instance, weights 1, all due now, completion for free."""
    arrays = {
        "service": np.full((n, m), 2.0), "tail": np.zeros(n), "workflow": np.arange(n), "due": np.zeros(n),
        "weight": np.ones(n), "seats": np.ones(m), "kv_capacity": np.full(m, 10.0), "kv": np.ones(n),
        "weights": ObjectiveWeights(completion=0.0),
    }  # fmt: skip
    return EpochProblem(**(arrays | changes))


def assert_best(problem: EpochProblem, best: float, **options) -> Plan:
    """The plan is one, the best, costs what it says, and is proven."""
    plan = cpsat(problem, **options)
    assert plan.objective == evaluate(problem, plan.instance, plan.order).objective
    assert plan.objective == pytest.approx(best, rel=1e-6, abs=1e-6)
    assert plan.bound <= best * (1.0 + 1e-12) and plan.bound <= plan.objective
    # Each time is rounded by up to a tick of 1e-6 s, and weights are up to 5.
    assert plan.bound == pytest.approx(best, rel=1e-6, abs=5e-5)
    assert plan.status == "optimal" and plan.solver == "cp-sat"
    assert (plan.instance[problem.homeless] == HELD).all()
    return plan


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("block", range(4))
def test_finds_and_proves_the_best_of_all_plans(block, whole):
    for seed in range(40 * block, 40 * block + 40):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, int(rng.integers(1, 5)), int(rng.integers(1, 4)), whole)
        assert_best(problem, best_by_trying_all(problem))


@pytest.mark.parametrize("seed", [11472])
def test_where_the_presolve_once_cut_the_best_plan_off(seed):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, int(rng.integers(1, 5)), int(rng.integers(1, 4)), release=None)
    assert_best(problem, best_by_trying_all(problem))


@pytest.mark.parametrize("seed", range(40))
def test_each_weight_alone_and_odd_weights(seed):
    rng = np.random.default_rng(seed)
    names = list(ObjectiveWeights.__dataclass_fields__)
    alone = ObjectiveWeights(**{name: float(name == names[seed % 8]) for name in names})
    odd = ObjectiveWeights(*rng.uniform(0.0, 3.0, 8))
    weight = rng.uniform(0.1, 5.0, 4)
    for weights in (alone, odd):
        problem = random_problem(rng, 3, 2, bool(seed % 2), weights=weights)
        problem = replace(problem, weight=weight[: len(problem.due)])
        assert_best(problem, best_by_trying_all(problem))


def test_running_calls_may_exceed_seats_and_tokens_and_stages_may_hold_none():
    exceeded = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        busy = rng.integers(0, 2, 5)
        problem = random_problem(
            rng, 3, 2, bool(seed % 2),
            busy_instance=busy, busy_until=rng.integers(0, 6, 5).astype(float), busy_kv=rng.uniform(0.0, 9.0, 5),
            seats=np.array([1, 2]), kv=rng.choice([0.0, 0.3, 2.5, 4.0], 3), kv_capacity=np.array([6.5, 12.0]),
        )  # fmt: skip
        exceeded += (np.bincount(busy, minlength=2) > problem.seats).any()
        assert_best(problem, best_by_trying_all(problem))
    assert exceeded > 30


def test_tokens_too_close_to_tell_apart_leave_the_bound_valid():
    problem = tiny(2, 1, seats=[2], kv=[5.00004, 5.00004], due=[2.0, 2.0])
    plan = cpsat(problem)
    assert plan.objective == best_by_trying_all(problem) == 2.0
    assert plan.bound == pytest.approx(0.0, abs=1e-9) and plan.status == "feasible"


@pytest.mark.parametrize("resolution", [1e-3, 0.1, 1.0, 5.0])
def test_coarse_ticks_leave_the_bound_valid(resolution):
    gaps = []
    for seed in range(15):
        problem = random_problem(np.random.default_rng(seed), 4, 2)
        best = best_by_trying_all(problem)
        plan = cpsat(problem, resolution=resolution)
        assert plan.bound <= best * (1.0 + 1e-12) <= plan.objective * (1.0 + 2e-12)
        gaps.append(1.0 - plan.bound / best if best else 0.0)
    assert 0.0 < max(gaps) < {1e-3: 0.1, 0.1: 0.5}.get(resolution, 1.0)


def test_what_rounding_hides_is_not_called_optimal():
    """The stage is late by less than a tick, but late: its bound does not know."""
    problem = tiny(1, 1, due=[2.0 - 4e-7], weights=ObjectiveWeights(late=1.0, completion=0.0))
    plan = cpsat(problem)
    assert plan.objective > 1.0 and plan.bound < 1e-6 and plan.status == "feasible"
    assert cpsat(problem, resolution=1e-7).status == "optimal"


def test_very_long_and_very_short_times_fit():
    service = np.array([[1e-9, 3e7], [2e7, 1e-9], [4e7, 4e7]])
    problem = tiny(3, 2, service=service, weights=ObjectiveWeights())
    best = best_by_trying_all(problem)
    plan = cpsat(problem)
    assert plan.bound <= best and plan.objective == pytest.approx(best, rel=1e-9)
    assert plan.bound == pytest.approx(best, rel=1e-6)


def test_a_stage_of_no_ticks_goes_ahead_of_those_that_start_with_it():
    problem = tiny(2, 1, service=[[5.0], [1e-7]], weights=ObjectiveWeights(tardiness=1.0, completion=0.0))
    plan = cpsat(problem)
    assert plan.order.tolist() == [1, 0] and plan.objective == pytest.approx(5.0, abs=1e-6)


def test_no_stages_and_homeless_ones():
    empty = tiny(0, 1, due=[], weight=[], backlog=[3.0], knots=[[1.0]], slopes=[[2.0]])
    assert assert_best(empty, 4.0).order.size == 0
    problem = tiny(3, 2, kv=[1.0, 11.0, 1.0])
    plan = assert_best(problem, 4.0)
    assert plan.instance[1] == HELD and sorted(plan.instance[[0, 2]]) == [0, 1]


def test_the_bound_of_no_time_is_one():
    shares = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, int(rng.integers(1, 5)), int(rng.integers(1, 4)), bool(seed % 2))
        best = best_by_trying_all(problem)
        plan = cpsat(problem, time_limit=1e-6)
        assert plan.bound <= best * (1.0 + 1e-12) and plan.status == "feasible"
        shares.append(plan.bound / best if best else 1.0)
    assert np.median(shares) > 0.6


def constrained_best(problem, together, apart) -> float:
    """The least objective of the plans that obey, by trying all."""
    least = np.inf
    for instance in product(*choices(problem)):
        if all(instance[r] == instance[s] for r, s in together) and not any(
            instance[r] == instance[s] >= 0 for r, s in apart
        ):
            least = min([least, *(judged(problem, instance, order)[0] for order in permutations(range(len(instance))))])
    return least


def test_together_and_apart():
    kinds = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, 4, int(rng.integers(1, 4)), whole=bool(seed % 2))
        pairs = rng.permutation(np.setdiff1d(np.arange(4), problem.homeless))
        together = [tuple(pairs[:2].tolist())] if len(pairs) > 1 else []
        apart = [tuple(pairs[1:3].tolist())] if len(pairs) > 2 else []
        best = constrained_best(problem, together, apart)
        if best == np.inf:
            with pytest.raises(ProblemError, match="together, apart: no plan obeys them"):
                cpsat(problem, together=together, apart=apart)
            kinds.append("none")
            continue
        plan = assert_best(problem, best, together=together, apart=apart)
        assert all(plan.instance[r] == plan.instance[s] for r, s in together)
        assert all(plan.instance[r] != plan.instance[s] or plan.instance[r] == HELD for r, s in apart)
        kinds.append("dearer" if best > best_by_trying_all(problem) + 1e-9 else "same")
    assert min(kinds.count(kind) for kind in ("none", "dearer", "same")) >= 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"together": [(0, 3)]}, r"together\[0\] is \(0, 3\), expected two stages from 0 to 2"),
        ({"apart": [(0, 2), (1, 1)]}, r"apart\[1\] is \(1, 1\)"),
        ({"apart": [(-1, 2)]}, r"apart\[0\] is \(-1, 2\)"),
        ({"together": [(0, 1)]}, r"together\[0\] names stage 1, which fits nowhere"),
        ({"time_limit": 0.0}, "time_limit is 0.0, expected more than 0"),
        ({"resolution": 1e-9}, "resolution is 1e-09"),
        ({"resolution": np.nan}, "resolution is nan"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_bad_arguments_are_refused_by_name(options, words):
    with pytest.raises(ProblemError, match=words):
        cpsat(tiny(3, 2, kv=[1.0, 11.0, 1.0]), **options)


def test_keeps_to_the_time_and_never_worsens_the_start():
    rng = np.random.default_rng(3)
    for n, m, limit in ((60, 6, 1.0), (150, 24, 2.0)):
        problem = random_problem(rng, n, m)
        first = greedy(problem)
        plan = cpsat(problem, time_limit=limit, warm_start=first)
        assert plan.seconds <= 2.0 * limit
        assert plan.objective <= first.objective and 0.2 * plan.objective < plan.bound <= plan.objective
        assert plan.status == "feasible"


def test_without_time_the_start_comes_back():
    problem = random_problem(np.random.default_rng(3), 150, 24)
    first = greedy(problem)
    plan = cpsat(problem, time_limit=1e-6)
    assert plan.instance.tolist() == first.instance.tolist() and plan.objective == first.objective
    assert 0.1 * plan.objective < plan.bound <= plan.objective and plan.status == "feasible"
    others = [r for r in range(150) if r not in problem.homeless and first.instance[r] != HELD]
    pair = next((r, s) for r in others for s in others if first.instance[r] == first.instance[s] and r < s)
    with pytest.raises(TimeoutError, match="no plan that obeys together and apart was found"):
        cpsat(problem, time_limit=1e-6, apart=[pair])


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 4), st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_start_is_improved_or_kept_and_its_claims_are_not_believed(seed, n, m, whole):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, n, m, whole)
    instance, order = random_plan(rng, problem)
    plan = cpsat(problem, time_limit=0.2, warm_start=Plan(instance, order, objective=-1.0))
    assert plan.bound <= plan.objective <= evaluate(problem, instance, order).objective
    assert plan.objective == evaluate(problem, plan.instance, plan.order).objective
    assert plan.bound <= greedy(problem).objective * (1.0 + 1e-12)


def test_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ortools.sat.python.cp_model", None)
    with pytest.raises(ImportError, match=r"pip install 'hexopt\[exact\]'"):
        cpsat(tiny(1, 1))
