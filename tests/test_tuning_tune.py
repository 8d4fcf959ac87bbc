"""Tuning finds what is known to be better, claims nothing else, and does not depend on who simulates."""

import pytest

from hexopt.cluster import load_cluster
from hexopt.objective import make_objective, weights_of
from hexopt.parallel import Runner
from hexopt.policies.policy import HexGenFlow
from hexopt.policies.registry import make_policy
from hexopt.traces import read_trace
from hexopt.traces.samples import sample_path
from hexopt.tuning import GOALS, Scenario, Settings, TuningError, tune
from hexopt.tuning.scenario import Trial, measure
from hexopt.tuning.tune import HEXGEN_FLOW_ALPHAS
from hexopt.tuning.weights import write_weights

BRIEF = Settings(trials=15, workflows=80, seeds=3, held_out=8)
BAD = make_policy("greedy-urgency:imposed=1000,urgency=0")


@pytest.fixture(scope="module")
def scenario():
    return Scenario.of(read_trace(sample_path("text-to-sql"))[:120], load_cluster("hetero-1"), rate=0.39)


@pytest.fixture(scope="module")
def report(scenario):
    return tune(Runner(1), scenario, BAD, BRIEF)


def test_bad_weights_are_replaced(report):
    assert report.wins and report.verdict.startswith("better on held-out traffic")
    roles = {c.role: c for c in report.contestants}
    assert roles["found"].figures.p95 < roles["present"].figures.p95
    assert make_objective(report.present).weights.imposed == 1000.0
    assert weights_of(make_objective(report.found))["imposed"] < 2.0


def test_figures_are_of_runs_on_held_out_traffic_that_all_share(report, scenario):
    seeds = range(3, 11)
    for contestant, policy in zip(report.contestants, (BAD, report.policy), strict=False):
        figures = [measure(scenario, Trial(policy, "held-out", 80, seed)) for seed in seeds]
        assert contestant.policy == policy.label
        assert contestant.figures.p95 == pytest.approx(sum(f.p95 for f in figures) / 8)
        assert contestant.figures.attainment == pytest.approx(sum(f.attainment for f in figures) / 8)


def test_hexgen_flows_alpha_is_the_best_of_its_grid_on_the_searched_part(report, scenario):
    def score(alpha, shipped):
        policy = HexGenFlow(alpha, shipped)
        own, base = (
            [measure(scenario, Trial(p, "search", 80, seed)) for seed in range(3)] for p in (policy, HexGenFlow(0.0))
        )
        return sum(float(GOALS[name].gains(own, base).mean()) for name in BRIEF.goals)

    best = max((score(a, shipped), HexGenFlow(a, shipped).label) for a in HEXGEN_FLOW_ALPHAS for shipped in (0, 1))
    assert report.contestants[2].policy == best[1]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_the_same_is_found_whoever_simulates(scenario, sampler, tmp_path):
    settings = Settings(goals=("p95",), trials=14, workflows=40, seeds=2, held_out=3, sampler=sampler, seed=5)
    with Runner(2, store=tmp_path) as two:
        found = tune(two, scenario, BAD, settings)
        again = tune(two, scenario, BAD, settings)
    serial = tune(Runner(1), scenario, BAD, settings)
    assert found.row() == serial.row()
    assert again.row() == found.row() | {"simulations": 2 * found.simulations}
    other = tune(Runner(1), scenario, BAD, Settings(**{**vars(settings), "seed": 6}))
    assert other.found != found.found


def test_the_best_weights_known_are_not_beaten_by_chance(report, scenario):
    again = tune(Runner(1), scenario, report.policy, Settings(trials=3, workflows=80, seeds=3, held_out=8))
    assert not again.wins and again.verdict.endswith("the present weights stay")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"goals": ("beauty",)}, "--objective 'beauty' is unknown; there are attainment, p95, cost"),
        ({"goals": ("p95", "p95")}, "each once"),
        ({"goals": ()}, "one or more"),
        ({"trials": 0}, "--trials is 0, expected at least 1"),
        ({"held_out": 1}, "--held-out is 1, expected at least 2"),
        ({"sampler": "grid"}, "--sampler 'grid': expected tpe or nsga2"),
    ],
)
def test_settings_that_cannot_be_are_refused(fields, message):
    with pytest.raises(TuningError, match=message):
        Settings(**fields)


def test_cost_needs_prices(scenario):
    with pytest.raises(TuningError, match="--objective cost: no instance of the cluster has a price"):
        tune(Runner(1), scenario, BAD, Settings(goals=("cost",)))


def test_a_weights_file_is_read_as_it_was_found(report, tmp_path):
    path = tmp_path / "weights.toml"
    write_weights(path, report.found, "Found today.\nTwice.")
    assert path.read_text().startswith("# Found today.\n# Twice.\npreset = ")
    assert weights_of(make_objective(str(path))) == pytest.approx(weights_of(make_objective(report.found)))
