"""Continuum's rule: worked examples, plain Python, and limits in which it is another rule."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from bare_board import bare_knowledge
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workload import RATE, random_experiment, small_cluster

from hexopt.models.roofline import step_seconds
from hexopt.policies import continuum
from hexopt.policies.registry import PolicyError, make_policy
from hexopt.simulation.experiment import Experiment
from hexopt.simulation.hostmemory import copy_seconds
from hexopt.traces import Prefix, Stage, Workflow

GAPS = [0.1, 0.2, 0.5, 1.0, 10.0]


def knowing(gaps, cold: float, kinds: int = 1):
    """Knowledge with these durations of kind 0; eta is 1."""
    know = bare_knowledge(
        weights=np.array([-1.0, cold]),
        memory=np.zeros(continuum.MEMORY),
        table=np.zeros((kinds + 1, continuum.ROW)),
    )
    for gap in gaps:
        continuum.observe(know.table[0], gap)
        continuum.observe(know.table[kinds], gap)
    return know


@pytest.mark.parametrize(
    ("delay", "eta", "reload", "wanted"),
    [(2.0, 0.8, 0.4, 0.5), (0.0, 0.8, 0.3, 0.0), (20.0, 0.8, 0.4, 1.0), (60.0, 0.8, 0.4, 10.0)],
)
def test_time_to_live_of_the_worked_examples(delay, eta, reload, wanted):
    ordered = np.array(GAPS)
    assert continuum.best_ttl(ordered, 5, delay * eta + reload) == wanted


@pytest.mark.parametrize("host_gb", [0.0, 10.0])
def test_a_context_that_was_evicted_is_prefilled_or_reloaded(host_gb):
    """While the tool of one workflow runs, calls of another take all of the memory."""
    said = Prefix("context", 3200, local=True)
    turns = Workflow(
        "turns",
        (
            Stage("0", "think", 3200, 16, (), (said,)),
            Stage("1", "think", 3300, 16, ("0",), (said,), tool_delay=20.0),
        ),
    )
    flood = Workflow("flood", (Stage("0", "write", 1960, 40), Stage("1", "write", 1960, 40)))
    cluster = small_cluster(kv_tokens=4000, max_num_batched_tokens=8192, shortest=4000)
    cluster = replace(cluster, instances=cluster.instances[1:2])
    experiment = Experiment.of([turns, flood], cluster)
    policy = make_policy(f"continuum-style:ttl=0,host_gb={host_gb:g}")
    run = experiment.run(policy, np.array([0, 1]), np.array([0.0, 10.0]))
    first, second = run.stage[run.stage["workflow"] == 0]
    assert second["start"] == second["ready"] and second["cached"] == 0
    coef = run.instance[0]
    took = second["first_token"] - second["start"]
    alone = first["first_token"] - first["start"]
    if host_gb == 0.0:
        assert took > alone and run.instance["swapped_in"].sum() == 0
        return
    copy = copy_seconds(coef, 3200)
    assert run.instance["swapped_in"].sum() == 3200 and copy < alone
    step = step_seconds(cluster.instances[0].coef, 1, 100, 100 * (3200 + 50.0), 3300.0, 0, 0.0)
    assert took == pytest.approx(copy + step, rel=1e-9)
    assert run.instance["host_used"].sum() == 0


def test_time_to_live_before_much_is_known():
    assert continuum.ttl(knowing(GAPS, cold=100), 0, 2.0, 0.4) == pytest.approx(math.log(2.4))
    assert continuum.cold_ttl(0.0, 0.0) == continuum.cold_ttl(0.2, 0.3) == 0.0
    # Of its own tool too little is known: those of all count.
    know = knowing(GAPS, cold=4, kinds=2)
    assert continuum.ttl(know, 1, 1.6, 0.4) == continuum.ttl(know, 0, 1.6, 0.4) == 0.5


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=60), st.floats(0.0, 200.0))
@settings(deadline=None)
def test_time_to_live_is_the_best_of_all_durations(gaps, benefit):
    tau = continuum.best_ttl(np.array(sorted(gaps)), len(gaps), benefit)

    def score(t: float) -> float:
        return sum(gap <= t for gap in gaps) / len(gaps) * benefit - t

    assert tau in {0.0, *gaps}
    assert score(tau) == pytest.approx(max(0.0, *(score(t) for t in gaps)), abs=1e-9)


@given(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=1300))
@settings(deadline=None)
def test_durations_are_a_window_in_order(gaps):
    row = np.zeros(continuum.ROW)
    for gap in gaps:
        continuum.observe(row, gap)
    known = min(len(gaps), continuum.WINDOW)
    assert row[continuum.ORDERED : continuum.ORDERED + known].tolist() == sorted(gaps[-known:])


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20))
@settings(deadline=None)
def test_turns_done_and_to_go_are_correlated_as_numpy_says(turns):
    memory = np.zeros(continuum.MEMORY)
    for n in turns:
        continuum.count_turns(memory, float(n))
    done = np.concatenate([np.arange(1, n + 1) for n in turns])
    left = np.concatenate([n - np.arange(1, n + 1) for n in turns])
    wanted = -np.corrcoef(done, left)[0, 1] if done.std() > 0 and left.std() > 0 else 1.0
    assert continuum.out_of_order(memory) == pytest.approx(wanted, abs=1e-6)


def test_with_nothing_pinned_it_is_first_come_first_served_by_workflow():
    for seed in range(5):
        experiment = random_experiment(seed)
        picks, arrivals = experiment.sample(16, RATE, seed)
        one = experiment.run(make_policy("continuum-style:ttl=0,preempted_first=false"), picks, arrivals)
        other = experiment.run(make_policy("workflow-fcfs"), picks, arrivals)
        for field in ("instance", "priority", "start", "finish", "cached"):
            np.testing.assert_array_equal(one.stage[field], other.stage[field])


def chat(turns: int, delay: float) -> Workflow:
    """Turns that each quote all that was said before, with a tool's pause before every one but the first."""
    stages, said = [], []
    for k in range(turns):
        said.append(Prefix(f"user {k}", 400, local=True))
        prompt = 400 * (k + 1) + 40 * k
        stages.append(
            Stage(str(k), "k", prompt, 40, (str(k - 1),) * (k > 0), tuple(said), f"said {k}", delay * (k > 0))
        )
        said.append(Prefix(f"said {k}", 40, local=True))
    return Workflow("chat", tuple(stages))


