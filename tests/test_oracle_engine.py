"""The step-by-step oracle against cases worked out by hand, closed forms, and vLLM's cache block by block."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from block_level_cache import BlockLevelCache
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_engine import (
    OracleConfig,
    OracleInstance,
    OracleNode,
    OracleOutcome,
    OracleStage,
    OracleStall,
    simulate_oracle,
)

from hexopt.models.roofline import FEATURE_NAMES


def coefficients(**by_name: float) -> list[float]:
    """Step time with these features' coefficients, zero for the others."""
    coef = [0.0] * len(FEATURE_NAMES)
    wanted = {"1" if name == "one" else name: value for name, value in by_name.items()}
    for i, feature in enumerate(FEATURE_NAMES):
        coef[i] = wanted.get("Q" if feature.startswith("Q in") else feature, 0.0)
    return coef


UNIT = coefficients(one=1.0)
"""Every step takes a second, so that times count steps."""


def run(
    config: OracleConfig, stages: Sequence[OracleStage], nodes: Sequence[OracleNode] = ()
) -> tuple[list[OracleOutcome], OracleInstance]:
    outcomes, (instance,) = simulate_oracle([config], nodes, stages)
    return outcomes, instance


def one_after_another(stages: Sequence[OracleStage]) -> list[OracleStage]:
    """The same stages, each the child of the one before."""
    return [replace(stage, parents=(i - 1,) if i else ()) for i, stage in enumerate(stages)]


def chunks(instance: OracleInstance) -> list[list[tuple[int, int]]]:
    """(stage, new tokens) of every step."""
    return [[(stage, new) for stage, _, new, _ in step.scheduled] for step in instance.steps]


class TestSteps:
    def test_a_prompt_in_one_step_then_a_token_a_step(self) -> None:
        (outcome,), instance = run(OracleConfig(UNIT, blocks=10), [OracleStage(10, 5, arrival=3.0)])
        assert outcome == OracleOutcome(start=3.0, first_token=4.0, finish=8.0, cached_tokens=0, preemptions=0)
        assert [step.scheduled for step in instance.steps] == [
            ((0, 0, 10, False),),
            *(((0, 9 + j, 1, True),) for j in range(1, 5)),
        ]

    def test_a_prompt_in_three_chunks(self) -> None:
        config = OracleConfig(coefficients(one=1.0, A=2.0, K=3.0, S=5.0), blocks=10, max_num_batched_tokens=16)
        (outcome,), instance = run(config, [OracleStage(40, 2)])
        assert chunks(instance) == [[(0, 16)], [(0, 16)], [(0, 8)], [(0, 1)]]
        # 1 + 2 N (P + N/2) + 3 (P + N) + 5
        expected = [
            1 + 2 * 16 * 8 + 3 * 16 + 5,
            1 + 2 * 16 * 24 + 3 * 32 + 5,
            1 + 2 * 8 * 36 + 3 * 40 + 5,
            1,
        ]
        assert [step.seconds for step in instance.steps] == expected
        assert outcome.first_token == sum(expected[:3])

    def test_decodes_go_before_chunks_and_share_the_budget(self) -> None:
        config = OracleConfig(UNIT, blocks=20, max_num_batched_tokens=8)
        outcomes, instance = run(config, [OracleStage(6, 4), OracleStage(20, 1)])
        assert chunks(instance) == [[(0, 6), (1, 2)], [(0, 1), (1, 7)], [(0, 1), (1, 7)], [(0, 1), (1, 4)]]
        assert [o.finish for o in outcomes] == [4.0, 4.0]

    def test_context_counts_the_token_being_computed(self) -> None:
        config = OracleConfig(coefficients(one=1.0, B=10.0, C=100.0), blocks=20)
        _, instance = run(config, [OracleStage(6, 3), OracleStage(4, 2)])
        assert [step.seconds for step in instance.steps] == [1.0, 1 + 20 + 100 * (7 + 5), 1 + 10 + 100 * 8]

    def test_at_most_max_num_seqs_run(self) -> None:
        outcomes, _ = run(OracleConfig(UNIT, blocks=99, max_num_seqs=2), [OracleStage(3, 4)] * 5)
        assert [o.start for o in outcomes] == [0.0, 0.0, 4.0, 4.0, 8.0]
        assert [o.finish for o in outcomes] == [4.0, 4.0, 8.0, 8.0, 12.0]

    def test_priority_orders_the_waiting_queue_and_arrival_breaks_ties(self) -> None:
        stages = [OracleStage(3, 2, priority=p) for p in (5.0, 1.0, 5.0, -1.0)]
        config = OracleConfig(UNIT, blocks=99, max_num_seqs=1, scheduling="priority")
        assert [o.start for o in run(config, stages)[0]] == [4.0, 2.0, 6.0, 0.0]
        assert [o.start for o in run(replace(config, scheduling="fcfs"), stages)[0]] == [0.0, 2.0, 4.0, 6.0]


