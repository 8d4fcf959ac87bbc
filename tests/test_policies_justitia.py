"""Justitia's virtual time against a fluid system in plain Python, on an example by hand, and at its limits."""

from __future__ import annotations

import numpy as np
import pytest
from bare_board import bare_knowledge
from believing_oracle import BelievingOracle, K, bucket_of
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workload import RATE, assert_decides_as, random_experiment

from hexopt.models.roofline import features
from hexopt.policies import justitia
from hexopt.policies.registry import make_policy


class FairSystem(BelievingOracle):
    """Every agent in it is served at the same rate until it has had its cost."""

    def __init__(self, workflows) -> None:
        self.known = []
        for w in workflows:
            cost = sum(s.prompt_tokens * s.output_tokens + s.output_tokens**2 / 2 for s in w.stages)
            first = w.stages[0]
            self.known.append((first.kind, int(np.log2(first.prompt_tokens)), cost))

    def start(self):
        self.left: dict[int, float] = {}
        self.finish: dict[int, float] = {}
        self.virtual = self.time = 0.0

    def cost(self, call) -> float:
        kind, bucket = self.training.kinds[call["kind"]], bucket_of(call)
        overall = np.mean([c for *_, c in self.known])
        of_kind = [c for k, _, c in self.known if k == kind]
        mean = (sum(of_kind) + K * overall) / (len(of_kind) + K)
        alike = [c for k, b, c in self.known if (k, b) == (kind, bucket)]
        return (sum(alike) + K * mean) / (len(alike) + K)

    def rate(self, board) -> float:
        training = self.training
        mean = float(np.average(training.prompt + training.output / 2, weights=training.calls))
        total = 0.0
        for coef, instance in zip(self.fleet.coef, board.instance, strict=True):
            calls = min(instance["blocks"] * instance["block_size"] / mean, instance["max_seqs"])
            step = features(*([x] for x in (0.0, 0.0, 0.0, 0.0, calls, calls * mean)))[0] @ coef
            total += calls * mean / float(step)
        return total

    def decide(self, board, r, now):
        w, rate = int(board.stage["workflow"][r]), self.rate(board)
        if w not in self.finish:
            while self.left and self.time < now:
                share = rate / len(self.left)
                passed = min(now - self.time, min(self.left.values()) / share)
                self.left = {a: left - passed * share for a, left in self.left.items()}
                self.left = {a: left for a, left in self.left.items() if left > 1e-6 * rate}
                self.virtual += passed * share
                self.time += passed
            self.time = now
            self.left[w] = self.cost(board.stage[r])
            self.finish[w] = self.virtual + self.left[w]
        return self.least_loaded(board), self.finish[w]


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_decides_as_its_rule_says(seed):
    # With fewer than twenty workflows the pilot is all of them.
    experiment = random_experiment(seed)
    assert_decides_as(FairSystem(experiment.workload.workflows), make_policy("justitia-style"), seed)


def test_cost_of_the_published_example():
    assert justitia.token_time(1000.0, 100.0) == 105_000.0
    assert justitia.token_time(np.array([10.0, 0.0]), np.array([4.0, 6.0])).tolist() == [48.0, 18.0]


def test_virtual_time_by_hand():
    know = bare_knowledge(memory=np.zeros(justitia.MEMORY), programs=np.zeros((3, justitia.COLUMNS)))
    know.memory[justitia.RATE] = 10.0

    def virtual_at(now: float) -> float:
        justitia.advance(know, now)
        return float(know.memory[justitia.VIRTUAL])

    justitia.join(know, 0, 100.0)
    assert virtual_at(5.0) == 50.0
    justitia.join(know, 1, 30.0)
    # Two share from here on: the second would end after six seconds, at 80, the first after two more alone, at 100.
    assert know.programs[:2, justitia.FINISH].tolist() == [100.0, 80.0]
    assert [virtual_at(t) for t in (7.0, 11.0, 12.0, 13.0, 20.0)] == [60.0, 80.0, 90.0, 100.0, 100.0]
    justitia.join(know, 2, 40.0)
    assert know.programs[2, justitia.FINISH] == 140.0 and know.memory[justitia.ACTIVE] == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_agents_that_arrive_together_are_served_in_order_of_their_costs(seed):
    rng = np.random.default_rng(seed)
    costs = rng.permutation(20) + 1.0
    know = bare_knowledge(memory=np.zeros(justitia.MEMORY), programs=np.zeros((20, justitia.COLUMNS)))
    know.memory[justitia.RATE] = 1.0
    for w, cost in enumerate(costs):
        justitia.advance(know, 0.0)
        justitia.join(know, w, cost)
    assert np.argsort(know.programs[:, justitia.FINISH]).tolist() == np.argsort(costs).tolist()
    # The k-th leaves when V has reached its cost: all twenty until 1, nineteen until 2, ...
    assert [leaves(know, k) for k in range(1, 21)] == list(range(19, -1, -1))


def leaves(know, k: int) -> int:
    """Agents left in the fair system once virtual time is ``k``."""
    justitia.advance(know, sum(20.0 - j for j in range(k)))
    return int(know.memory[justitia.ACTIVE])


def test_calls_of_a_workflow_share_its_virtual_finish():
    experiment = random_experiment(4, count=30)
    run = experiment.run(make_policy("justitia-style"), *experiment.sample(60, RATE, 0))
    finishes = [set(run.stage["priority"][run.stage["workflow"] == w]) for w in range(60)]
    assert all(len(f) == 1 for f in finishes) and len(set.union(*finishes)) == 60
    arrived = run.workflow["arrival"]
    assert (np.argsort([f.copy().pop() for f in finishes]) != np.argsort(arrived)).any()
