"""Instances that start late, drain, fail and come back: nothing is lost, nothing runs twice."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_workload import ALL_POLICIES, RATE, random_experiment, small_cluster

from hexopt.policies.registry import make_policy
from hexopt.simulation.events import EventError, FleetEvent, event_table, parse_event, parse_events
from hexopt.simulation.experiment import Experiment
from hexopt.simulation.state import DOWN, DRAINING, OPEN
from hexopt.traces import Stage, Workflow


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a100-0 down at 300s for 2min", FleetEvent("a100-0", "down", 300.0, 420.0)),
        ("x drains at 500ms", FleetEvent("x", "draining", 0.5)),
        ("x starts at 1.5h", FleetEvent("x", "down", 0.0, 5400.0)),
    ],
)
def test_an_event_is_read(text, wanted):
    assert parse_event(text) == wanted
    assert parse_event(str(wanted)) == wanted


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["0 fails at 3s"], "event '0 fails at 3s': expected 'NAME down at 300s for 120s'"),
        (["0 down at 3"], "expected 'NAME down at 300s"),
        (["0 starts at 3s for 2s"], "expected 'NAME down at 300s"),
        (["9 down at 3s"], "event '9 down at 3s': cluster has no such instance; it has 0, 1, 2, 3"),
        (["0 starts at 0s"], "expected it to last"),
        (["0 down at 3s for 5s", "0 drains at 7s"], "event '0 drains at 7s' begins before '0 down at 3s for 5s' is"),
        (["0 drains at 1s", "0 down at 7s"], "event '0 down at 7s' begins before '0 drains at 1s' is over"),
        (["no-such.toml"], "no-such.toml: cannot be read"),
    ],
)
def test_an_event_that_cannot_be_is_refused(texts, says):
    with pytest.raises(EventError, match=re.escape(says)):
        event_table(parse_events(texts), small_cluster())


def test_events_may_come_from_a_file(tmp_path):
    path = tmp_path / "events.toml"
    path.write_text('events = ["0 starts at 4s", "1 drains at 2s for 3s"]')
    table = event_table(parse_events([str(path), "1 down at 5s for 1s"]), small_cluster())
    assert table.tolist() == [
        *((0.0, 0, DOWN), (2.0, 1, DRAINING), (4.0, 0, OPEN)),
        *((5.0, 1, OPEN), (5.0, 1, DOWN), (6.0, 1, OPEN)),
    ]
    path.write_text("events = 3")
    with pytest.raises(EventError, match=r"events\.toml: events: expected a list of texts"):
        parse_events([str(path)])


def draw_events(seed: int) -> list[FleetEvent]:
    """Up to three stays of each small instance outside service; all are open in the end."""
    rng = np.random.default_rng((7, seed))
    events = []
    for name in "0123":
        when = 0.0 if rng.random() < 0.3 else float(rng.exponential(0.5))
        for _ in range(int(rng.integers(0, 4))):
            end = when + float(rng.exponential(0.7)) + 1e-3
            events.append(FleetEvent(name, str(rng.choice(["down", "draining"])), when, end))
            when = end + float(rng.exponential(0.5)) * (rng.random() < 0.8)
    return events


@given(st.integers(0, 2**31), st.sampled_from(ALL_POLICIES))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_workflow_ends_exactly_once_whatever_happens(seed, policy):
    experiment = random_experiment(seed)
    picks, arrivals = experiment.sample(12, rate=RATE, seed=seed)
    events = draw_events(seed)
    run = experiment.run(make_policy(policy), picks, arrivals, events=events)
    stage, instance = run.stage, run.instance
    assert (stage["generated"] == stage["output"]).all()
    assert (instance["finished"] == np.bincount(stage["instance"], minlength=4)).all()
    assert (run.workflow["stages_left"] == 0).all() and (run.workflow["finish"] <= run.end).all()
    assert (stage["ready"] <= stage["start"]).all() and (stage["start"] < stage["first_token"]).all()
    assert (stage["first_token"] <= stage["finish"]).all()
    assert stage["lost"].sum() == instance["lost"].sum()
    assert (instance["free"] == instance["blocks"]).all() and (instance["first_here"] == -1).all()
    # What ended where it did began there after the instance had last come up, and ended while it was up.
    for event in events:
        if event.state == "down":
            here = (stage["instance"] == int(event.instance)) & (stage["migrations"] == 0)
            assert not ((stage["start"][here] < event.end) & (stage["finish"][here] > event.begin)).any()


def one_call(events: list[str], policy: str = "edf", instances: int = 1):
    """A call of 200 prompt and 30 output tokens that arrives at second 1 on H100s; and the run without events."""
    cluster = small_cluster(max_num_seqs=64)
    cluster = type(cluster)("some", cluster.instances[1 : 1 + instances])
    experiment = Experiment.of([Workflow("w", (Stage("0", "k", 200, 30),))], cluster)
    what = (np.zeros(1, dtype=np.int64), np.array([1.0]))
    chosen = make_policy(policy)
    return experiment.run(chosen, *what, events=list(map(parse_event, events))), experiment.run(chosen, *what)


def test_a_call_waits_for_an_instance_that_starts():
    late, usual = one_call(["1 starts at 6s"])
    assert late.stage["start"][0] == 6.0 and late.stage["lost"][0] == 0
    assert late.end == pytest.approx(usual.end + 5.0, rel=1e-12)


def test_a_call_that_is_lost_begins_anew_when_its_instance_is_back():
    # It runs from second 1 on; what was generated until it fails counts for nothing.
    lost, usual = one_call(["1 down at 1.1s for 3s"])
    assert usual.end > 1.1
    assert lost.stage["start"][0] == 4.1 and lost.stage["lost"][0] == lost.instance["lost"][0] == 1
    assert lost.end == pytest.approx(usual.end + 3.1, rel=1e-12)
    assert lost.instance["busy_seconds"][0] == pytest.approx(usual.instance["busy_seconds"][0] + 0.1, rel=1e-9)


def test_a_call_that_is_lost_begins_anew_elsewhere_at_once():
    lost, usual = one_call(["1 down at 1.1s"], instances=2)
    assert lost.stage["start"][0] == 1.1 and lost.stage["instance"][0] == 1
    assert lost.end == pytest.approx(usual.end + 0.1, rel=1e-12)


def test_an_instance_that_drains_ends_what_it_has_and_takes_nothing_new():
    drained, usual = one_call(["1 drains at 1.1s"], instances=2)
    assert drained.end == usual.end and drained.stage["instance"][0] == 0
    before, _ = one_call(["1 drains at 0.5s"], instances=2)
    assert before.stage["instance"][0] == 1


def test_where_nothing_is_open_an_instance_that_drains_takes_the_call():
    run, usual = one_call(["1 down at 0.5s", "2 drains at 0.5s"], instances=2)
    assert run.stage["instance"][0] == 1 and run.end == usual.end


def test_calls_that_wait_where_it_is_down_go_where_it_opens_first():
    run, usual = one_call(["1 down at 0.5s", "2 starts at 3s"], instances=2)
    assert run.stage["instance"][0] == 1 and run.stage["start"][0] == 3.0
    assert math.isclose(run.end, usual.end + 2.0)


def test_a_cache_is_lost_with_its_instance():
    experiment = random_experiment(5, kv_tokens=20_000, max_num_seqs=64)
    picks, arrivals = experiment.sample(12, rate=RATE, seed=5)
    chosen = make_policy("round-robin")
    usual = experiment.run(chosen, picks, arrivals)
    assert usual.instance["cached_tokens"].sum() > 0
    end = usual.end
    down = [FleetEvent(name, "down", end + 10.0, end + 11.0) for name in "0123"]
    twice = np.concatenate((picks, picks)), np.concatenate((arrivals, arrivals + end + 20.0))
    kept, lost = experiment.run(chosen, *twice), experiment.run(chosen, *twice, events=down)
    assert lost.stage["lost"].sum() == 0
    assert lost.instance["cached_tokens"].sum() < kept.instance["cached_tokens"].sum()
    assert lost.instance["cached_tokens"].sum() == 2 * usual.instance["cached_tokens"].sum()
