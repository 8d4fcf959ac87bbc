"""AgentMath's balancer against dicts in plain Python, its published example, and least connections as its limit."""

from __future__ import annotations

import numpy as np
import pytest
from bare_board import bare_knowledge
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workload import RATE, Oracle, assert_decides_as, random_experiment

from hexopt.policies import agentmath
from hexopt.policies.knowledge import Knowledge
from hexopt.policies.published import AgentMath
from hexopt.policies.registry import PolicyError, make_policy


class Balancer(Oracle):
    def __init__(self, settings: AgentMath) -> None:
        self.settings = settings

    def start(self):
        # Sessions from the least to the most recently used, with their engines.
        self.sticky: dict[int, int] = {}

    def decide(self, board, r, now):
        settings, session = self.settings, int(board.stage["workflow"][r])
        loads = [0.0] * len(board.instance)
        for call in board.stage[(board.stage["instance"] >= 0) & np.isnan(board.stage["finish"])]:
            loads[call["instance"]] += call["prompt"] // settings.base_tokens + settings.base_weight
        engine = self.sticky.pop(session, loads.index(min(loads)))
        self.sticky[session] = engine
        if len(self.sticky) > settings.sessions:
            self.sticky.pop(next(iter(self.sticky)))
        return engine, 0.0


@given(
    st.integers(0, 2**31), st.sampled_from([50.0, 8192.0]), st.sampled_from([0.0, 1.0, 2.5]),
    st.sampled_from([0.0, 1.0, 4.0, 4096.0]),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_decides_as_its_rule_says(seed, base_tokens, base_weight, sessions):
    policy = AgentMath(base_tokens, base_weight, sessions)
    assert_decides_as(Balancer(policy), policy, seed)


def known(loads: list[float], sessions: int, remembered: float = 4096.0) -> Knowledge:
    memory = np.zeros(agentmath.LOADS + len(loads))
    memory[agentmath.LOADS :] = loads
    weights, programs = np.array([8192.0, 1.0, remembered]), np.zeros((sessions, agentmath.COLUMNS))
    return bare_knowledge(weights=weights, memory=memory, programs=programs)


def test_the_published_weights_and_routes():
    know = known([3.0, 5.0], 2)
    assert [agentmath.weight_of(know, tokens) for tokens in (0, 8191, 8192, 10_000, 40_000)] == [1, 1, 2, 2, 5]
    assert agentmath.route(know, 0, 40_000, 2) == 0
    know.memory[agentmath.LOADS] += 5.0
    # Engine 1 has less now; session 0 is known to engine 0 all the same.
    assert agentmath.route(know, 1, 10_000, 2) == 1
    assert agentmath.route(know, 0, 40_000, 2) == 0


def test_the_least_recently_used_session_is_forgotten():
    know = known([0.0, 0.0, 0.0], 4, remembered=2.0)
    for session, load in enumerate([(0, 1, 1), (1, 0, 1), (1, 1, 0)]):
        know.memory[agentmath.LOADS :] = load
        assert agentmath.route(know, session, 100, 3) == session
        if session == 1:
            agentmath.route(know, 0, 100, 3)
    # Session 1 was forgotten for 2: it goes where there is least now.
    know.memory[agentmath.LOADS :] = (1.0, 1.0, 0.0)
    assert agentmath.route(know, 0, 100, 3) == 0
    assert agentmath.route(know, 1, 100, 3) == 2
    assert know.programs[2, agentmath.ENGINE] == 0.0 and know.memory[agentmath.KNOWN] == 2.0


@pytest.mark.parametrize("seed", range(3))
def test_with_equal_weights_and_no_sessions_it_is_least_connections(seed):
    experiment = random_experiment(seed, count=20)
    picks, arrivals = experiment.sample(60, RATE, seed)
    runs = [
        experiment.run(make_policy(text), picks, arrivals)
        for text in ("agentmath-style:base_tokens=1e6,sessions=0", "least-loaded")
    ]
    for field in ("instance", "start", "finish"):
        np.testing.assert_array_equal(runs[0].stage[field], runs[1].stage[field])


def test_refuses_prefixes_of_no_length():
    with pytest.raises(PolicyError, match="base_tokens is 0, expected more than 0"):
        make_policy("agentmath-style:base_tokens=0")
