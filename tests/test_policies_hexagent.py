"""HexAGenT's planner against its rule in plain Python, an example by hand, and workflow FCFS as its limit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from bare_board import bare_board, bare_knowledge
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workload import RATE, random_experiment, random_workflows
from test_policies_greedy_urgency import PlainGreedyUrgency

from hexopt.cluster import parse_cluster
from hexopt.models.roofline import FEATURE_NAMES, N_FEATURES, step_seconds
from hexopt.policies.hexagent import Planner, make_plan
from hexopt.policies.hexagent_copy import horizon, new_planning, survey
from hexopt.policies.hexagent_decodes import plan_decodes
from hexopt.policies.knowledge import alone_seconds
from hexopt.policies.published import Hexagent
from hexopt.policies.registry import PolicyError, make_policy
from hexopt.simulation.experiment import Experiment
from hexopt.simulation.state import DECODE, INSTANCE, NONE, PREFILL, STAGE, WORKFLOW


def step(coef, decodes: float, context: float) -> float:
    return step_seconds(coef, 0.0, 0.0, 0.0, 0.0, decodes, context)


def prefill(coef, new: float, done: float, budget: float, decodes: float, context: float) -> float:
    """Equal chunks in the room that the decodes leave in the budget."""
    if new <= 0:
        return 0.0
    steps = max(new / max(budget - decodes, 1.0), 1.0)
    middle = done + new / 2
    return steps * step_seconds(coef, 1.0, new / steps, new / steps * middle, middle, decodes, context)


class Copy:
    """One instance of the planner's copy of the cluster; times from now on."""

    def __init__(self, coef, instance, calls) -> None:
        self.coef, self.budget = coef, float(instance["max_batched"])
        self.memory, self.seats = int(instance["blocks"]) * int(instance["block_size"]), int(instance["max_seqs"])
        self.longest = int(instance["max_len"])
        running = [c for c in calls if c["held"] > 0]
        ahead = sum(max(int(c["prompt"]) - int(c["computed"]), 0) for c in running)
        ahead += sum(float(c["expected_new"]) for c in calls if c["held"] == 0)
        context = float(sum(int(c["prompt"]) + int(c["generated"]) for c in running))
        self.free_at = prefill(coef, ahead, 0.0, self.budget, float(len(running)), context)
        seconds = step(coef, decodes=float(len(calls)), context=context)
        self.there: list[tuple[float, float]] = []
        for c in calls:
            left = max(c["expected_output"] - c["generated"], 0.15 * c["expected_output"] + 1)
            starts = 0.0 if c["generated"] > 0 else self.free_at
            self.there.append((starts + left * seconds, float(c["prompt"] + c["generated"] + left)))

    def project(self, prompt: float, output: float, new: float) -> tuple[float, float]:
        """First token and end of a call put here."""
        for enters in sorted([self.free_at, *(end for end, _ in self.there if end > self.free_at)]):
            beside = [tokens for end, tokens in self.there if end > enters]
            if not beside or (sum(beside) + prompt + output <= self.memory and len(beside) < self.seats):
                break
        took = prefill(self.coef, new, prompt - new, self.budget, float(len(beside)), sum(beside))
        context = sum(beside) + prompt + output / 2
        first = enters + took
        return first, first + (output - 1) * step(self.coef, decodes=len(beside) + 1.0, context=context)


