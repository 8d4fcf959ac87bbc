"""Classical rules and Llumnix's dispatch against their definitions in plain Python; none but one knows the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bare_board import bare_board, bare_knowledge
from believing_oracle import BelievingOracle
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workload import RATE, assert_decides_as, random_experiment
from test_policies_greedy_urgency import PlainGreedyUrgency

from hexopt.policies import LIVE
from hexopt.policies.infaas import freeness
from hexopt.policies.knowledge import alone_seconds
from hexopt.policies.registry import POLICIES, PolicyError, make_live_policy, make_policy
from hexopt.simulation.state import INSTANCE, NONE, STAGE, Simulation


class ByArrival(BelievingOracle):
    def decide(self, board, r, now):
        return self.least_loaded(board), board.workflow["arrival"][board.stage["workflow"][r]]


class ByRemaining(BelievingOracle):
    def decide(self, board, r, now):
        output, tail = self.beliefs(board, r)
        return self.least_loaded(board), self.mean_seconds(board, board.stage["prompt"][r], output) + tail


class ByTardinessCost(BelievingOracle):
    def __init__(self, k: float) -> None:
        self.k = k

    def decide(self, board, r, now):
        call = board.stage[r]
        workflow = board.workflow[call["workflow"]]
        output, tail = self.beliefs(board, r)
        service = self.mean_seconds(board, call["prompt"], output)
        training, mean = self.training, self.fleet.coef.mean(axis=0)
        each = [
            alone_seconds(mean, p, 0.0, o, float(self.fleet.max_batched[0]))
            for p, o in zip(training.prompt, training.output, strict=True)
        ]
        ahead = self.k * np.average(each, weights=training.calls)
        slack = max(workflow["deadline"] - tail - service - now, 0.0)
        index = workflow["weight"] / service * math.exp(-slack / ahead)
        # Divided by exp(now / ahead), which is common to all at any one time: then it may be kept.
        return self.least_loaded(board), now / ahead - math.log(index)


class EarliestFinish(PlainGreedyUrgency):
    def decide(self, board, r, now):
        call = board.stage[r]
        output, tail = self.beliefs(board, r)
        priority = -(self.mean_seconds(board, call["prompt"], output) + tail)
        finishes = {}
        for i, instance in enumerate(board.instance):
            if call["prompt"] <= instance["max_len"]:
                finish, _, new = self.predict(board, r, i, max(output, 1.0), priority)
                finishes[i] = (finish, i, new)
        _, best, new = min(finishes.values())
        self.placed[r] = (output, 1.0, new, priority)
        return best, priority


class Truthful(BelievingOracle):
    """Reads the future: the workflow's calls to come, and how long their outputs are."""

    def __init__(self, order: str) -> None:
        self.order = order

    def true_tail(self, board, r) -> float:
        call, tail = board.stage[r], 0.0
        for c in board.child[call["first_child"] : call["first_child"] + call["children"]]:
            child = board.stage[c]
            took = self.mean_seconds(board, child["prompt"], child["output"])
            tail = max(tail, child["tool_delay"] + took + self.true_tail(board, c))
        return tail

    def decide(self, board, r, now):
        call, i = board.stage[r], self.least_loaded(board)
        if self.order == "remaining":
            return i, self.mean_seconds(board, call["prompt"], call["output"]) + self.true_tail(board, r)
        service = alone_seconds(self.fleet.coef[i], call["prompt"], 0, call["output"], self.fleet.max_batched[i])
        return i, board.workflow["deadline"][call["workflow"]] - service - self.true_tail(board, r)


class TruthfulUrgency(PlainGreedyUrgency):
    true_tail = Truthful.true_tail

    def beliefs(self, board, r):
        return float(board.stage["output"][r]), self.true_tail(board, r)


class Freest(BelievingOracle):
    def __init__(self, head_only: bool) -> None:
        self.head_only = head_only

    def decide(self, board, r, now):
        return max(range(len(board.instance)), key=lambda i: (self.freeness(board, i), -i)), 0.0

    def freeness(self, board, i: int) -> float:
        here, instance = self.here(board, i), board.instance[i]
        running = [c for c in here if board.stage["held"][c] > 0]
        waiting = sorted((c for c in here if board.stage["held"][c] == 0), key=lambda c: board.stage["sequence"][c])
        if not here:
            return math.inf
        counted = waiting[:1] if self.head_only else waiting
        tokens = [int(board.stage["prompt"][c] + board.stage["generated"][c]) for c in counted]
        demand = sum(math.ceil(t / instance["block_size"]) for t in tokens)
        return (instance["free"] - demand) / (len(running) + len(counted))


