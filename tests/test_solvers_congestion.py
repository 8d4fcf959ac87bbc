"""The congestion model: arrays against PuLP on two back ends, its files, its plans."""

from __future__ import annotations

import numpy as np
import pytest
from solver_problems import random_problem

from hexopt.solvers import evaluate
from hexopt.solvers.congestion import congestion_optimum, solve_congestion
from hexopt.solvers.formulations import congestion_model, epoch_model, export

pulp = pytest.importorskip("pulp", reason="needs the extra hexopt[exact]")
highspy = pytest.importorskip("highspy", reason="needs the extra hexopt[exact]")


def optimum(model, back_end) -> float:
    model.solve(back_end)
    assert model.status == pulp.LpStatusOptimal
    return float(pulp.value(model.objective))


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_the_same_model_in_arrays_and_in_pulp(seed, integer):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, int(rng.integers(1, 12)), int(rng.integers(1, 5)))
    expected, shares = congestion_optimum(problem, integer=integer)
    exact = {"gapRel": 0.0, "msg": False}
    for back_end in (pulp.HiGHS(**exact), pulp.PULP_CBC_CMD(**exact)):
        found = optimum(congestion_model(problem, integer=integer), back_end)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    there = np.setdiff1d(np.arange(problem.stages), problem.homeless)
    np.testing.assert_allclose(shares[there].sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("suffix", ["lp", "mps"])
@pytest.mark.parametrize("build", [congestion_model, epoch_model])
def test_files_hold_the_model(tmp_path, suffix, build):
    problem = random_problem(np.random.default_rng(7), 5, 3, whole=True)
    model = build(problem)
    path = tmp_path / f"model.{suffix}"
    export(model, path)
    reader = highspy.Highs()
    reader.setOptionValue("output_flag", False)
    assert reader.readModel(str(path)) == highspy.HighsStatus.kOk
    reader.run()
    expected = optimum(model, pulp.HiGHS(msg=False))
    assert reader.getInfo().objective_function_value == pytest.approx(expected, rel=1e-6)
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


def test_other_suffixes_are_refused_and_nothing_is_written(tmp_path):
    model = congestion_model(random_problem(np.random.default_rng(0), 2, 2))
    with pytest.raises(ValueError, match=r"model\.txt: expected a name that ends in \.lp or \.mps"):
        export(model, tmp_path / "model.txt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("integer", [False, True])
def test_plans_are_plans_and_cost_what_they_say(integer):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, int(rng.integers(1, 15)), int(rng.integers(1, 5)))
        plan = solve_congestion(problem, integer=integer, time_limit=1.0)
        assert plan.objective == evaluate(problem, plan.instance, plan.order).objective
        assert plan.bound == -np.inf


def test_balances_equal_instances():
    problem = random_problem(
        np.random.default_rng(1), 12, 3,
        service=np.ones((12, 3)), seats=np.full(3, 2), kv=np.zeros(12), imposed=None, load=None, queued=None,
        hold=None, price=None, busy_instance=(), busy_until=(), busy_kv=(), backlog=None,
    )  # fmt: skip
    plan = solve_congestion(problem, integer=True, time_limit=5.0)
    assert np.bincount(plan.instance, minlength=3).tolist() == [4, 4, 4]