@pytest.mark.parametrize(("ttl", "found"), [("0", False), ("0.5", False), ("2.5", True)])
def test_a_pin_outlasts_the_calls_of_others_until_its_time_is_over(ttl, found):
    # Between the first turn and the second, after two seconds, other calls sweep through the whole cache.
    cluster = small_cluster(kv_tokens=4000, max_num_seqs=64)
    cluster = type(cluster)("one", cluster.instances[1:2])
    other = Workflow("other", (Stage("0", "k", 3000, 8),))
    experiment = Experiment.of([chat(2, 2.0), other], cluster)
    policy = make_policy(f"continuum-style:ttl={ttl}")
    first = experiment.run(policy, np.array([0]), np.array([0.0])).stage["finish"][0]
    picks, arrivals = np.array([0, 1, 1, 1]), np.array([0.0, first + 0.01, first + 0.52, first + 1.2])
    run = experiment.run(policy, picks, arrivals)
    assert (run.stage["cached"][1] >= 400) == found
    assert (run.instance["pinned"] == 0).all() and (run.instance["free"] == run.instance["blocks"]).all()


def test_a_bad_time_to_live_is_refused():
    with pytest.raises(PolicyError, match="ttl is 'long', expected auto or seconds from 0 on"):
        make_policy("continuum-style:ttl=long")
