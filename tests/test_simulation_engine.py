"""The jumping engine against the step-by-step oracle: same times to 1e-9, same cache hits, same preemptions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import types
from oracle_engine import OracleConfig, OracleEvent, OracleMove, OracleNode, OracleStage, simulate_oracle

from hexopt.memory_rules import Admission
from hexopt.models.kernel import kernel
from hexopt.models.lengths import empty_lengths
from hexopt.models.roofline import FEATURE_NAMES
from hexopt.models.tails import empty_tails
from hexopt.policies.knowledge import Knowledge
from hexopt.policies.linking import address_of
from hexopt.policies.policy import Fleet, Policy, Training
from hexopt.simulation.mechanisms import switch_admission
from hexopt.simulation.migration import begin_move, may_move
from hexopt.simulation.pinning import pin
from hexopt.simulation.simulator import SimulationError, advance, build, check_fits
from hexopt.simulation.state import (
    DECODE,
    DOWN,
    EVENT,
    INDICES,
    INSTANCE,
    MIXED,
    NODE,
    NONE,
    OPEN,
    PREFILL,
    STAGE,
    WORKFLOW,
    Simulation,
)
from hexopt.simulation.workload import Jobs

ROLES = {"mixed": MIXED, "prefill": PREFILL, "decode": DECODE}
SCALE = {"1": 1e-2, "A": 1e-7, "K": 1e-6, "S": 1e-4, "C": 1e-6, "B": 1e-4}
"""Seconds that a unit of these features is worth at most; steps of tokens 1e-3, tokens and the rest 1e-5."""


@dataclass(frozen=True)
class Case:
    """A random workload: one chain or fork of stages a workflow, placed beforehand."""

    stages: list[OracleStage]
    nodes: list[OracleNode]
    configs: list[OracleConfig]
    events: tuple[OracleEvent, ...] = ()
    links: tuple[np.ndarray, np.ndarray] | None = None
    moves: tuple[OracleMove, ...] = ()


def random_case(rng: np.random.Generator) -> Case:
    """Small memories and budgets, shared contents, chains, forks and tool delays: everything that can collide."""
    block = int(rng.choice([4, 16]))
    instances = int(rng.integers(1, 4))
    nodes: list[OracleNode] = []
    for _ in range(int(rng.integers(0, 7))):
        parent = int(rng.integers(-1, len(nodes)))
        start = 0 if parent < 0 else nodes[parent].end_tokens
        nodes.append(OracleNode(parent, start + int(rng.integers(1, 90))))
    longest = max((n.end_tokens for n in nodes), default=0)
    stages: list[OracleStage] = []
    time = 0.0
    for w in range(int(rng.integers(1, 14))):
        time += float(rng.exponential(rng.choice([0.01, 0.3, 3.0])))
        previous: tuple[int, ...] = ()
        for _ in range(int(rng.integers(1, 4))):
            width = int(rng.integers(1, 4)) if rng.random() < 0.3 else 1
            group = []
            for _ in range(width):
                leaf = int(rng.integers(-1, len(nodes)))
                shared = 0 if leaf < 0 else nodes[leaf].end_tokens
                output = int(rng.integers(1, 60))
                # The path may reach into the output, where later prompts quote it.
                prompt = max(shared - int(rng.integers(0, output + 1)), 0) + int(rng.integers(1, 120))
                group.append(len(stages))
                stages.append(
                    OracleStage(
                        prompt=max(prompt, shared - output, 1),
                        output=output,
                        path_leaf=leaf,
                        priority=float(rng.integers(0, 4)),
                        arrival=time,
                        parents=previous,
                        tool_delay=float(rng.exponential(0.4)) if rng.random() < 0.3 else 0.0,
                        instance=int(rng.integers(0, instances)),
                        workflow=w,
                    )
                )
            previous = tuple(group)
    need = max(max(-(-(s.prompt + s.output) // block) for s in stages), -(-longest // block)) + 1
    configs = []
    for _ in range(instances):
        scale = [SCALE.get(name, 1e-3 if name.startswith("[") else 1e-5) for name in FEATURE_NAMES]
        coef = rng.random(len(scale)) * np.array(scale)
        configs.append(
            OracleConfig(
                coef=coef,
                blocks=int(need * rng.choice([1.0, 1.3, 2.0, 8.0])),
                block_size=block,
                max_num_seqs=int(rng.choice([1, 2, 4, 32])),
                max_num_batched_tokens=int(rng.choice([8, 32, 128, 2048])),
                scheduling=str(rng.choice(["fcfs", "priority"])),
                prefix_caching=bool(rng.random() < 0.8),
            )
        )
    return Case(stages, nodes, configs)


@kernel
def pin_as_told(sim, know, r):  # type: ignore[no-untyped-def]
    pin(sim, r, sim.stage[r].finish + know.weights[r])
    return r


@kernel
def move_as_told(sim, know, now):  # type: ignore[no-untyped-def]
    k = int(know.memory[0])
    while k < know.table.shape[0] and know.table[k, 0] <= now:
        r = int(know.table[k, 1])
        d = int(know.table[k, 2])
        i = sim.stage[r].instance
        if i != NONE and may_move(sim, r, d):
            for place in range(sim.instance[i].running):
                if sim.running[i, place] == r:
                    begin_move(sim, r, d, now)
        k += 1
    know.memory[0] = k
    sim.clock[0].tick = know.table[k, 0] if k < know.table.shape[0] else math.inf
    return k


class Placed(Policy):
    """Carries out what the case has decided, through the interface of external policies."""

    def __init__(self, case: Case) -> None:
        object.__setattr__(self, "stages", case.stages)
        object.__setattr__(self, "moves", case.moves)

    def weights(self, training):  # type: ignore[no-untyped-def]
        return np.array([s.pin for s in self.stages])

    def table(self, fleet, training):  # type: ignore[no-untyped-def]
        return np.array([(m.when, m.stage, m.to) for m in self.moves], dtype=np.float64).reshape(-1, 3)

    def linked(self, board, know):  # type: ignore[no-untyped-def]
        ended = address_of(pin_as_told, board, know, types.int64) if know.weights.any() else 0
        tick = address_of(move_as_told, board, know, types.float64) if self.moves else 0
        return 0, ended, 0, tick

    def place(self, board, know, r, now):  # type: ignore[no-untyped-def]
        return self.stages[r].instance, self.stages[r].priority


def switch(row, config: OracleConfig) -> None:  # type: ignore[no-untyped-def]
    """The mechanisms beyond vLLM V1 that ``config`` has on."""
    host, rule = config.host, config.admission
    if host is not None:
        row["kv_bytes"], row["copy_parts"], row["host_blocks"] = host.token_bytes, host.parts, host.blocks
        row["call_seconds"], row["byte_seconds"] = host.call_seconds, 1.0 / host.bandwidth
        row["host_group"], row["host_overlap"], row["host_reuse"] = host.group, host.overlap, host.reuse
        row["host_keep"] = host.keep
    if rule is not None:
        switch_admission(
            row,
            Admission(
                rule=rule.rule, share=rule.share, every=rule.every, max_prefill=rule.max_prefill,
                max_new=rule.max_new, window=rule.window,
            ),
        )  # fmt: skip
    row["redraw_every"], row["redraw_keep"] = config.redraw_every, config.redraw_keep


def simulate_case(case: Case):  # type: ignore[no-untyped-def]
    """The same case on the engine: every stage is grouped with those that it is connected to."""
    n = len(case.stages)
    stage = np.zeros(n, dtype=STAGE)
    children: list[list[int]] = [[] for _ in range(n)]
    owner = np.zeros(n, dtype=int)
    workflows = -1
    for r, s in enumerate(case.stages):
        for p in s.parents:
            children[p].append(r)
        if not s.parents and not (r and not case.stages[r - 1].parents and case.stages[r - 1].arrival == s.arrival):
            workflows += 1
        owner[r] = workflows
    flat: list[int] = []
    for r, s in enumerate(case.stages):
        stage[r]["prompt"], stage[r]["output"], stage[r]["tool_delay"] = s.prompt, s.output, s.tool_delay
        stage[r]["leaf"], stage[r]["parents_left"] = s.path_leaf, len(s.parents)
        stage[r]["first_child"], stage[r]["children"] = len(flat), len(children[r])
        flat += children[r]
    stage["workflow"] = owner
    for field in ("ready", "start", "first_token", "finish", "handed"):
        stage[field] = math.nan
    for field in (field for field in INDICES if field != "leaf"):
        stage[field] = NONE
    stage["decode_at"] = [s.decode_at for s in case.stages]
    stage["expected_output"] = [s.expected_output for s in case.stages]
    workflow = np.zeros(workflows + 1, dtype=WORKFLOW)
    workflow["first_stage"] = [int(np.flatnonzero(owner == w)[0]) for w in range(workflows + 1)]
    workflow["stages"] = np.bincount(owner)
    workflow["stages_left"] = workflow["stages"]
    workflow["arrival"] = [case.stages[int(r)].arrival for r in workflow["first_stage"]]
    workflow["deadline"] = workflow["arrival"] + 1.0
    node = np.array([(x.parent, x.end_tokens) for x in case.nodes], dtype=NODE)
    instance = np.zeros(len(case.configs), dtype=INSTANCE)
    for row, c in zip(instance, case.configs, strict=True):
        row["block_size"], row["blocks"], row["max_seqs"] = c.block_size, c.blocks, c.max_num_seqs
        row["max_batched"], row["max_len"] = c.max_num_batched_tokens, 1 << 30
        row["by_priority"], row["prefix_caching"] = c.scheduling == "priority", c.prefix_caching
        row["preempted_first"] = c.preempted_first
        row["free"], row["next_event"], row["role"] = c.blocks, math.inf, ROLES[c.role]
        row["waiting_root"] = row["first_here"] = NONE
        switch(row, c)
    instance["generator"] = np.arange(1, len(case.configs) + 1)
    coef = np.array([c.coef for c in case.configs])
    jobs = Jobs(stage, np.array(flat, dtype=np.int32), workflow, node, np.zeros(workflows + 1, dtype=np.int64))
    check_fits(jobs, instance)
    events = [(e.when, e.instance, OPEN if e.up else DOWN) for e in case.events]
    sim = build(jobs, instance, coef, case.links, np.array(events, dtype=EVENT))
    one = np.ones(1)
    training = Training(("k",), empty_lengths(1), empty_tails(1), one, one, one)
    fleet = Fleet(coef, ("x",) * len(case.configs), np.full(len(case.configs), 64), np.zeros(len(case.configs)))
    policy = Placed(case)
    know: Knowledge = policy.prepare(fleet, training, workflows + 1)
    advance(sim, know, policy)
    return sim


def assert_agrees(seed: int) -> tuple[int, int]:
    """Simulate the case of ``seed`` twice; return its preemptions and cached tokens."""
    sim = assert_case_agrees(random_case(np.random.default_rng(seed)), seed)
    return int(sim.stage["preemptions"].sum()), int(sim.stage["cached"].sum())


def assert_case_agrees(case: Case, seed: int) -> Simulation:
    """Simulate the case twice; return the engine's state at the end."""
    latency, seconds = (x.tolist() for x in case.links or (np.zeros((0, 0)),) * 2)
    expected, _ = simulate_oracle(
        case.configs, case.nodes, case.stages, case.events, case.moves, link_latency=latency, link_seconds=seconds
    )
    sim = simulate_case(case)
    for field in ("start", "first_token", "finish", "handed"):
        wanted = np.array([getattr(o, field) for o in expected])
        np.testing.assert_allclose(sim.stage[field], wanted, rtol=1e-9, atol=0, err_msg=f"seed {seed}: {field}")
    assert [o.cached_tokens for o in expected] == sim.stage["cached"].tolist(), seed
    assert [o.preemptions for o in expected] == sim.stage["preemptions"].tolist(), seed
    assert [o.migrations for o in expected] == sim.stage["migrations"].tolist(), seed
    # When all is done, every block is free again and nothing is left in a queue.
    assert (sim.instance["free"] == sim.instance["blocks"]).all()
    assert (sim.here["holders"] == 0).all()
    for field in ("running", "waiting", "pinned", "moving", "joining"):
        assert (sim.instance[field] == 0).all(), field
    assert sim.clock["stages_left"][0] == 0
    assert sim.instance["finished"].sum() == len(case.stages)
    assert (sim.instance["promised"] == 0).all() and (sim.instance["reserved"] == 0).all()
    assert [o.decoded_at for o in expected] == sim.stage["instance"].tolist(), seed
    return sim