class PlainPlanner(PlainGreedyUrgency):
    """Checks a plan step by step, so that calls that tie but for rounding do not matter."""

    def __init__(self, fleet, training, settings: Hexagent) -> None:
        super().__init__()
        self.fleet, self.training, self.settings = fleet, training, settings

    def horizon(self, board, w: int) -> float:
        if self.settings.horizon == "constant":
            return 1.0
        finish: dict[int, float] = {}
        begin: dict[int, float] = {}
        now = board.clock["now"][0]
        first, count = int(board.workflow["first_stage"][w]), int(board.workflow["stages"][w])
        for k in range(first, first + count):
            s = board.stage[k]
            if np.isnan(s["ready"]) or s["ready"] > now:
                continue
            output = float(s["output"]) if s["finish"] <= now else float(s["expected_output"])
            each = zip(self.fleet.coef, self.fleet.max_batched, strict=True)
            finish[k] = begin.get(k, float(s["tool_delay"])) + min(
                alone_seconds(coef, s["prompt"], 0, output, budget) for coef, budget in each
            )
            for c in board.child[s["first_child"] : s["first_child"] + s["children"]]:
                begin[c] = max(begin.get(c, 0.0), finish[k] + float(board.stage["tool_delay"][c]))
        return max(finish.values())

    def check(self, board, planned: list[int], place) -> int:
        """Assert that each stage of the plan was the one with the largest R, at its best candidate; how many."""
        now = float(board.clock["now"][0])
        copies = [
            Copy(coef, instance, [board.stage[c] for c in self.here(board, i)])
            for i, (coef, instance) in enumerate(zip(self.fleet.coef, board.instance, strict=True))
        ]
        new = {
            r: [float(board.stage["prompt"][r]) - self.cached(board, r, i) for i in range(len(copies))] for r in planned
        }
        horizons = {r: self.horizon(board, int(board.stage["workflow"][r])) for r in planned}

        def finish(r: int, i: int) -> float:
            s = board.stage[r]
            if int(s["prompt"]) + int(s["output"]) > copies[i].longest:
                return math.inf
            return copies[i].project(float(s["prompt"]), max(float(s["expected_output"]), 1.0), new[r][i])[1]

        finishes = {r: [finish(r, i) for i in range(len(copies))] for r in planned}

        def ratio(r: int) -> float:
            waited = now - float(board.workflow["arrival"][board.stage["workflow"][r]])
            return (waited + self.settings.projected * min(finishes[r])) / horizons[r]

        left, ratios = list(planned), {r: ratio(r) for r in planned}
        for r in planned:
            if len(planned) <= self.settings.sort_above:
                ratios = {other: ratio(other) for other in left}
            assert ratios[r] >= max(ratios[other] for other in left) * (1 - 1e-9)
            i, found = int(place[r]), finishes[r]
            assert found[i] <= min(found) * (1 + 1e-9)
            prompt, output = float(board.stage["prompt"][r]), max(float(board.stage["expected_output"][r]), 1.0)
            first, end = copies[i].project(prompt, output, new[r][i])
            copies[i].free_at = first
            copies[i].there.append((end, prompt + output))
            left.remove(r)
            for other in left:
                finishes[other][i] = finish(other, i)
        return len(planned)


class Checked(Planner):
    """Compares every plan; the board is asked about the moment before it."""

    def __init__(self, oracle: PlainPlanner) -> None:
        super().__init__()
        self.oracle, self.longest = oracle, 0

    def decide(self, board, know):
        clock = board.clock[0]
        fresh = int(clock["ready"]) - int(clock["ready_done"])
        held = int(clock["held"]) + fresh
        before = board.stage.copy(), board.instance.copy()
        super().decide(board, know)
        if fresh:
            planned = self.planning.order[:held].tolist()
            stage, instance = before
            # What the planner believes of the calls it took in; nothing else of the moment before.
            stage["expected_output"][planned] = board.stage["expected_output"][planned]
            self.oracle.check(board._replace(stage=stage, instance=instance), planned, self.planning.place)
            self.longest = max(self.longest, held)


@dataclass(frozen=True)
class CheckedHexagent(Hexagent):
    found: Any = None

    label = "checked"

    def scheduler(self, fleet):
        training = self.found.training
        self.found.planner = Checked(PlainPlanner(fleet, training, self))
        return self.found.planner


class Found:
    training: Any
    planner: Any


@given(
    st.integers(0, 2**31), st.sampled_from([0.0, 4.0, 64.0]), st.sampled_from(["revealed", "constant"]), st.booleans()
)
@settings(max_examples=15, deadline=None)
def test_plans_as_its_rule_says(seed, sort_above, horizon, projected):
    experiment = random_experiment(seed)
    found = Found()
    found.training = experiment.training
    policy = CheckedHexagent(sort_above, horizon, projected, found)
    run = experiment.run(policy, *experiment.sample(10, RATE, seed))
    assert not np.isnan(run.workflow["finish"]).any() and found.planner.longest > 1


def instances(**columns: Any) -> Any:
    table = np.zeros(len(columns["blocks"]), dtype=INSTANCE)
    for name, values in columns.items():
        table[name] = values
    table["block_size"], table["max_seqs"], table["max_batched"] = 16, 10, 1 << 20
    table["first_here"] = NONE
    return table


def revealed(prompt: list[int], output: list[int], ready: list[float]) -> Any:
    table = np.zeros(len(prompt), dtype=STAGE)
    table["prompt"], table["output"], table["expected_output"], table["ready"] = prompt, output, output, ready
    table["finish"], table["leaf"], table["instance"] = np.nan, NONE, NONE
    return table