RULES = {
    "workflow-fcfs": ByArrival,
    "shortest-remaining": ByRemaining,
    "atc": lambda: ByTardinessCost(2.0),
    "atc:k=0.5": lambda: ByTardinessCost(0.5),
    "heft-like": EarliestFinish,
    "infaas-style": lambda: Freest(False),
    "infaas-style:head_only=true": lambda: Freest(True),
    "clairvoyant": lambda: Truthful("remaining"),
    "clairvoyant:order=laxity": lambda: Truthful("laxity"),
    "clairvoyant:order=urgency": TruthfulUrgency,
}


@pytest.mark.parametrize("name", RULES)
@given(st.integers(0, 2**31))
@settings(max_examples=12, deadline=None)
def test_decides_as_its_rule_says(name, seed):
    assert_decides_as(RULES[name](), make_policy(name), seed)


def board_of(*instances: tuple[int, int, int, list[int]]) -> Simulation:
    """Instances of (blocks, blocks in use, running calls, blocks that each waiting call demands)."""
    stage = np.zeros(sum(len(waiting) for *_, waiting in instances), dtype=STAGE)
    instance = np.zeros(len(instances), dtype=INSTANCE)
    r = 0
    for row, (blocks, used, running, waiting) in zip(instance, instances, strict=True):
        row["block_size"], row["free"], row["running"], row["waiting"] = 16, blocks - used, running, len(waiting)
        row["first_here"] = row["waiting_root"] = r if waiting else NONE
        for k, demand in enumerate(waiting):
            stage[r]["prompt"] = 16 * demand
            stage[r]["next_here"] = r + 1 if k + 1 < len(waiting) else NONE
            r += 1
    return bare_board(stage=stage, instance=instance)


@pytest.mark.parametrize(("head_only", "first"), [(0.0, -140 / 22), (1.0, -20 / 21)])
def test_freeness_of_llumnix_published_example(head_only, first):
    # 800 blocks: 700 in use by 20 calls while calls of 120 and 120 wait; 300 by 10; 500 by 15; nothing.
    board = board_of((800, 700, 20, [120, 120]), (800, 300, 10, []), (800, 500, 15, []), (800, 0, 0, []))
    know = bare_knowledge(weights=np.array([head_only]))
    found = [freeness(board, know, i) for i in range(3)]
    assert found == pytest.approx([first, 50.0, 20.0])
    assert freeness(board, know, 3) > 1e100


@pytest.mark.parametrize("order", ["laxity", "urgency"])
def test_the_truth_is_known_to_the_clairvoyant_alone(order):
    rule = {"laxity": "llf", "urgency": "greedy-urgency"}[order]
    experiment = random_experiment(3, count=30)
    picks, arrivals = experiment.sample(60, RATE, 0)
    truth = experiment.run(make_policy(f"clairvoyant:order={order}"), picks, arrivals)
    learned = experiment.run(make_policy(rule), picks, arrivals)
    assert (truth.stage["expected_output"] == truth.stage["output"]).all()
    assert not (learned.stage["expected_output"] == learned.stage["output"]).all()
    # At its start a workflow's first call sees the whole critical path.
    first = truth.workflow["first_stage"]
    assert (truth.stage["tail"][first] > 0).any()


def test_what_a_gateway_cannot_know_it_is_not_offered():
    assert "clairvoyant" in POLICIES and "clairvoyant" not in LIVE
    assert {"workflow-fcfs", "greedy-urgency", "rolling-horizon"} <= set(LIVE)
    assert make_live_policy("atc:k=3") == make_policy("atc:k=3")
    with pytest.raises(PolicyError, match="'clairvoyant' is for simulations only; the service takes round-robin, "):
        make_live_policy("clairvoyant:order=laxity")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("atc:k=0", "policy 'atc': k is 0, expected more than 0"),
        ("clairvoyant:order=magic", "order is 'magic', expected one of remaining, laxity, urgency"),
        ("heft-like:k=1", "it takes no parameters"),
        ("infaas-style:head_only=2", "head_only is '2', expected true or false"),
    ],
)
def test_refuses_parameters_without_meaning(text, message):
    with pytest.raises(PolicyError, match=message):
        make_policy(text)