def test_agrees_with_the_oracle_on_two_thousand_workloads() -> None:
    totals = np.array([assert_agrees(seed) for seed in range(2000)])
    preempting, hitting = (totals > 0).sum(axis=0)
    assert preempting > 300, "too few workloads ran short of memory"
    assert hitting > 300, "too few workloads found a prefix"


@given(st.integers(10_000, 2**31))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_agrees_with_the_oracle_on_any_workload(seed: int) -> None:
    assert_agrees(seed)


def with_failures(case: Case, rng: np.random.Generator) -> Case:
    """Instances that go down and come back, some of them late for the first call."""
    events = []
    for i in range(len(case.configs)):
        when = 0.0 if rng.random() < 0.3 else float(rng.exponential(1.0))
        for _ in range(int(rng.integers(0, 3))):
            back = when + float(rng.exponential(0.5))
            events += [OracleEvent(when, i, up=False), OracleEvent(back, i, up=True)]
            when = back + float(rng.exponential(1.0))
    return replace(case, events=tuple(sorted(events, key=lambda e: e.when)))


def test_agrees_with_the_oracle_where_instances_fail() -> None:
    lost = 0
    for seed in range(500):
        rng = np.random.default_rng((1, seed))
        sim = assert_case_agrees(with_failures(random_case(rng), rng), seed)
        assert sim.stage["lost"].sum() == sim.instance["lost"].sum()
        lost += int(sim.stage["lost"].sum()) > 0
    assert lost > 150, "too few workloads lost a call"