class TestEvents:
    def test_an_arrival_during_a_step_waits_and_one_at_its_end_does_not(self) -> None:
        stages = [OracleStage(3, 4), OracleStage(3, 1, arrival=1.5), OracleStage(3, 1, arrival=3.0)]
        assert [o.start for o in run(OracleConfig(UNIT, blocks=99), stages)[0]] == [0.0, 2.0, 3.0]

    def test_children_follow_their_last_parent_and_the_tool(self) -> None:
        stages = [
            OracleStage(3, 2),
            OracleStage(3, 5, instance=1),
            OracleStage(3, 1, parents=(0,), tool_delay=0.5, instance=1),
            OracleStage(3, 1, parents=(0, 1), tool_delay=7.0),
        ]
        outcomes, _ = simulate_oracle([OracleConfig(UNIT, blocks=99)] * 2, (), stages)
        assert [(o.start, o.finish) for o in outcomes] == [(0.0, 2.0), (0.0, 5.0), (3.0, 4.0), (12.0, 13.0)]

    def test_stages_ready_at_the_same_time_queue_by_index_whoever_freed_them(self) -> None:
        stages = [
            OracleStage(3, 2),
            OracleStage(3, 2, instance=1),
            OracleStage(3, 1, parents=(1,)),
            OracleStage(3, 1, parents=(0,)),
            OracleStage(3, 1, arrival=2.0),
        ]
        config = OracleConfig(UNIT, blocks=99, max_num_seqs=1)
        outcomes, _ = simulate_oracle([config] * 2, (), stages)
        assert [o.start for o in outcomes[2:]] == [2.0, 3.0, 4.0]


