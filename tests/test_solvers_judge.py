"""The judge against its definition in plain Python; what holds for every plan."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solver_problems import judged, random_plan, random_problem

from hexopt.solvers.judge import evaluate
from hexopt.solvers.problem import EpochProblem, ObjectiveWeights, ProblemError

CASE = given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 4), st.booleans())


@CASE
@settings(max_examples=300, deadline=None)
def test_is_its_definition(seed, n, m, whole):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, n, m, whole)
    instance, order = random_plan(rng, problem)
    found = evaluate(problem, instance, order)
    objective, terms = judged(problem, instance, order)
    assert found.terms == pytest.approx(terms, rel=1e-9, abs=1e-9)
    assert found.objective == pytest.approx(objective, rel=1e-9, abs=1e-9)
    weights = {field.name: getattr(problem.weights, field.name) for field in fields(ObjectiveWeights)}
    assert found.objective == pytest.approx(sum(weights[k] * v for k, v in found.terms.items()), rel=1e-9)


@CASE
@settings(max_examples=100, deadline=None)
def test_never_more_calls_or_tokens_than_an_instance_has_and_none_passes_another(seed, n, m, whole):
    rng = np.random.default_rng(seed)
    p = random_problem(rng, n, m, whole)
    instance, order = random_plan(rng, p)
    found = evaluate(p, instance, order)
    for i in range(m):
        mine = [r for r in order if instance[r] == i]
        assert (np.diff(found.start[mine]) >= 0).all() and (found.start[mine] >= p.release[mine]).all()
        busy = p.busy_instance == i
        begin = np.concatenate([np.full(busy.sum(), -1.0), found.start[mine]])
        end = np.concatenate([p.busy_until[busy], found.completion[mine]])
        kv = np.concatenate([p.busy_kv[busy], p.kv[mine]])
        for t in found.start[mine]:
            there = (begin <= t) & (t < end)
            assert there.sum() <= p.seats[i] and kv[there].sum() <= p.kv_capacity[i]


@CASE
@settings(max_examples=100, deadline=None)
def test_numbering_does_not_matter(seed, n, m, whole):
    rng = np.random.default_rng(seed)
    p = random_problem(rng, n, m, whole)
    instance, order = random_plan(rng, p)
    stages, places = rng.permutation(n), rng.permutation(m)
    stage_number, place_number = np.argsort(stages), np.append(np.argsort(places), -1)
    by_stage = {name: getattr(p, name)[stages] for name in ("tail", "workflow", "kv", "move_cost", "hold", "release")}
    by_place = {name: getattr(p, name)[places] for name in ("seats", "kv_capacity", "backlog", "price")}
    by_both = {name: getattr(p, name)[stages][:, places] for name in ("service", "imposed", "load")}
    renamed = replace(
        p,
        **by_stage, **by_place, **by_both,
        knots=p.knots[places], slopes=p.slopes[places],
        queued=place_number[p.queued[stages]], busy_instance=place_number[p.busy_instance],
    )  # fmt: skip
    again = evaluate(renamed, place_number[instance[stages]], stage_number[order])
    assert again.objective == pytest.approx(evaluate(p, instance, order).objective, rel=1e-9, abs=1e-9)


@CASE
@settings(max_examples=100, deadline=None)
def test_slower_is_never_better(seed, n, m, whole):
    rng = np.random.default_rng(seed)
    p = random_problem(rng, n, m, whole)
    instance, order = random_plan(rng, p)
    service = p.service * rng.uniform(1.0, 1.5, (n, m))
    slower = replace(p, service=service, busy_until=p.busy_until * 1.2, release=p.release * rng.uniform(1.0, 1.5, n))
    before, after = evaluate(p, instance, order), evaluate(slower, instance, order)
    assert after.objective >= before.objective - 1e-9
    on = instance >= 0
    assert (after.start[on] >= before.start[on] - 1e-9).all()


@CASE
@settings(max_examples=100, deadline=None)
def test_other_units_of_time_only_scale(seed, n, m, whole):
    rng = np.random.default_rng(seed)
    p = random_problem(rng, n, m, whole, weights=ObjectiveWeights(late=0.0, move=0.0, congestion=0.0))
    instance, order = random_plan(rng, p)
    times = ("service", "tail", "due", "busy_until", "hold", "release", "imposed")
    scaled = replace(p, **{name: 60.0 * getattr(p, name) for name in times})
    assert evaluate(scaled, instance, order).objective == pytest.approx(
        60.0 * evaluate(p, instance, order).objective, rel=1e-9
    )


SMALL = {
    "service": [[1.0, 2.0], [3.0, np.inf]], "tail": [0.0, 1.0], "workflow": [0, 0], "due": [4.0], "weight": [1.0],
    "seats": [1, 2], "kv_capacity": [10.0, 10.0], "kv": [1.0, 2.0],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"service": [1.0, 2.0]}, r"service has shape \(2,\), expected \(stages, instances\)"),
        ({"service": [[1.0, np.nan], [1.0, 1.0]]}, r"service\[0, 1\] is nan, expected more than 0"),
        ({"service": [[1.0, 0.0], [1.0, 1.0]]}, r"service\[0, 1\] is 0"),
        ({"tail": [0.0]}, r"tail has shape \(1,\), expected \(2,\)"),
        ({"tail": [0.0, -1.0]}, r"tail\[1\] is -1, expected a finite number of at least 0"),
        ({"workflow": [0, 1]}, r"workflow\[1\] is 1, expected a whole number from 0 to 0"),
        ({"workflow": [0, 0.5]}, r"workflow\[1\] is 0.5"),
        ({"due": [np.inf]}, r"due\[0\] is inf"),
        ({"weight": [-1.0]}, r"weight\[0\] is -1"),
        ({"seats": [0, 1]}, r"seats\[0\] is 0, expected a finite number of at least 1"),
        ({"kv_capacity": [-5.0, 1.0]}, r"kv_capacity\[0\] is -5"),
        ({"kv": ["x", 1.0]}, "kv: expected numbers"),
        ({"busy_instance": [2], "busy_until": [1.0], "busy_kv": [0.0]}, r"busy_instance\[0\] is 2"),
        ({"busy_instance": [1], "busy_until": [1.0]}, r"busy_kv has shape \(0,\), expected \(1,\)"),
        ({"slopes": [[-1.0], [0.0]], "knots": [[1.0], [1.0]]}, r"slopes\[0, 0\] is -1"),
        ({"release": [0.0, np.nan]}, r"release\[1\] is nan, expected a finite number of at least 0"),
        ({"release": [np.inf, 0.0]}, r"release\[0\] is inf"),
        ({"release": [0.0, -1.0]}, r"release\[1\] is -1"),
        ({"release": [0.0]}, r"release has shape \(1,\), expected \(2,\)"),
        ({"share": [0.0]}, r"share\[0\] is 0"),
    ],
)
def test_bad_problems_are_refused_by_name(change, words):
    with pytest.raises(ProblemError, match=words):
        EpochProblem(**(SMALL | change))


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_bad_weights_are_refused_by_name(value):
    with pytest.raises(ProblemError, match="weight late is"):
        ObjectiveWeights(late=value)


@pytest.mark.parametrize(
    ("instance", "order", "words"),
    [
        ([0, 1], [0, 1], "stage 1 cannot run on instance 1"),
        ([0, 5], [0, 1], "stage 1 cannot run on instance 5"),
        ([0, -1], [0, 1], "stage 1 must not be held"),
        ([0, 0], [0, 0], "order is no permutation"),
        ([0], [0], "expected"),
    ],
)
def test_plans_of_another_problem_are_refused(instance, order, words):
    with pytest.raises(ProblemError, match=words):
        evaluate(EpochProblem(**SMALL), instance, order)


def test_a_stage_that_fits_nowhere_is_named_and_left_out():
    problem = EpochProblem(**(SMALL | {"kv": [1.0, 11.0]}))
    assert problem.homeless.tolist() == [1]
    assert evaluate(problem, [0, -1], [0, 1]).terms["completion"] == 1.0
