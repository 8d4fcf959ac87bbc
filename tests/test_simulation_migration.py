"""Closed forms of a call that moves while it runs: it stands still as long, whatever its length."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import types
from random_workload import small_cluster

from hexopt.models.kernel import kernel
from hexopt.policies.linking import address_of
from hexopt.policies.policy import Policy
from hexopt.simulation.experiment import Experiment
from hexopt.simulation.loop import PAUSED
from hexopt.simulation.migration import DOWNTIME, begin_move, may_move
from hexopt.simulation.simulator import advance, build, fleet_of, instance_table
from hexopt.traces import Stage, Workflow

BLOCK_SECONDS = 8 * 2**20 / 15e9
"""LLaMA-7B's block of 16 tokens, 8 MiB, at the 15 GB/s of Llumnix's artefact."""


@kernel
def move_first(sim, know, now):
    """Stage 0 sets out for instance 1 at the second in ``memory``."""
    clock = sim.clock[0]
    if now < know.memory[0]:
        clock.tick = know.memory[0]
    else:
        clock.tick = math.inf
        if may_move(sim, 0, 1):
            begin_move(sim, 0, 1, now)
    return sim.instance.shape[0]


class Moves(Policy):
    """All calls to instance 0; the first one moves at a time."""

    def __init__(self, at: float) -> None:
        object.__setattr__(self, "at", at)

    def memory(self, fleet):
        return np.array([self.at])

    def linked(self, board, know):
        return 0, 0, 0, address_of(move_first, board, know, types.float64)

    def place(self, board, know, r, now):
        return 0, 0.0


def moving(prompt: int, output: int, at: float = 1.0, block_seconds: float = BLOCK_SECONDS, until: float = math.inf):
    """The state after a call of these tokens, alone on one of two H100s, was told to move at second ``at``."""
    cluster = small_cluster(kv_tokens=20_000, max_num_seqs=64, max_num_batched_tokens=8192)
    cluster = type(cluster)("two", cluster.instances[1:3])
    experiment = Experiment.of([Workflow("w", (Stage("0", "k", prompt, output),))], cluster)
    jobs = experiment.workload.draw(np.zeros(1, np.int64), np.zeros(1), experiment.deadline[:1])
    fleet, policy = fleet_of(cluster), Moves(at)
    links = np.zeros((2, 2)), np.full((2, 2), block_seconds / 16)
    sim = build(jobs, instance_table(cluster, False), fleet.coef, links)
    reason = advance(sim, policy.prepare(fleet, experiment.training, 1), policy, until)
    return sim, reason


@pytest.mark.parametrize("prompt", [300, 3000, 12_000])
def test_a_call_stands_still_for_the_same_time_whatever_its_length(prompt):
    stays, _ = moving(prompt, 400, at=1e9)
    moved, _ = moving(prompt, 400, at=2.0)
    stage = moved.stage[0]
    assert stage["migrations"] == 1 and stage["instance"] == 1 and stage["preemptions"] == 0
    # The last copy is of one block at most: 20 to 30 ms in all.
    assert DOWNTIME < stage["moved_seconds"] <= DOWNTIME + BLOCK_SECONDS
    assert stage["finish"] == pytest.approx(stays.stage[0]["finish"] + stage["moved_seconds"], rel=1e-9)
    assert (moved.instance["free"] == moved.instance["blocks"]).all()


def test_the_first_stage_copies_all_that_there_is_and_blocks_are_allocated_before():
    sim, reason = moving(470, 400, at=0.0, until=1.0, block_seconds=100.0)
    # Told before it ran, it did not go.
    assert reason == PAUSED and sim.stage[0]["copies"] == 0
    sim, _ = moving(3000, 400, at=2.0, until=2.2, block_seconds=100.0)
    stage, to = sim.stage[0], sim.instance[1]
    assert stage["copies"] == 1 and stage["allocated"] == -(-stage["copied"] // 16)
    assert to["free"] == to["blocks"] - stage["allocated"]
    begun = stage["copy_end"] - stage["copied"] * 100.0 / 16
    assert 2.0 <= begun < 2.1


def test_thirty_blocks_of_a_small_model_take_seventeen_milliseconds():
    assert pytest.approx(16.78e-3, rel=1e-3) == 30 * BLOCK_SECONDS


def test_the_third_stage_is_the_last_however_much_is_left():
    seconds = 16 * 0.01
    moved, _ = moving(200, 2000, at=1.0, block_seconds=seconds)
    stage = moved.stage[0]
    # Each stage copies what was computed during the one before, at 10 ms a token: far more than a block.
    assert stage["migrations"] == 1 and stage["moved_seconds"] > DOWNTIME + seconds


def test_a_move_is_given_up_when_the_call_ends_before_it_is_over():
    moved, _ = moving(200, 40, at=0.2, block_seconds=10.0)
    assert moved.stage[0]["migrations"] == 0 and moved.stage[0]["instance"] == 0
    assert (moved.instance["free"] == moved.instance["blocks"]).all() and (moved.instance["moving"] == 0).all()