class TestMemory:
    def test_the_head_of_the_queue_blocks_those_behind_it(self) -> None:
        config = OracleConfig(UNIT, blocks=4, block_size=4)
        outcomes, _ = run(config, [OracleStage(8, 4), OracleStage(12, 1), OracleStage(4, 1)])
        assert [o.start for o in outcomes] == [0.0, 4.0, 4.0]
        (_, small), _ = run(config, [OracleStage(8, 4), OracleStage(4, 1)])
        assert small.start == 0.0

    def test_fcfs_preempts_the_last_and_puts_it_first_in_the_queue(self) -> None:
        config = OracleConfig(UNIT, blocks=4, block_size=4)
        stages = [OracleStage(8, 6), OracleStage(8, 4), OracleStage(1, 1, arrival=1.5)]
        outcomes, instance = run(config, stages)
        # At 1 s the first needs a third block and the second gives up its two. It needs three again, which are there
        # at 6 s; the third stage would fit before but must not overtake.
        assert outcomes[0] == OracleOutcome(0.0, 1.0, 6.0, 0, 0)
        assert outcomes[1] == OracleOutcome(0.0, 1.0, 9.0, 0, 1)
        assert outcomes[2] == OracleOutcome(6.0, 7.0, 7.0, 0, 0)
        assert instance.steps[1].preempted == (1,)
        assert instance.steps[6].scheduled == ((1, 0, 9, False), (2, 0, 1, False))

    def test_priority_preempts_the_largest_key_even_if_it_was_scheduled(self) -> None:
        config = OracleConfig(UNIT, blocks=4, block_size=4, scheduling="priority")
        stages = [
            OracleStage(8, 6, priority=5.0),
            OracleStage(4, 3, priority=0.0, arrival=0.5),
            OracleStage(4, 1, priority=1.0, arrival=1.5),  # would fit at 2 s, when nobody is admitted
        ]
        outcomes, instance = run(config, stages)
        assert instance.steps[1].scheduled == ((0, 8, 1, True), (1, 0, 4, False))
        assert instance.steps[2].scheduled == ((1, 4, 1, True),)
        assert instance.steps[2].preempted == (0,)
        assert outcomes == [
            OracleOutcome(0.0, 1.0, 8.0, 0, 1),
            OracleOutcome(1.0, 2.0, 4.0, 0, 0),
            OracleOutcome(3.0, 4.0, 4.0, 0, 0),
        ]

    def test_a_victim_gives_its_tokens_back_to_the_budget(self) -> None:
        config = OracleConfig(UNIT, blocks=5, block_size=4, scheduling="priority", max_num_batched_tokens=9)
        stages = [
            OracleStage(8, 6, priority=5.0),
            OracleStage(4, 3, priority=0.0, arrival=0.5),
            OracleStage(4, 3, priority=1.0, arrival=0.5),
        ]
        _, instance = run(config, stages)
        assert chunks(instance)[1:3] == [[(0, 1), (1, 4), (2, 4)], [(1, 1), (2, 1)]]
        assert instance.steps[2].preempted == (0,)

    def test_a_step_in_which_the_first_gives_itself_up_is_scheduled_again(self) -> None:
        config = OracleConfig(UNIT, blocks=5, block_size=4, scheduling="priority")
        stages = [OracleStage(8, 8, priority=9.0), OracleStage(5, 5, priority=0.0, arrival=0.5)]
        outcomes, instance = run(config, stages)
        assert (instance.steps[5].start, instance.steps[5].scheduled, instance.steps[5].preempted) == (
            5.0,
            ((1, 8, 1, True),),
            (0,),
        )
        assert outcomes == [OracleOutcome(0.0, 1.0, 9.0, 0, 1), OracleOutcome(1.0, 2.0, 6.0, 0, 0)]