def test_an_example_by_hand():
    # H prefills 10,000 tokens a second and decodes one in 20 ms, A 4,000 in 40 ms; H holds 10,000 tokens, A 4,500.
    coef = np.zeros((2, N_FEATURES))
    coef[:, FEATURE_NAMES.index("K")] = 2 / 10_000, 2 / 4_000
    coef[:, FEATURE_NAMES.index("[B>0]")] = 0.02, 0.04
    workflow = np.zeros(2, dtype=WORKFLOW)
    workflow["arrival"], workflow["first_stage"], workflow["stages"] = (0.0, 6.0), (0, 1), 1
    stage = revealed([8000, 4000], [200, 200], [10.0, 10.0])
    stage["workflow"] = 0, 1
    board = bare_board(
        stage=stage, workflow=workflow, instance=instances(blocks=(625, 282), max_len=(10_000, 4_500)), coef=coef
    )
    know = bare_knowledge(coef=coef, scale=np.ones(2), weights=np.array([64.0, 1.0, 1.0]))
    plan = new_planning(board, 2)
    # The second was there first; alone their workflows take 8 and 10 s.
    plan.held[:2], plan.alone[:] = (1, 0), (8.0, 10.0)
    make_plan(board, know, plan, 2, 10.0)
    assert plan.order[:2].tolist() == [0, 1] and plan.place[:2].tolist() == [0, 1]
    # On H the first ends after 0.8 + 199 * 0.02 s. Then the second waits for its memory until 4.78 s and would end at
    # 4.78 + 0.4 + 3.98 s; on A at 1 + 7.96 s.
    assert plan.finish[:2].tolist() == pytest.approx([8.96, 4.78])
    assert plan.ratio[:2].tolist() == pytest.approx([(4 + 8.96) / 10, (10 + 4.78) / 8])
    assert plan.free_at.tolist() == pytest.approx([0.8, 1.0])


def test_the_horizon_grows_as_calls_are_revealed():
    # 2 s, then 3 s and 1.5 s after a tool of 0.5 s each, then 1 s behind both.
    stage = revealed([1] * 4, [1] * 4, [0.0, np.nan, np.nan, np.nan])
    stage["first_child"], stage["children"], stage["tool_delay"] = (0, 2, 3, 4), (2, 1, 1, 0), (0.0, 0.5, 0.5, 0.0)
    workflow = np.zeros(1, dtype=WORKFLOW)
    workflow["stages"] = 4
    board = bare_board(stage=stage, workflow=workflow, child=np.array([1, 2, 3, 3], dtype=np.int32))
    plan = new_planning(board, 4)
    plan.alone[:] = 2.0, 3.0, 1.5, 1.0
    found = []
    for now, ready in ((0.0, []), (2.5, [1, 2]), (5.5, [3])):
        stage["ready"][ready] = now
        found.append(horizon(board, bare_knowledge(), plan, 0, now))
    assert found == [2.0, 5.5, 6.5]
    # A tool still runs: what waits for it is not revealed.
    stage["ready"][3] = 9.0
    assert horizon(board, bare_knowledge(), plan, 0, 8.0) == 5.5


@pytest.mark.parametrize("seed", range(4))
def test_without_horizon_and_projection_it_is_workflow_fcfs(seed):
    limits = {"gpu": "h100", "name": "one", "kv_tokens": 1 << 17, "max_num_seqs": 3, "max_num_batched_tokens": 1 << 14}
    cluster = parse_cluster({"llm": "llama-3.1-8b", "instance": [limits]}, "test")
    experiment = Experiment.of(random_workflows(np.random.default_rng(seed), 20), cluster)
    sample = experiment.sample(40, RATE, seed)
    plain = experiment.run(make_policy("hexagent-style:horizon=constant,projected=false"), *sample)
    fcfs = experiment.run(make_policy("workflow-fcfs"), *sample)
    assert np.nanmax(fcfs.stage["start"] - fcfs.stage["ready"]) > 1.0
    np.testing.assert_array_equal(plain.stage["start"], fcfs.stage["start"])
    np.testing.assert_array_equal(plain.stage["finish"], fcfs.stage["finish"])
    # With them, the order is another one.
    usual = experiment.run(make_policy("hexagent-style"), *sample)
    assert (usual.stage["start"] != fcfs.stage["start"]).any()


def test_parameters_are_checked_and_named():
    assert make_policy("hexagent-style:sort_above=8,projected=false").label == (
        "hexagent-style(sort_above=8, projected=false)"
    )
    with pytest.raises(PolicyError, match="horizon is 'final', expected one of revealed, constant"):
        make_policy("hexagent-style:horizon=final")


def pair_board():
    """The published note's example: two prefill and two decode instances, H faster than A, at second 10."""
    coef = np.zeros((4, N_FEATURES))
    # 10,000 and 4,000 prompt tokens a second; 20 and 40 ms a decode step.
    coef[:2, FEATURE_NAMES.index("K")] = 2 / 10_000, 2 / 4_000
    coef[2:, FEATURE_NAMES.index("[B>0]")] = 0.02, 0.04
    workflow = np.zeros(2, dtype=WORKFLOW)
    workflow["arrival"], workflow["first_stage"], workflow["stages"] = (0.0, 6.0), (0, 1), 1
    # The first of 201 output tokens comes from the prefill.
    stage = revealed([8000, 4000], [201, 201], [10.0, 10.0])
    stage["workflow"], stage["decode_at"], stage["prefill_instance"] = (0, 1), NONE, NONE
    table = instances(blocks=(10_000, 10_000, 625, 282), max_len=(1 << 20, 1 << 20, 10_000, 4_500))
    table["role"] = PREFILL, PREFILL, DECODE, DECODE
    table["waiting_root"] = NONE
    kv = 327_680
    seconds = np.full((4, 4), kv / 25e9)
    seconds[0, 2] = kv / 50e9
    board = bare_board(
        stage=stage, workflow=workflow, instance=table, coef=coef, link_latency=np.zeros((4, 4)), link_seconds=seconds
    )
    return board, bare_knowledge(coef=coef, scale=np.ones(4), weights=np.array([64.0, 1.0, 1.0]))


