"""Autellix's rules against a process table in plain Python, and on the example with a fork and a join."""

from __future__ import annotations

import numpy as np
import pytest
from bare_board import bare_board, bare_knowledge
from believing_oracle import BelievingOracle
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workload import RATE, assert_decides_as, random_experiment

from hexopt.policies import autellix
from hexopt.policies.knowledge import alone_seconds
from hexopt.policies.published import AutellixAtlas, AutellixPlas
from hexopt.policies.registry import PolicyError, make_policy
from hexopt.simulation.state import STAGE


class ProcessTable(BelievingOracle):
    def __init__(self, atlas: bool, settings: AutellixPlas) -> None:
        self.atlas, self.settings = atlas, settings

    def start(self):
        self.rank: dict[int, float] = {}
        self.engine: dict[int, int] = {}
        training, mean = self.training, self.fleet.coef.mean(axis=0)
        each = [
            alone_seconds(mean, p, 0.0, o, float(self.fleet.max_batched[0]))
            for p, o in zip(training.prompt, training.output, strict=True)
        ]
        self.quantum = self.settings.quantum or float(np.average(each, weights=training.calls))

    def least_used(self, board):
        if self.settings.by_speed:
            return self.least_loaded(board)
        return min(range(len(board.instance)), key=lambda i: len(self.here(board, i)))

    def decide(self, board, r, now):
        call = board.stage[r]
        program = int(call["workflow"])
        mine = board.stage[board.stage["workflow"] == program]
        ended = [(k, s) for k, s in enumerate(mine) if not np.isnan(s["finish"])]
        first = int(board.workflow["first_stage"][program])
        served = sum(float(s["finish"] - s["start"]) for _, s in ended)
        waited = sum(float(s["start"] - s["ready"]) for _, s in ended)
        if self.atlas:
            rank = max((self.rank[first + k] + float(s["finish"] - s["start"]) for k, s in ended), default=0.0)
        else:
            rank = served
        self.rank[r] = rank
        bins = [self.quantum * 2.0**k for k in range(int(self.settings.queues) - 1)]
        queue = sum(rank >= upper for upper in bins)
        if served > 0 and waited / served >= self.settings.beta:
            queue = 0
        if call["prompt"] <= self.settings.long:
            return self.least_used(board), float(queue)
        if program not in self.engine:
            self.engine[program] = self.least_used(board)
        return self.engine[program], float(queue)


@given(
    st.integers(0, 2**31), st.booleans(), st.sampled_from([0.0, 0.03]), st.sampled_from([0.3, 10.0]),
    st.sampled_from([0.0, 200.0, 2048.0]), st.booleans(), st.sampled_from([1.0, 3.0, 8.0]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_decides_as_its_rule_says(seed, atlas, quantum, beta, long, by_speed, queues):
    policy = (AutellixAtlas if atlas else AutellixPlas)(queues, quantum, beta, long, by_speed)
    assert_decides_as(ProcessTable(atlas, policy), policy, seed)


@pytest.mark.parametrize(("atlas", "at_the_join"), [(True, 5.0), (False, 6.0)])
def test_service_of_a_fork_and_a_join(atlas, at_the_join):
    # A root of 2 s, then calls of 3 and 1 s side by side: a path of 5 s, 6 s in all.
    stage = np.zeros(3, dtype=STAGE)
    know = bare_knowledge(weights=np.array([float(atlas)]), programs=np.zeros((1, autellix.COLUMNS)))
    for r, (start, finish, depends) in enumerate([(1.0, 3.0, 0.0), (3.0, 6.0, 2.0), (4.0, 5.0, 2.0)]):
        stage[r]["start"], stage[r]["finish"], stage[r]["urgency"] = start, finish, depends
        stage[r]["ready"] = 0.0 if r == 0 else 3.0
    for r in (0, 2, 1):
        autellix.ended(bare_board(stage=stage), know, r)
    assert know.programs[0].tolist() == [at_the_join, 2.0, 6.0, 0.0]


def test_bins_double():
    services = [0.0, 1.99, 2.0, 3.99, 4.0, 8.0, 15.9, 16.0, 1e9]
    assert [autellix.queue_of(s, 2.0, 8.0) for s in services] == [0, 0, 1, 1, 2, 3, 3, 4, 7]
    assert autellix.queue_of(1e9, 2.0, 1.0) == 0


def test_with_one_queue_calls_are_served_as_they_come():
    experiment = random_experiment(8, count=30)
    picks, arrivals = experiment.sample(60, RATE, 0)
    one = experiment.run(make_policy("autellix-plas-style:queues=1"), picks, arrivals)
    assert (one.stage["priority"] == 0).all()
    many = experiment.run(make_policy("autellix-plas-style"), picks, arrivals)
    assert len(set(many.stage["priority"])) > 2
    # A program's second call never queues before its first one did.
    rows = many.stage[many.stage["workflow"] == 0]
    assert (np.diff(rows["priority"][np.argsort(rows["ready"])]) >= 0).all()


def test_long_calls_of_a_program_share_an_engine():
    experiment = random_experiment(8, count=30, shortest=1 << 14, kv_tokens=1 << 15)
    run = experiment.run(make_policy("autellix-plas-style:long=0"), *experiment.sample(60, RATE, 0))
    places = [set(run.stage["instance"][run.stage["workflow"] == w]) for w in range(60)]
    assert all(len(engines) == 1 for engines in places) and len(set.union(*places)) == 4


def test_refuses_what_is_no_queue():
    with pytest.raises(PolicyError, match="policy 'autellix-atlas-style': queues is 0, expected more than 0"):
        make_policy("autellix-atlas-style:queues=0")