class TestPrefixCache:
    CONFIG = OracleConfig(UNIT, blocks=50, block_size=4)

    def cached(self, config: OracleConfig, stages: Sequence[OracleStage], nodes: Sequence[OracleNode]) -> list[int]:
        return [outcome.cached_tokens for outcome in run(config, one_after_another(stages), nodes)[0]]

    def test_at_least_one_token_is_computed(self) -> None:
        stages = [OracleStage(8, 1, 0), OracleStage(8, 1, 0), OracleStage(9, 1, 0), OracleStage(12, 1, 0)]
        assert self.cached(self.CONFIG, stages, [OracleNode(-1, 8)]) == [0, 4, 8, 8]
        assert self.cached(replace(self.CONFIG, prefix_caching=False), stages, [OracleNode(-1, 8)]) == [0] * 4

    def test_a_block_belongs_to_the_node_of_its_last_token(self) -> None:
        nodes = [OracleNode(-1, 6), OracleNode(0, 7), OracleNode(1, 13), OracleNode(1, 14)]
        stages = [OracleStage(20, 1, 2), OracleStage(20, 1, 3), OracleStage(20, 1, 2), OracleStage(20, 1, 3)]
        assert self.cached(self.CONFIG, stages, nodes) == [0, 4, 12, 12]

    def test_output_is_found_once_its_stage_has_ended_but_for_its_last_token(self) -> None:
        nodes = [OracleNode(-1, 8), OracleNode(0, 16)]
        stages = [OracleStage(8, 8, 1), OracleStage(20, 1, 1), OracleStage(20, 1, 1)]
        assert self.cached(self.CONFIG, stages, nodes) == [0, 12, 16]

    def test_output_blocks_of_a_stage_that_still_runs_are_not_found(self) -> None:
        nodes = [OracleNode(-1, 8), OracleNode(0, 16)]
        stages = [OracleStage(8, 9, 1), OracleStage(20, 1, 1, arrival=7.0)]
        assert [o.cached_tokens for o in run(self.CONFIG, stages, nodes)[0]] == [0, 8]

    def test_siblings_that_arrive_together_share_within_the_step(self) -> None:
        stages, nodes = [OracleStage(10, 1, 0)] * 2, [OracleNode(-1, 8)]
        outcomes, instance = run(self.CONFIG, stages, nodes)
        assert [o.cached_tokens for o in outcomes] == [0, 8]
        assert chunks(instance) == [[(0, 10), (1, 2)]]
        _, instance = run(replace(self.CONFIG, max_num_batched_tokens=6), stages, nodes)
        assert chunks(instance) == [[(0, 6)], [(0, 4), (1, 2)]]

    def test_found_blocks_are_shared_and_counted_once(self) -> None:
        # Two together need 2 shared and 2 own blocks.
        config = OracleConfig(UNIT, blocks=4, block_size=4)
        outcomes, _ = run(config, [OracleStage(10, 2, 0)] * 2, [OracleNode(-1, 8)])
        assert [o.start for o in outcomes] == [0.0, 0.0]
        outcomes, _ = run(replace(config, blocks=3), [OracleStage(10, 2, 0)] * 2, [OracleNode(-1, 8)])
        assert [(o.start, o.cached_tokens) for o in outcomes] == [(0.0, 0), (2.0, 8)]

    def test_the_first_to_enter_a_node_fills_it(self) -> None:
        nodes = [OracleNode(-1, 8), OracleNode(0, 16)]
        stages = [
            OracleStage(8, 9, 1),  # still decodes node 1 when the next one computes it
            OracleStage(17, 1, 1, arrival=2.0),
            OracleStage(17, 1, 1, arrival=3.0),
            OracleStage(17, 1, 1, arrival=20.0),
        ]
        assert [o.cached_tokens for o in run(self.CONFIG, stages, nodes)[0]] == [0, 8, 16, 16]

    def test_a_stage_goes_on_filling_what_it_found_in_part(self) -> None:
        # Stage 1 evicts two of the node's four blocks; stage 2 finds the other two, and completes the node.
        config = OracleConfig(UNIT, blocks=6, block_size=4)
        stages = [OracleStage(17, 1, 0), OracleStage(16, 1), OracleStage(17, 1, 0), OracleStage(17, 1, 0)]
        assert self.cached(config, stages, [OracleNode(-1, 16)]) == [0, 0, 8, 16]

    def test_least_recently_used_goes_first_and_the_last_block_before_the_first(self) -> None:
        config = OracleConfig(UNIT, blocks=6, block_size=4)
        x, y, z = (OracleStage(9, 1, node) for node in range(3))
        nodes = [OracleNode(-1, 8)] * 3
        assert self.cached(config, [x, y, x, z, x, y, z], nodes) == [0, 0, 8, 0, 8, 0, 0]
        # Two blocks: the anonymous one, and the last one of the node freed first.
        assert self.cached(config, [x, y, OracleStage(8, 1), x], nodes) == [0, 0, 0, 4]
        assert self.cached(config, [x, y, OracleStage(8, 1), y], nodes) == [0, 0, 0, 8]

    def test_a_preempted_stage_finds_its_own_blocks_again(self) -> None:
        # At 1 s stage 1 gives up two node blocks, of which stage 0 takes the last at once.
        config = OracleConfig(UNIT, blocks=4, block_size=4)
        outcomes, instance = run(config, [OracleStage(8, 2), OracleStage(8, 4, 0)], [OracleNode(-1, 8)])
        assert outcomes[1] == OracleOutcome(0.0, 1.0, 5.0, 0, 1)
        assert instance.steps[2].scheduled == ((1, 4, 5, False),)

    def test_a_node_kept_whole_can_block_its_own_reader(self) -> None:
        # Three blocks in all, all of them the node's. The reader may use two and needs a third that the node keeps.
        config = OracleConfig(UNIT, blocks=3, block_size=4)
        with pytest.raises(OracleStall, match="stage 1"):
            run(config, one_after_another([OracleStage(12, 1, 0)] * 2), [OracleNode(-1, 12)])