def with_pins(case: Case, rng: np.random.Generator) -> Case:
    """Contents stay pinned for a while, which is short of, about, or far beyond what tools take."""
    pins = rng.exponential(rng.choice([0.1, 1.0, 100.0], len(case.stages))) * (rng.random(len(case.stages)) < 0.7)
    first = [bool(rng.random() < 0.5) for _ in case.configs]
    return replace(
        case,
        stages=[replace(s, pin=float(p)) for s, p in zip(case.stages, pins, strict=True)],
        configs=[replace(c, preempted_first=f) for c, f in zip(case.configs, first, strict=True)],
    )


def with_moves(case: Case, rng: np.random.Generator) -> Case:
    """Calls are told to move, by fast links and by slow ones."""
    last = max(s.arrival for s in case.stages) + 2.0
    moves = [
        OracleMove(
            float(rng.uniform(0, last)), int(rng.integers(len(case.stages))), int(rng.integers(len(case.configs)))
        )
        for _ in range(40 * len(case.stages))
    ]
    seconds = float(rng.choice([1e-6, 1e-4, 1e-2]))
    m = len(case.configs)
    links = np.zeros((m, m)), np.full((m, m), seconds)
    return replace(case, moves=tuple(sorted(moves, key=lambda m: m.when)), links=links)