PH, PA, DH, DA = range(4)


def test_the_pairs_of_the_published_example():
    board, know = pair_board()
    plan = new_planning(board, 2)
    plan.held[:2], plan.alone[:] = (1, 0), (8.0, 10.0)
    make_plan(board, know, plan, 2, 10.0)
    assert plan.order[:2].tolist() == [0, 1]
    # The first fits dH alone: 0.8 s + 0.0524 s of KV at 50 GB/s + 4 s. The second waits there for its memory and still
    # ends before dA could have it; of the two prefill instances, A's KV is there first.
    assert [(int(plan.place[r]), int(plan.decoder[r])) for r in (0, 1)] == [(PH, DH), (PA, DH)]
    assert plan.finish[:2].tolist() == pytest.approx([8.8524288, 4.8524288])
    assert plan.ratio[:2].round(4).tolist() == [1.2852, 1.8566]
    assert plan.free_at[:2].tolist() == pytest.approx([0.8, 1.0])


def test_what_waits_to_decode_is_ordered_and_what_prefills_is_bound_anew():
    board, know = pair_board()
    plan = new_planning(board, 4)
    plan.alone_here[:] = 8.0, 10.0
    stage, table = board.stage, board.instance
    # Both wait at dH, the second of them since longer; then it is its memory that the first needs.
    stage["instance"], stage["generated"], stage["brought"] = DH, 1, (8000, 4000)
    stage["sequence"], stage["next_here"], stage["previous_here"] = (1, 0), (1, NONE), (NONE, 0)
    table["first_here"][DH], table["waiting"][DH], table["waiting_root"][DH] = 0, 2, 1
    survey(board, know, plan)
    plan_decodes(board, know, plan, 10.0)
    # R = (10 + 4) / 8 and (4 + 4) / 10.
    assert stage["priority"].tolist() == [0.0, 1.0] and table["waiting_root"][DH] == 0
    # The second is being prefilled instead, bound to dA so far; the first will be gone from dH at 4 s.
    stage["instance"][1], stage["generated"][1], stage["brought"][1] = PA, 0, 0
    stage["decode_at"][1], stage["expected_new"][1], stage["next_here"][:] = DA, 4000.0, NONE
    table["first_here"][[DH, PA]], table["waiting"][[DH, PA]] = (0, 1), 1
    survey(board, know, plan)
    plan_decodes(board, know, plan, 10.0)
    assert stage["decode_at"][1] == DH and plan.there.tolist() == [0, 0, 2, 0]
    assert plan.ends[DH, :2].tolist() == pytest.approx([4.0, 8.0])


@pytest.mark.parametrize("seed", range(3))
def test_on_a_pair_without_horizon_and_projection_it_is_workflow_fcfs(seed):
    # One seat where prompts are computed: the next one leaves when the last has been handed over. Three where they
    # decode, and memory for all.
    limits = {"gpu": "h100", "kv_tokens": 1 << 17, "max_num_batched_tokens": 1 << 14}
    rows = [
        {**limits, "role": "prefill", "max_num_seqs": 1},
        {**limits, "role": "decode", "max_num_seqs": 3},
    ]
    cluster = parse_cluster({"llm": "llama-3.1-8b", "instance": rows}, "test")
    experiment = Experiment.of(random_workflows(np.random.default_rng(seed), 20), cluster)
    sample = experiment.sample(40, RATE, seed)
    plain = experiment.run(make_policy("hexagent-style:horizon=constant,projected=false"), *sample)
    fcfs = experiment.run(make_policy("workflow-fcfs"), *sample)
    waited = fcfs.stage["finish"] - fcfs.stage["first_token"]
    assert np.nanmax(fcfs.stage["start"] - fcfs.stage["ready"]) > 0.05 and np.nanmax(waited) > 1.0
    np.testing.assert_array_equal(plain.stage["start"], fcfs.stage["start"])
    np.testing.assert_array_equal(plain.stage["finish"], fcfs.stage["finish"])
    usual = experiment.run(make_policy("hexagent-style"), *sample)
    assert (usual.stage["start"] != fcfs.stage["start"]).any()
