"""``hexopt solve`` and ``hexopt explain``: plans, files, models, reasons, and what they refuse."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from command_line import call
from solver_problems import random_problem

from hexopt.explain import explain
from hexopt.solvers import evaluate, solve
from hexopt.solvers.files import problem_from, problem_table, read_problem

SOME = random_problem(np.random.default_rng(4), 6, 3, whole=True)


@pytest.fixture
def hexopt(capsys, monkeypatch):
    return partial(call, capsys, monkeypatch)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "problem.json"
    path.write_text(json.dumps(problem_table(SOME)))
    return path


def test_problems_come_back_from_files_as_they_were(file):
    again = read_problem(file)
    for name in SOME.__dataclass_fields__:
        if name != "weights":
            np.testing.assert_array_equal(getattr(again, name), getattr(SOME, name))
    assert again.weights == SOME.weights
    assert json.loads(json.dumps(problem_table(again), allow_nan=False)) == json.loads(file.read_text())


def test_solve_prints_a_plan_that_costs_what_it_says(hexopt, file):
    result = hexopt("solve", file, "--solver", "annealing", "--time-limit", "0.05", "--json")
    row = json.loads(result.out)
    assert result.code == 0 and row["solver"] == "annealing" and row["bound"] is None
    assert row["objective"] == evaluate(SOME, row["instance"], row["order"]).objective
    pytest.importorskip("pulp", reason="needs the extra hexopt[exact]")
    exact = json.loads(hexopt("solve", file, "--solver", "exact", "--time-limit", "100", "--json").out)
    assert exact["status"] == "optimal" and exact["objective"] <= row["objective"] + 1e-9
    table = hexopt("solve", file, "--solver", "exact", "--time-limit", "100")
    assert "exact: optimal" in table.out and "gap 0.00%" in table.out


@pytest.mark.parametrize("model", ["arc-flow", "congestion"])
@pytest.mark.parametrize("suffix", ["lp", "mps"])
def test_models_are_written(hexopt, file, tmp_path, model, suffix):
    pytest.importorskip("pulp", reason="needs the extra hexopt[exact]")
    path = tmp_path / f"model.{suffix}"
    assert hexopt("solve", file, "--export", path, "--model", model).code == 0
    assert ("Minimize" if suffix == "lp" else "ROWS") in path.read_text()


def test_explanations_add_up():
    plan = solve(SOME, time_limit=0.2)
    for stage in range(SOME.stages):
        why = explain(SOME, plan, stage)
        assert why.candidates[0].instance == plan.instance[stage]
        for candidate in why.candidates:
            difference = candidate.objective - plan.objective
            assert sum(candidate.terms.values()) == pytest.approx(difference, abs=1e-9)
        others = [c.objective for c in why.candidates[1:]]
        assert others == sorted(others)
        if others:
            assert why.margin == pytest.approx(others[0] - plan.objective) and why.decided in why.candidates[1].terms


def test_explain_prints_candidates_and_writes_the_problem(hexopt, file, tmp_path):
    result = hexopt("explain", file, "--time-limit", "0.1")
    assert result.code == 0 and result.out.count("wins by") >= 4
    out = tmp_path / "epoch.json"
    result = hexopt(
        "explain", "--trace", "text-to-sql", "--at", "100", "--load", "0.8", "--time-limit", "0.1", "--out", out
    )
    assert result.code == 0 and "a100-0" in result.out and "epoch at" in result.out
    assert read_problem(out).instances == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"service": [[1.0, None], [2.0]]}, "service: expected an array of numbers whose rows are equally long"),
        ({"service": 3}, "service: expected an array"),
        ({"kv": [1.0, -2.0]}, "kv[1] is -2, expected a finite number of at least 0"),
        ({"speed": [1.0]}, "'speed' is unknown; there are service, tail"),
        ({"weights": {"tardiness": "x"}}, "weights: tardiness is 'x', expected a number"),
        ({"weights": {"hurry": 1}}, "weights: 'hurry' is unknown"),
        ({"seats": [0, 1]}, "seats[0] is 0, expected a finite number of at least 1"),
    ],
)
def test_bad_problems_are_named(hexopt, tmp_path, change, message):
    good = {
        "service": [[1.0, None], [2.0, 3.0]], "tail": [0.0, 0.0], "workflow": [0, 0], "due": [5.0], "weight": [1.0],
        "seats": [1, 1], "kv_capacity": [9.0, 9.0], "kv": [1.0, 1.0],
    }  # fmt: skip
    assert problem_from(good).feasible.tolist() == [[True, False], [True, True]]
    path = tmp_path / "p.json"
    path.write_text(json.dumps(good | change))
    result = hexopt("solve", path)
    assert result.code == 2 and result.err.startswith(f"hexopt: {path}: ") and message in result.err
    del good["kv"]
    path.write_text(json.dumps(good))
    assert "kv is missing" in hexopt("solve", path).err


def test_bad_flags_are_named(hexopt, file, tmp_path):
    assert "there is no such file" in hexopt("solve", tmp_path / "none.json").err
    assert "solver 'x': expected one of" in hexopt("solve", file, "--solver", "x").err
    assert "expected a name that ends in .lp or .mps" in hexopt("solve", file, "--export", tmp_path / "m.txt").err
    assert "give an epoch problem, or --trace" in hexopt("explain").err
    run = ("simulate", "--trace", "text-to-sql", "--cluster", "hetero-1", "--rate", "0.2", "--workflows", "20")
    assert "give --policy rolling-horizon" in hexopt(*run, "--solver", "exact").err
    horizon = (*run, "--policy", "rolling-horizon")
    assert "--epoch is '5m', expected a time such as 20ms" in hexopt(*horizon, "--epoch", "5m").err
    assert "--time-limit is '0', expected a time" in hexopt(*horizon, "--time-limit", "0").err
    assert "objective 'x' is unknown" in hexopt(*horizon, "--weights", "x").err


def test_simulate_takes_the_rolling_horizon_and_repeats_itself(hexopt):
    run = (
        "simulate", "--trace", "text-to-sql", "--cluster", "hetero-1", "--rate", "0.3", "--workflows", "30",
        "--policy", "rolling-horizon", "--weights", "attainment", "--epoch", "200ms", "--time-limit", "20ms",
        "--freeze-solver", "--json",
    )  # fmt: skip
    rows = [json.loads(hexopt(*run).out) for _ in range(2)]
    assert rows[0]["policy"] == "rolling-horizon(annealing, attainment)"
    assert rows[0]["p95_s"] == rows[1]["p95_s"] and rows[0]["attainment"] == rows[1]["attainment"]