def test_agrees_with_the_oracle_where_contents_are_pinned() -> None:
    hitting = 0
    for seed in range(500):
        rng = np.random.default_rng((2, seed))
        sim = assert_case_agrees(with_pins(random_case(rng), rng), seed)
        hitting += int(sim.stage["cached"].sum()) > 0
    assert hitting > 100, "too few workloads found a prefix"


def test_agrees_with_the_oracle_where_calls_move() -> None:
    moved = 0
    for seed in range(500):
        rng = np.random.default_rng((3, seed))
        sim = assert_case_agrees(with_moves(random_case(rng), rng), seed)
        moved += int(sim.stage["migrations"].sum()) > 0
    assert moved > 150, "too few workloads moved a call"


@given(st.integers(0, 2**31))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_agrees_with_the_oracle_whatever_happens(seed: int) -> None:
    rng = np.random.default_rng((4, seed))
    case = random_case(rng)
    for change in (with_failures, with_pins, with_moves):
        if rng.random() < 0.8:
            case = change(case, rng)
    assert_case_agrees(case, seed)


def test_refuses_a_stage_longer_than_every_context() -> None:
    instance = np.zeros(1, dtype=INSTANCE)
    instance["max_len"] = 1
    stage = np.zeros(1, dtype=STAGE)
    stage["prompt"], stage["output"] = 100, 20
    jobs = Jobs(stage, np.zeros(0, np.int32), np.zeros(1, WORKFLOW), np.zeros(0, NODE), np.zeros(1, np.int64))
    with pytest.raises(SimulationError, match="100 prompt and 20 output tokens"):
        check_fits(jobs, instance)
