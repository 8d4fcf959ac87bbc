"""A trace replayed to an emulated server is what the simulator says, but for what HTTP adds."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from hexopt.cluster import parse_cluster
from hexopt.emulation.fleet import Fleet, Settings
from hexopt.emulation.replay import ReplayError, replay
from hexopt.policies.registry import make_policy
from hexopt.simulation.experiment import Experiment
from hexopt.traces import Prefix, Stage, Workflow, read_trace
from hexopt.traces.samples import sample_path

CLUSTER = parse_cluster({"llm": "llama-3.1-8b", "instance": [{"gpu": "l40s"}]}, "test")


def test_emulated_and_simulated_agree():
    speed_up = 10.0
    pool = read_trace(sample_path("text-to-sql"))
    experiment = Experiment.of(pool, CLUSTER)
    picks, arrivals = experiment.sample(8, rate=0.5, seed=0)
    stage = experiment.run(make_policy("round-robin"), picks, arrivals).stage
    with Fleet(CLUSTER, Settings(speed_up, by_priority=False)).running() as urls:
        workflows = [pool[pick] for pick in picks]
        answered = asyncio.run(replay(urls[0], "llama-3.1-8b", workflows, arrivals, speed_up))
    assert len(answered) == len(stage)
    latency = np.array([one.finish - one.ready for one in answered])
    simulated = float((stage["finish"] - stage["ready"]).mean())
    # Loose: an HTTP call on a loaded machine takes tens of milliseconds, times the speed-up.
    assert 0.9 * simulated < latency.mean() < simulated + 0.05 * speed_up + 0.3 * simulated
    assert math.isclose(np.mean([one.cached for one in answered]), stage["cached"].mean(), rel_tol=0.02)


def test_answers_are_quoted_and_stages_wait_for_their_parents():
    first = Stage("a", "x", 32, 64, (), (Prefix("head", 32),), "said", 0.0)
    then = Stage("b", "x", 200, 8, ("a",), (Prefix("head", 32), Prefix("said", 64, local=True)), None, 0.5)
    with Fleet(CLUSTER, Settings(20.0)).running() as urls:
        workflow = Workflow("w", (first, then))
        a, b = asyncio.run(replay(urls[0], "llama-3.1-8b", [workflow], [0.0], 20.0))
        assert b.ready == a.finish + 0.5 and b.finish > b.ready
        # Of the answer, all but the block of its last token, which was never computed.
        assert b.cached == 32 + 48
        with pytest.raises(ExceptionGroup) as refused:
            asyncio.run(replay(urls[0], "other", [workflow], [0.0], 20.0))
    assert isinstance(refused.value.exceptions[0], ReplayError)
