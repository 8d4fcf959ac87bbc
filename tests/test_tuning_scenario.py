"""Held-out traffic is never searched on; the trace's own times keep what comes together together."""

import numpy as np
import pytest

from hexopt.cluster import load_cluster
from hexopt.policies.registry import make_policy
from hexopt.simulation.metrics import summarise
from hexopt.traces import read_trace
from hexopt.traces.arrivals import with_arrivals
from hexopt.traces.samples import sample_path
from hexopt.tuning import Scenario
from hexopt.tuning.scenario import Trial, measure

WORKFLOWS = read_trace(sample_path("text-to-sql"))[:60]
TIMES = np.cumsum(np.random.default_rng(3).exponential(4.0, 60))


@pytest.fixture(scope="module")
def cluster():
    return load_cluster("hetero-1")


@pytest.fixture(scope="module")
def timed(cluster):
    return Scenario.of(with_arrivals(WORKFLOWS, TIMES)[::-1], cluster)


def test_parts_are_the_earlier_and_the_later_workflows(timed, cluster):
    search, held_out = timed.templates("search"), timed.templates("held-out")
    arrival = timed.experiment.workload.arrival
    assert len(search) == 36 and len(held_out) == 24
    assert arrival[search].max() < arrival[held_out].min()
    for scenario in (timed, Scenario.of(WORKFLOWS, cluster, rate=0.3)):
        for part, own in (("search", set(search)), ("held-out", set(held_out))):
            picks, times = scenario.draw(part, 100, 5)
            assert set(picks) <= own and picks.shape == times.shape == (100,)
            assert times[0] >= 0.0 and (np.diff(times) >= 0.0).all()


def test_own_times_are_replayed_in_runs_of_twenty(timed):
    picks, times = timed.draw("held-out", 60, 1)
    arrival = timed.experiment.workload.arrival
    for k in range(0, 60, 20):
        run = slice(k, k + 20)
        assert np.array_equal(picks[run], np.arange(picks[k], picks[k] + 20))
        np.testing.assert_allclose(np.diff(times[run]), np.diff(arrival[picks[run]]))
    assert len({timed.draw("held-out", 60, seed)[0].tobytes() for seed in range(8)}) > 4
    again = timed.draw("held-out", 60, 1)
    assert np.array_equal(again[0], picks) and np.array_equal(again[1], times)


def test_a_rate_draws_every_template_once_before_any_twice(cluster):
    scenario = Scenario.of(WORKFLOWS, cluster, rate=0.5)
    picks, times = scenario.draw("search", 36, 2)
    assert sorted(picks) == list(range(36))
    assert not np.array_equal(scenario.draw("held-out", 24, 2)[1], times[:24])
    long = scenario.draw("search", 20_000, 2)[1]
    assert 20_000 / long[-1] == pytest.approx(0.5, rel=0.05)


def test_figures_are_those_of_the_simulator(cluster):
    scenario = Scenario.of(WORKFLOWS, cluster, rate=0.3)
    policy = make_policy("greedy-urgency")
    found = measure(scenario, Trial(policy, "held-out", 50, 9))
    picks, times = scenario.draw("held-out", 50, 9)
    run = scenario.experiment.run(policy, picks, times)
    summary = summarise(run, scenario.experiment.standalone[picks])
    assert (found.p95, found.attainment) == (summary.p95_s, summary.attainment)
    prices = [instance.price for instance in cluster.instances]
    assert found.cost == pytest.approx(np.dot(prices, run.instance["busy_seconds"]) / 3600 / 50)


def test_too_few_workflows_or_no_times_are_refused(cluster):
    with pytest.raises(ValueError, match="has 19 workflows, expected at least 20"):
        Scenario.of(WORKFLOWS[:19], cluster, rate=1.0)
    with pytest.raises(ValueError, match="no arrival times: give --rate or --load"):
        Scenario.of(with_arrivals(WORKFLOWS, np.zeros(60)), cluster)
