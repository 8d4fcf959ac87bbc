"""Drawn jobs against the workflows they come from; what two prompts share against their tokens written out."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workload import random_workflows

from hexopt.simulation.state import NONE
from hexopt.simulation.workload import LONGEST, Workload
from hexopt.traces import Prefix, Stage, TraceError, Workflow


def draw(seed: int):
    """Workflows, a random draw of them with repetitions, and its jobs."""
    rng = np.random.default_rng(seed)
    workflows = random_workflows(rng, int(rng.integers(1, 5)))
    picks = rng.integers(0, len(workflows), int(rng.integers(1, 7)))
    arrivals = np.cumsum(rng.exponential(1.0, len(picks)))
    deadlines = rng.uniform(1.0, 5.0, len(picks))
    workload = Workload(workflows)
    return workload, picks, arrivals, deadlines, workload.draw(picks, arrivals, deadlines)


def written_out(stage: Stage, play: int) -> list[object]:
    """What can be shared of the call, token by token: local segments belong to the ``play``-th workflow drawn."""
    tokens: list[object] = []
    local = False
    for prefix in stage.prefixes:
        local = local or prefix.local
        tokens += [(play, prefix.segment) if local else prefix.segment] * prefix.tokens
    if stage.output_segment is not None:
        tokens += [(play, stage.output_segment)] * stage.output_tokens
    return tokens


def chain(nodes, leaf: int) -> list[int]:
    path = []
    while leaf != NONE:
        path.append(int(leaf))
        leaf = nodes["parent"][leaf]
    return path[::-1]


@given(st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_drawn_calls_are_those_of_the_templates(seed):
    workload, picks, arrivals, deadlines, jobs = draw(seed)
    assert jobs.template.tolist() == picks.tolist()
    first = 0
    for play, pick in enumerate(picks):
        workflow = workload.workflows[pick]
        row = jobs.workflow[play]
        assert (row["arrival"], row["deadline"]) == (arrivals[play], arrivals[play] + deadlines[play])
        assert (row["weight"], workload.tenants[row["tenant"]]) == (workflow.weight, workflow.tenant)
        assert (row["first_stage"], row["stages"], row["stages_left"]) == (first, *[len(workflow.stages)] * 2)
        assert np.isnan(row["finish"])
        position = {stage.id: first + k for k, stage in enumerate(workflow.stages)}
        for k, stage in enumerate(workflow.stages):
            call = jobs.stage[first + k]
            assert (call["prompt"], call["output"]) == (stage.prompt_tokens, stage.output_tokens)
            assert (workload.kinds[call["kind"]], call["tool_delay"]) == (stage.kind, stage.tool_delay)
            assert call["occurrence"] == sum(s.kind == stage.kind for s in workflow.stages[:k])
            assert call["parents_left"] == len(stage.parents) and call["workflow"] == play
            children = jobs.child[call["first_child"] : call["first_child"] + call["children"]]
            assert children.tolist() == [position[s.id] for s in workflow.stages if stage.id in s.parents]
        first += len(workflow.stages)
    assert first == len(jobs.stage)


@given(st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_two_calls_share_what_their_tokens_share(seed):
    workload, picks, _, _, jobs = draw(seed)
    calls = [(play, s) for play, pick in enumerate(picks) for s in workload.workflows[pick].stages]
    tokens = [written_out(stage, play) for play, stage in calls]
    chains = [chain(jobs.node, leaf) for leaf in jobs.stage["leaf"]]
    for written, nodes in zip(tokens, chains, strict=True):
        assert len(written) == (jobs.node["end"][nodes[-1]] if nodes else 0)
    for a, b in combinations(range(len(calls)), 2):
        shared = [u for u, v in zip(chains[a], chains[b], strict=False) if u == v]
        agree = [x == y for x, y in zip(tokens[a], tokens[b], strict=False)]
        length = agree.index(False) if False in agree else len(agree)
        assert (jobs.node["end"][shared[-1]] if shared else 0) == length


def test_a_template_drawn_twice_shares_its_template_but_not_its_history():
    prefixes = (Prefix("template", 100), Prefix("history", 50, local=True))
    workload = Workload([Workflow("w", (Stage("0", "k", 160, 5, (), prefixes),))])
    jobs = workload.draw(np.array([0, 0]), np.zeros(2), np.ones(2))
    one, other = (chain(jobs.node, leaf) for leaf in jobs.stage["leaf"])
    assert [jobs.node["end"][v] for v in one] == [jobs.node["end"][v] for v in other] == [100, 150]
    assert one[0] == other[0] and one[1] != other[1]


def test_drawing_again_starts_afresh():
    workload, picks, arrivals, deadlines, jobs = draw(3)
    before = workload.template_stages().copy()
    jobs.stage["prompt"] = jobs.child[:] = jobs.node["end"] = 7
    again = workload.draw(picks, arrivals, deadlines)
    fresh = Workload(workload.workflows).draw(picks, arrivals, deadlines)
    for field in ("stage", "child", "workflow", "node"):
        assert getattr(again, field).tobytes() == getattr(fresh, field).tobytes()
    assert workload.template_stages().tobytes() == before.tobytes()


def test_a_parent_named_twice_counts_once():
    stages = (Stage("0", "k", 9, 9), Stage("1", "k", 9, 9, parents=("0", "0")))
    jobs = Workload([Workflow("w", stages)]).draw(np.array([0]), np.zeros(1), np.ones(1))
    assert jobs.stage["parents_left"].tolist() == [0, 1] and jobs.stage["children"].tolist() == [1, 0]


def test_refuses_an_empty_trace():
    with pytest.raises(TraceError, match="no workflows"):
        Workload([])


@pytest.mark.parametrize("tokens", [LONGEST, 10**12])
def test_refuses_calls_that_the_arrays_cannot_hold(tokens):
    fits = Workflow("w", (Stage("0", "k", LONGEST - 1, 1),))
    assert Workload([fits]).template_stages()["prompt"].tolist() == [LONGEST - 1]
    with pytest.raises(TraceError, match=f"workflow 'w', stage '0': {tokens} prompt"):
        Workload([replace(fits, stages=(replace(fits.stages[0], prompt_tokens=tokens),))])
