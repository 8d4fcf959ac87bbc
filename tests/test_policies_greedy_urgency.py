"""Greedy urgency against its rule in plain Python: urgency * finish + imposed, with beliefs of its own."""

from __future__ import annotations

import numpy as np
import pytest
from believing_oracle import BelievingOracle
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workload import assert_decides_as, random_experiment

from hexopt.models.roofline import features
from hexopt.policies.policy import GreedyUrgency
from hexopt.simulation.state import NONE


def step(coef, chunks=0.0, tokens=0.0, attention=0.0, chunk_context=0.0, decodes=0.0, context=0.0) -> float:
    return float(features(*([x] for x in (chunks, tokens, attention, chunk_context, decodes, context)))[0] @ coef)


def prefill(coef, new: float, done: float, budget: float, decodes: float, context: float) -> float:
    """Equal chunks in the room that the decodes leave in the budget."""
    if new <= 0:
        return 0.0
    steps = max(new / max(budget - decodes, 1.0), 1.0)
    middle = done + new / 2
    return steps * step(coef, 1, new / steps, new / steps * middle, middle, decodes, context)


class PlainGreedyUrgency(BelievingOracle):
    def __init__(self, imposed: float = 1.0, affinity: bool = True, urgency: float = 0.75) -> None:
        self.weight, self.affinity, self.exponent = imposed, affinity, urgency

    def start(self):
        # Of each call placed: expected output, urgency, tokens to compute, priority.
        self.placed: dict[int, tuple[float, float, float, float]] = {}

    def decide(self, board, r, now):
        call = board.stage[r]
        deadline = board.workflow["deadline"][call["workflow"]]
        output, tail = self.beliefs(board, r)
        service = self.mean_seconds(board, call["prompt"], output)
        priority = deadline - service - tail
        late = (service + tail) / max(deadline - now, (service + tail) / 2)
        urgency = max(late, 0.1) ** self.exponent
        costs = {}
        for i, instance in enumerate(board.instance):
            if call["prompt"] <= instance["max_len"]:
                finish, imposed, new = self.predict(board, r, i, max(output, 1.0), priority)
                costs[i] = (urgency * finish + self.weight * imposed, i, new)
        _, best, new = min(costs.values())
        self.placed[r] = (output, urgency, new, priority)
        return best, priority

    def cached(self, board, r: int, i: int) -> int:
        """Tokens of the prompt that instance ``i`` would find: whole blocks, never the whole prompt."""
        block = int(board.instance["block_size"][i])
        path, v = [], int(board.stage["leaf"][r])
        while v != NONE:
            path.append(v)
            v = int(board.node["parent"][v])
        found = start = 0
        for v in reversed(path):
            end = int(board.node["end"][v]) // block
            found += int(board.here["cached"][i, v])
            if found < end:
                break
            start = end
        return min(max(found, start), (int(board.stage["prompt"][r]) - 1) // block) * block

    def predict(self, board, r: int, i: int, output: float, priority: float) -> tuple[float, float, float]:
        coef, instance, prompt = self.fleet.coef[i], board.instance[i], float(board.stage["prompt"][r])
        block, budget = float(instance["block_size"]), float(instance["max_batched"])
        cached = float(self.cached(board, r, i)) if self.affinity else 0.0
        new = prompt - cached

        others = []
        for other in self.here(board, i):
            there = board.stage[other]
            expected, urgency, to_compute, its_priority = self.placed[other]
            left = max(expected - there["generated"], 0.15 * expected + 1)
            size = float(there["prompt"] + there["generated"])
            others.append((there, left, size, urgency, to_compute, its_priority))
        running = [o for o in others if o[0]["held"] > 0]
        ahead = [o for o in others if o[0]["held"] == 0 and o[5] <= priority]
        behind = [o for o in others if o[0]["held"] == 0 and o[5] > priority]

        # Their decodes in this call's company, on average over this call's own.
        together = [min(left, output) for _, left, *_ in others]
        company = sum(together) / output
        context = sum(t * (o[2] + t / 2) for t, o in zip(together, others, strict=True)) / output
        with_it = step(coef, decodes=company + 1, context=context + prompt + output / 2)
        without = step(coef, decodes=company, context=context) if others else 0.0

        decodes, decode_context = float(len(running)), sum(o[2] for o in running)
        own_prefill = prefill(coef, new, cached, budget, decodes, decode_context)
        first = sum(max(int(o[0]["prompt"]) - int(o[0]["computed"]), 0) for o in running) + sum(o[4] for o in ahead)
        wait = prefill(coef, first, 0.0, budget, decodes, decode_context)
        needed = sum((o[2] + o[1]) / block for o in ahead) + (prompt + output - cached) / block
        freed_a_step = sum(o[0]["held"] / o[1] for o in running)
        if needed > instance["free"] and freed_a_step > 0:
            wait += (needed - instance["free"]) / freed_a_step * with_it
        finish = wait + own_prefill + (output - 1) * with_it

        stall = own_prefill
        if running:
            steps = max(new / max(budget - decodes, 1.0), 1.0)
            stall = max(own_prefill - steps * step(coef, decodes=decodes, context=decode_context), 0.0)
        imposed = 0.0
        if running or behind:
            imposed = sum(t * o[3] for t, o in zip(together, others, strict=True)) * (with_it - without)
            imposed += stall * sum(o[3] for o in running + behind)
        return finish, imposed, new


@given(
    st.integers(0, 2**31), st.sampled_from([0.0, 0.3, 1.0]), st.booleans(), st.sampled_from([0.0, 0.5, 2.0]),
    st.sampled_from([2400, 1 << 15]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_decides_as_its_rule_says(seed, imposed, affinity, urgency, memory):
    limits = {"kv_tokens": memory, "max_num_seqs": 6 if memory == 2400 else 64}
    assert_decides_as(
        PlainGreedyUrgency(imposed, affinity, urgency), GreedyUrgency(imposed, affinity, urgency), seed, **limits
    )


@pytest.mark.parametrize("affinity", [True, False])
def test_affinity_finds_more_of_the_prompts_again(affinity):
    # With time between the workflows and equal instances nothing else speaks for one of them.
    experiment = random_experiment(11, count=30, shortest=2000, kv_tokens=1 << 15)
    picks, arrivals = experiment.sample(60, 0.2, 0)
    cached = [
        experiment.run(GreedyUrgency(affinity=a), picks, arrivals).stage["cached"].sum() for a in (affinity, False)
    ]
    assert cached[0] > cached[1] if affinity else cached[0] == cached[1]
    assert np.sum(cached) > 0