@settings(max_examples=60, deadline=None)
@given(prompt=st.integers(1, 300), output=st.integers(1, 60), budget=st.integers(1, 120))
def test_one_stage_alone_in_closed_form(prompt: int, output: int, budget: int) -> None:
    coef = coefficients(one=1.0, Q=2.0, A=4.0, S=8.0, B=16.0, C=32.0)
    config = OracleConfig(coef, blocks=30, max_num_batched_tokens=budget)
    (outcome,), _ = run(config, [OracleStage(prompt, output)])
    n = math.ceil(prompt / budget)
    first = n * (1 + 8) + 2 * prompt + 4 * prompt**2 / 2
    contexts = sum(range(prompt + 1, prompt + output))
    assert outcome.first_token == first
    assert outcome.finish == first + (output - 1) * (1 + 2 + 16) + 32 * contexts


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 20), seats=st.integers(1, 6), output=st.integers(1, 9))
def test_equal_stages_go_in_waves(count: int, seats: int, output: int) -> None:
    outcomes, _ = run(OracleConfig(UNIT, blocks=99, max_num_seqs=seats), [OracleStage(5, output)] * count)
    assert [o.finish for o in outcomes] == [(i // seats + 1) * output for i in range(count)]


def growing_contents(rng: np.random.Generator, count: int, spare: bool) -> tuple[list[OracleNode], list[OracleStage]]:
    """Stages over a random growing tree; the output of some is a node that later ones may quote.

    With ``spare`` no prompt ends within the blocks of a content known before, so that the rule that one token must be
    computed never leaves a part of a node unused.
    """
    nodes: list[OracleNode] = []
    stages: list[OracleStage] = []
    for _ in range(count):
        leaf = int(rng.integers(-1, len(nodes)))
        for _ in range(int(rng.integers(0, 3))):
            end = nodes[leaf].end_tokens if leaf >= 0 else 0
            if end < 120:
                nodes.append(OracleNode(leaf, end + int(rng.integers(1, 45))))
                leaf = len(nodes) - 1
        end = nodes[leaf].end_tokens if leaf >= 0 else 0
        prompt = max(end + int(rng.integers(1 if spare else 0, 20)), 1)
        output = int(rng.integers(1, 40))
        if rng.random() < 0.4 and prompt + output > end:
            nodes.append(
                OracleNode(
                    leaf, max(prompt, end + 1) + int(rng.integers(0, prompt + output - max(prompt, end + 1) + 1))
                )
            )
            leaf = len(nodes) - 1
        stages.append(OracleStage(prompt, output, leaf))
    return nodes, stages


def block_level_hits(cache: BlockLevelCache, nodes: Sequence[OracleNode], stages: Sequence[OracleStage]) -> list[int]:
    """Prefix tokens found by stages that run one after another, block by block."""
    hits: list[int] = []
    for index, stage in enumerate(stages):
        tokens: list[Hashable] = []
        path: list[int] = []
        node = stage.path_leaf
        while node >= 0:
            path.insert(0, node)
            node = nodes[node].parent
        for node in path:
            tokens += [("shared", node, position) for position in range(len(tokens), nodes[node].end_tokens)]
        tokens += [("own", index, position) for position in range(len(tokens), stage.prompt + stage.output)]
        table = cache.find(tokens[: stage.prompt])
        hits.append(len(table) * cache.block_size)
        cache.touch(table)
        for end in range(stage.prompt, stage.prompt + stage.output):
            cache.grow(table, tokens[:end])
        cache.check()
        cache.release(table)
        cache.check()
    return hits


@pytest.mark.parametrize("block_size", [4, 16])
@pytest.mark.parametrize("seed", range(12))
def test_nodes_find_what_blocks_find_under_eviction(seed: int, block_size: int) -> None:
    rng = np.random.default_rng([seed, block_size])
    nodes, stages = growing_contents(rng, 30, spare=True)
    largest = max(math.ceil((s.prompt + s.output - 1) / block_size) for s in stages)
    blocks = int(largest * rng.uniform(1.0, 4.0)) + 1
    config = OracleConfig(UNIT, blocks, block_size, max_num_batched_tokens=int(rng.integers(5, 200)))
    outcomes, _ = run(config, one_after_another(stages), nodes)
    found = [outcome.cached_tokens for outcome in outcomes]
    assert found == block_level_hits(BlockLevelCache(blocks, block_size), nodes, stages)
    unbounded = block_level_hits(BlockLevelCache(10_000, block_size), nodes, stages)
    assert any(unbounded)
    if blocks < 2 * largest:
        assert found != unbounded, "nothing was evicted"


@pytest.mark.parametrize("seed", range(6))
def test_nodes_find_what_blocks_find_without_eviction_whatever_the_prompts(seed: int) -> None:
    nodes, stages = growing_contents(np.random.default_rng(seed), 30, spare=False)
    outcomes, _ = run(OracleConfig(UNIT, 3000, 4), one_after_another(stages), nodes)
    hits = block_level_hits(BlockLevelCache(3000, 4), nodes, stages)
    assert [outcome.cached_tokens for outcome in outcomes] == hits


@pytest.mark.parametrize("scheduling", ["fcfs", "priority"])
@pytest.mark.parametrize("seed", range(8))
def test_a_crowd_under_pressure_keeps_every_invariant(seed: int, scheduling: str) -> None:
    rng = np.random.default_rng([seed, len(scheduling)])
    nodes, drafts = growing_contents(rng, 40, spare=True)
    stages = [
        replace(
            stage,
            priority=float(rng.integers(0, 4)),
            arrival=float(rng.integers(0, 60)),
            parents=tuple(sorted({int(p) for p in rng.integers(0, i, size=rng.integers(0, 3))})) if i else (),
            tool_delay=float(rng.choice([0.0, 0.0, 1.5])),
            instance=int(rng.integers(0, 2)),
        )
        for i, stage in enumerate(drafts)
    ]
    largest = max(s.prompt + s.output for s in stages)
    config = OracleConfig(UNIT, largest // 4 + 30, 4, 6, int(rng.integers(8, 100)), scheduling)
    outcomes, instances = simulate_oracle([config] * 2, nodes, stages)
    for stage, outcome in zip(stages, outcomes, strict=True):
        ready = max([stage.arrival] + [outcomes[p].finish for p in stage.parents]) + stage.tool_delay
        assert ready <= outcome.start < outcome.first_token <= outcome.finish
        assert outcome.cached_tokens < stage.prompt
        if outcome.preemptions == 0:
            assert outcome.finish - outcome.first_token >= stage.output - 1
    assert sum(o.preemptions for o in outcomes) == sum(len(s.preempted) for i in instances for s in i.steps)
    assert any(o.preemptions for o in outcomes) and any(o.cached_tokens for o in outcomes)
    # Without preemption every token but the last and the found ones is computed exactly once.
    roomy, instances = simulate_oracle([replace(config, blocks=9999)] * 2, nodes, stages)
    computed = sum(new for i in instances for step in i.steps for _, _, new, _ in step.scheduled)
    assert computed == sum(s.prompt + s.output - 1 - o.cached_tokens for s, o in zip(stages, roomy, strict=True))
