"""The simple policies against their rules in plain Python, the registry, and what no policy may know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from believing_oracle import BelievingOracle
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workload import (
    ALL_POLICIES,
    RATE,
    Oracle,
    assert_decides_as,
    random_experiment,
    random_workflows,
    small_cluster,
)

from hexopt.policies.knowledge import alone_seconds
from hexopt.policies.policy import GreedyUrgency, HexGenFlow
from hexopt.policies.registry import LIVE, POLICIES, PolicyError, make_policy
from hexopt.simulation.experiment import Experiment
from hexopt.simulation.simulator import fleet_of

HONEST = [name for name in ALL_POLICIES if not name.startswith("clairvoyant")]
SEED = given(st.integers(0, 2**31))


class InTurn(Oracle):
    def start(self):
        self.turn = 0

    def decide(self, board, r, now):
        self.turn += 1
        return (self.turn - 1) % len(board.instance), 0.0


class FewestRequests(BelievingOracle):
    def decide(self, board, r, now):
        return min(range(len(board.instance)), key=lambda i: len(self.here(board, i))), 0.0


class ByDeadline(BelievingOracle):
    def decide(self, board, r, now):
        return self.least_loaded(board), board.workflow["deadline"][board.stage["workflow"][r]]


class ByLaxity(BelievingOracle):
    def decide(self, board, r, now):
        i = self.least_loaded(board)
        call = board.stage[r]
        output, tail = self.beliefs(board, r)
        service = alone_seconds(self.fleet.coef[i], call["prompt"], 0, output, self.fleet.max_batched[i])
        return i, board.workflow["deadline"][call["workflow"]] - service - tail


@pytest.mark.parametrize(
    ("name", "oracle"),
    [("round-robin", InTurn), ("least-loaded", FewestRequests), ("edf", ByDeadline), ("llf", ByLaxity)],
)
@SEED
@settings(max_examples=15, deadline=None)
def test_decides_as_its_rule_says(name, oracle, seed):
    assert_decides_as(oracle(), make_policy(name), seed)


@given(st.integers(0, 2**31), st.sampled_from(HONEST), st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_decisions_up_to_any_moment_do_not_depend_on_what_is_to_come(seed, name, share):
    rng = np.random.default_rng(seed)
    workflows = random_workflows(rng, 12)
    arrivals = np.cumsum(rng.exponential(1 / RATE, len(workflows)))
    cluster, pilot = small_cluster(shortest=1 << 14, kv_tokens=1 << 14), random_workflows(rng, 5)

    def run(given_workflows):
        experiment = Experiment.of(given_workflows, cluster, training=pilot, slo=3.0)
        return experiment.run(make_policy(name), np.arange(len(given_workflows)), arrivals)

    before = run(workflows)
    moment = float(np.quantile(before.stage["ready"], share))
    # Whatever runs or waits at that moment turns out longer; a quoted output is content of a later prompt and stays.
    rows = iter(before.stage["finish"])
    other = [
        replace(w, stages=tuple(
            replace(s, output_tokens=s.output_tokens + int(rng.integers(0, 200)))
            if next(rows) > moment and s.output_segment is None else s
            for s in w.stages
        ))
        for w in workflows
    ]  # fmt: skip
    after = run(other)
    # Who holds stages back decides about them later; who moves them or ranks them anew, until they end.
    late = {"rolling-horizon": "start", "hexagent-style": "start", "qlm-style": "start"}
    late |= {"llumnix-style": "finish", "fastswitch-style": "finish", "continuum-style": "finish"}
    known = before.stage[late.get(name.partition(":")[0], "ready")] <= moment
    for field in ("instance", "priority"):
        np.testing.assert_array_equal(before.stage[field][known], after.stage[field][known])
    ended = before.stage["finish"] <= moment
    np.testing.assert_array_equal(before.stage["finish"][ended], after.stage["finish"][ended])


@pytest.mark.parametrize("name", ALL_POLICIES)
def test_a_run_leaves_nothing_behind_in_the_policy_or_the_training(name):
    policy, experiment = make_policy(name), random_experiment(5)
    training = experiment.training
    states = [*training.lengths, *training.tails, training.prompt, training.output, training.calls]
    before = [np.array(state) for state in states]
    one, other = (
        policy.prepare(fleet_of(experiment.cluster), training, 9),
        policy.prepare(fleet_of(experiment.cluster), training, 9),
    )
    flat = [
        [*k.lengths, *k.tails, k.coef, k.scale, k.weights, k.memory, k.table, k.counts, k.programs]
        for k in (one, other)
    ]
    for a, b in zip(*flat, strict=True):
        assert not np.shares_memory(a, b) and not any(np.shares_memory(a, state) for state in states)
    first, second = (experiment.run(policy, *experiment.sample(16, RATE, 0)) for _ in range(2))
    assert first.stage.tobytes() == second.stage.tobytes()
    assert all((a == b).all() for a, b in zip(before, states, strict=True))


def test_training_on_other_kinds_only_starts_from_their_means():
    workflows = random_workflows(np.random.default_rng(1), 6)
    other = [replace(w, stages=tuple(replace(s, kind=f"other {s.kind}") for s in w.stages)) for w in workflows]
    experiment = Experiment.of(workflows, small_cluster(), training=other)
    mean = np.mean([s.output_tokens for w in workflows for s in w.stages])
    assert experiment.training.output.tolist() == pytest.approx([mean] * len(experiment.workload.kinds))
    assert not experiment.training.calls.any() and experiment.training.lengths.seen[-1, -1] == len(
        [s for w in workflows for s in w.stages]
    )
    for name in ALL_POLICIES:
        run = experiment.run(make_policy(name), *experiment.sample(6, RATE, 0))
        assert not np.isnan(run.workflow["finish"]).any()


def test_every_policy_is_made_by_its_name():
    for name, made in POLICIES.items():
        assert make_policy(name) == made() and make_policy(name).label.startswith(name)
    assert make_policy("hexgen-flow:alpha=0.3,as_shipped=TRUE") == HexGenFlow(alpha=0.3, as_shipped=True)
    assert make_policy("greedy-urgency:affinity=false,urgency=2") == GreedyUrgency(affinity=False, urgency=2.0)
    labels = [make_policy(name).label for name in ALL_POLICIES]
    assert len(set(labels)) == len(labels)


def test_every_policy_is_documented():
    text = (Path(__file__).parents[1] / "docs" / "policies.md").read_text()
    rows = {row.split("`")[1].split(":")[0]: row for row in text.splitlines() if row.startswith("| `")}
    assert set(rows) == set(POLICIES)
    live = text[: text.index("## Published systems")]
    assert {name for name in LIVE if not name.endswith("-style")} <= {name for name in rows if f"| `{name}" in live}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "policy '' is unknown; there are round-robin, "),
        ("Edf", "policy 'Edf' is unknown"),
        ("edf:alpha=1", "'alpha=1' is not a parameter=value; it takes no parameters"),
        ("hexgen-flow:beta=1", "'beta=1' is not a parameter=value; it takes alpha, as_shipped"),
        ("hexgen-flow:alpha", "'alpha' is not a parameter=value"),
        ("hexgen-flow:alpha=", "alpha is '', expected a number"),
        ("hexgen-flow:alpha=1.1", "alpha is 1.1, expected 0 to 1$"),
        ("hexgen-flow:alpha=nan", "alpha is nan, expected 0 to 1$"),
        ("hexgen-flow:as_shipped=1", "as_shipped is '1', expected true or false"),
        ("greedy-urgency:imposed=-1", "imposed is -1, expected 0 to 1e6"),
        ("greedy-urgency:urgency=inf", "urgency is inf, expected 0 to 1e6"),
    ],
)
def test_refuses_what_is_no_policy(text, message):
    with pytest.raises(PolicyError, match=message):
        make_policy(text)
