"""Small random workloads on small clusters: where queues build up, memory runs short and prompts share contents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hexopt.cluster import Cluster, parse_cluster
from hexopt.policies.knowledge import Knowledge
from hexopt.policies.policy import Fleet, Policy, Training
from hexopt.policies.registry import POLICIES
from hexopt.simulation.experiment import Experiment
from hexopt.traces import Prefix, Stage, Workflow

KINDS = ("extract_keywords", "generate_candidate", "revise", "unit_tester", "summarise")
"""Kinds of HexGen-Flow's template, two of which close and are closed, and one that is none of its."""
ALL_POLICIES = (
    *(name for name in POLICIES if name != "rolling-horizon"),
    "hexgen-flow:alpha=0.6,as_shipped=true",
    "greedy-urgency:affinity=false,imposed=0.3",
    "greedy-urgency:lost=0.1",
    "infaas-style:head_only=true",
    "llumnix-style:threshold=30,choose=last,priorities=true,target=400",
    "llumnix-style:scale=true,threshold=60,low=25,high=35,interval=0.3,start=0.1",
    "continuum-style:cold=2",
    "continuum-style:ttl=3,preempted_first=false",
    "continuum-style:ttl=0.1,host_gb=0.5",
    "autellix-atlas-style:beta=0.2,by_speed=false,quantum=0.05,long=100",
    "agentmath-style:base_tokens=100,sessions=3",
    "hexagent-style:sort_above=0",
    "past-future-style:rule=aggressive,every=3",
    "past-future-style:rule=true",
    "fastswitch-style:every=3,grouped=false,overlap=false,reuse=false",
    "fastswitch-style:pattern=markov,every=2",
    "clairvoyant:order=laxity",
    "clairvoyant:order=urgency",
    # Without the clock's part in it, so that runs repeat.
    "rolling-horizon:freeze=true",
    "rolling-horizon:solver=greedy,objective=attainment,solve_seconds=0.02,floor=0.05,late_binding=false",
)


def random_workflow(rng: np.random.Generator, number: int) -> Workflow:
    """A random DAG of up to nine calls; prompts may start with a template, a history, or all that was said."""
    stages: list[Stage] = []
    for k in range(int(rng.integers(1, 10))):
        parents = tuple(str(p) for p in range(max(0, k - 4), k) if rng.random() < 0.4)
        kind = str(rng.choice(KINDS))
        own = int(rng.integers(1, 300))
        prefixes: list[Prefix] = []
        if rng.random() < 0.6:
            prefixes.append(Prefix(f"template/{kind}", int(rng.choice([16, 100, 101, 257]))))
        if rng.random() < 0.5:
            prefixes.append(Prefix("history", 40 * (k + 1), local=True))
        quoting = [s for s in stages if s.output_segment is not None]
        if quoting and rng.random() < 0.5:
            said = quoting[-1]
            prefixes = [*said.prefixes, Prefix(str(said.output_segment), said.output_tokens, local=True)]
        quoted = bool(prefixes) and rng.random() < 0.3
        prompt = sum(p.tokens for p in prefixes) + (0 if quoted else own)
        delay = float(rng.exponential(0.5)) if rng.random() < 0.3 else 0.0
        output = int(rng.integers(1, 120))
        stages.append(
            Stage(str(k), kind, prompt, output, parents, tuple(prefixes), f"said {k}" if quoted else None, delay)
        )
    return Workflow(
        f"w{number}",
        tuple(stages),
        arrival=float(rng.exponential(2.0)) + number,
        deadline=float(rng.uniform(0.2, 4.0)) if rng.random() < 0.4 else None,
        weight=float(rng.integers(1, 4)),
        tenant=str(rng.choice(["a", "b"])),
        family=str(rng.choice(["x", "y"])),
    )


def random_workflows(rng: np.random.Generator, count: int) -> list[Workflow]:
    return [random_workflow(rng, number) for number in range(count)]


def small_cluster(shortest: int = 450, **limits: Any) -> Cluster:
    """Four instances, two of them alike, with little memory and small batches, unless ``limits`` say otherwise.

    The first one's context, ``shortest`` tokens, is too short for some calls.
    """
    tight = {"kv_tokens": 2400, "max_num_seqs": 6, "max_num_batched_tokens": 256, **limits}
    rows = [{"gpu": gpu, "name": f"{k}", **tight} for k, gpu in enumerate(("l40s", "h100", "h100", "a6000"))]
    rows[0]["max_model_len"] = shortest
    return parse_cluster({"llm": "llama-3.1-8b", "instance": rows}, "test")


def random_experiment(seed: int, count: int = 8, **limits: Any) -> Experiment:
    return Experiment.of(random_workflows(np.random.default_rng(seed), count), small_cluster(**limits))


RATE = 30.0
"""Workflows a second at which queues build up and memory runs short on the small cluster."""


class Oracle:
    """A policy's rule in plain Python; a rule may remember things, and ``start`` forgets them."""

    fleet: Fleet
    training: Training

    def start(self) -> None: ...

    def decide(self, board: Any, r: int, now: float) -> tuple[int, float]:
        """Instance and priority of call ``r``; ``board`` is the simulation's state at ``now``."""
        raise NotImplementedError

    def asked(self, board: Any, r: int, now: float) -> tuple[int, float]:
        """The decision, or the next instance after it whose context is long enough."""
        i, priority = self.decide(board, r, now)
        longest = board.stage["prompt"][r] + board.stage["output"][r]
        while board.instance["max_len"][i] < longest:
            i = (i + 1) % len(board.instance)
        return i, priority


class Both(Policy):
    """Asked from outside like an operator's own policy: asks ``policy`` and ``oracle`` and compares the answers.

    One run for both, because two calls of the same priority but for rounding would part two runs.
    """

    def __init__(self, policy: Policy, oracle: Oracle) -> None:
        object.__setattr__(self, "policy", policy)
        object.__setattr__(self, "oracle", oracle)
        for name in ("by_priority", "preempted_first"):
            object.__setattr__(self, name, getattr(policy, name))

    def prepare(self, fleet: Fleet, training: Training, workflows: int) -> Knowledge:
        self.oracle.fleet, self.oracle.training = fleet, training
        self.oracle.start()
        return self.policy.prepare(fleet, training, workflows)

    def linked(self, board: Any, know: Knowledge) -> tuple[int, ...]:
        # The policy is asked from here, and told all else by the loop.
        return 0, *self.policy.linked(board, know)[1:]

    def place(self, board: Any, know: Knowledge, r: int, now: float) -> tuple[int, float]:
        i, priority = self.oracle.asked(board, r, now)
        answer = self.policy.place(board, know, r, now)
        assert (i, priority) == (answer[0], pytest.approx(answer[1], rel=1e-9, abs=1e-9)), f"call {r} at {now} s"
        return answer


def assert_decides_as(oracle: Oracle, policy: Policy, seed: int, **limits: Any) -> None:
    """All decisions of a random run under pressure agree; compiled into the event loop, the policy runs the same."""
    experiment = random_experiment(seed, **limits)
    picks, arrivals = experiment.sample(16, RATE, seed)
    asked = experiment.run(Both(policy, oracle), picks, arrivals)
    compiled = experiment.run(policy, picks, arrivals)
    for field in ("instance", "priority", "start", "finish"):
        np.testing.assert_array_equal(asked.stage[field], compiled.stage[field])
