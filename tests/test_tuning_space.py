"""Weights there and back: from a policy to the searched space and to a policy again."""

import numpy as np
import optuna
import pytest

from hexopt.objective import PRESETS, make_objective, objective_text, weights_of
from hexopt.policies.registry import make_policy
from hexopt.tuning.space import coordinates, dimensions, nearby, objective_of, suggested, with_objective

ROLLING = make_policy("rolling-horizon")


def at(point, names, present=PRESETS["deadline"]):
    return suggested(optuna.trial.FixedTrial(point), names, present)


@pytest.mark.parametrize("text", ["deadline", "attainment", "throughput", "deadline:late=3.5,urgency=1.25,lost=0.5"])
def test_coordinates_lead_back_to_the_same_trade_offs(text):
    names = dimensions(ROLLING, price=False)
    objective = make_objective(text)
    found, wanted = weights_of(at(coordinates(objective, names), names, objective)), weights_of(objective)
    factor = 2.0 / (wanted["completion"] + wanted["imposed"])
    for name, value in wanted.items():
        expected = value if name in ("urgency", "lost") else factor * value
        assert found[name] == pytest.approx(expected, rel=0.01), name


@pytest.mark.parametrize("text", [*PRESETS, "deadline:price=2.5,late=0", "hexgen-flow:alpha=0.3"])
def test_the_text_of_an_objective_makes_it_again(text):
    objective = make_objective(text)
    assert weights_of(make_objective(objective_text(objective))) == pytest.approx(weights_of(objective), rel=1e-5)


def test_alpha_is_the_share_of_the_own_seconds():
    names = dimensions(make_policy("greedy-urgency"), price=True)
    assert names == ["alpha", "urgency", "lost"]
    weights = weights_of(at({"alpha": 0.25, "urgency": 1.0, "lost": 0.5}, names))
    assert (weights["completion"], weights["imposed"], weights["urgency"], weights["lost"]) == (0.5, 1.5, 1.0, 0.5)


def test_nearby_points_are_close_and_within_the_ranges():
    names = dimensions(ROLLING, price=True)
    point = coordinates(PRESETS["cost"], names)
    rng = np.random.default_rng(4)
    found = [nearby(point, rng) for _ in range(400)]
    for name in names:
        values = np.array([f[name] for f in found])
        assert 0.35 < (values == point[name]).mean() < 0.85, name  # more stay where they are at a bound
        assert np.median(values) == pytest.approx(point[name])
    for f in found:
        assert coordinates(at(f, names), names) == pytest.approx(f, rel=0.01, abs=0.005)


def test_prices_are_searched_for_cost_only():
    assert set(dimensions(ROLLING, price=True)) - set(dimensions(ROLLING, price=False)) == {"price"}


def test_policies_take_the_weights_that_they_know():
    objective = make_objective("deadline:completion=0.5,imposed=1.5,urgency=2,lost=0.25,late=7")
    assert objective_of(with_objective(ROLLING, objective)) == objective
    greedy = with_objective(make_policy("greedy-urgency:affinity=false"), objective)
    assert (greedy.imposed, greedy.urgency, greedy.lost, greedy.affinity) == (3.0, 2.0, 0.25, False)
    assert with_objective(greedy, objective_of(greedy)) == greedy
    with pytest.raises(ValueError, match="policy edf has no weights"):
        objective_of(make_policy("edf"))
