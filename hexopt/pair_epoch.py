"""From the board to arrays: the pair problem of a cluster whose instances either prefill or decode.

In the problem are all calls that do not decode yet: those that the scheduler holds, those at a prefill instance (their
prefill is settled, where they decode is not), those whose KV is on its way or waits (bound to a decode instance; only
their order is open). Tokens are counted in blocks, as the decode instances reserve them.
"""

# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hexopt.models.kernel import kernel
from hexopt.models.roofline import step_seconds
from hexopt.objective import Objective
from hexopt.policies.greedy_urgency import appraise, prefill_seconds, tokens_left
from hexopt.policies.knowledge import Knowledge, believe
from hexopt.simulation.handover import blocks_expected
from hexopt.simulation.kvcache import found_blocks
from hexopt.simulation.state import DECODE, DOWN, NONE, OPEN, PREFILL, Simulation
from hexopt.solvers.pairs import PairProblem

_LEAST_SECONDS = 1e-6
"""Predicted times are at least this: the pair problem wants positive ones."""


@dataclass(frozen=True)
class PairEpoch:
    """A pair problem and what its numbers stand for.

    Parameters
    ----------
    problem
        Call k of it is ``stages[k]`` of the board.
    stages
        Stage indices, shape (n,).
    prefills, decodes
        The board's instances of either role that are not down, shapes (p,) and (d,).
    new
        Prompt tokens that each call would have to compute, shape (n, p).
    """

    problem: PairProblem
    stages: NDArray[np.int64]
    prefills: NDArray[np.int64]
    decodes: NDArray[np.int64]
    new: NDArray[np.float64]


def only_roles(board: Simulation) -> bool:
    """Whether all instances either prefill or decode, and there are both."""
    role = board.instance["role"]
    return bool((role == PREFILL).any() and (role == DECODE).any() and np.isin(role, (PREFILL, DECODE)).all())


def open_in_both(board: Simulation) -> bool:
    """Whether an instance of either role takes new calls."""
    role = board.instance["role"][board.instance["state"] == OPEN]
    return bool((role == PREFILL).any() and (role == DECODE).any())


def build_pairs(
    board: Simulation, know: Knowledge, now: float, objective: Objective, held: Sequence[int], sent: Sequence[int]
) -> PairEpoch:
    """The problem at ``now``.

    Parameters
    ----------
    held
        Stages that the scheduler has.
    sent
        Stages at a prefill instance, on their way, or waiting at a decode instance.
    """
    stages = np.array([*held, *sent], dtype=np.int64)
    instance = board.instance
    there = instance["state"] != DOWN
    prefills, decodes = (np.flatnonzero((instance["role"] == role) & there) for role in (PREFILL, DECODE))
    n, p, d = len(stages), len(prefills), len(decodes)
    prefill, new, transfer = np.full((n, p), np.inf), np.zeros((n, p)), np.full((n, p, d), np.inf)
    decode, imposed, kv_ready = np.full((n, d), np.inf), np.zeros((n, d)), np.full((n, d), np.inf)
    free, kv, bound = np.zeros(p), np.zeros(n, dtype=np.int64), np.full(n, NONE)
    busy = int(instance["running"][decodes].sum())
    where, until, reserved = np.zeros(busy, dtype=np.int64), np.zeros(busy), np.zeros(busy, dtype=np.int64)
    _appraise_all(board, know, stages, len(held), now)
    _prefill_side(board, know, stages, len(held), prefills, decodes, now, prefill, new, transfer, free, kv_ready)
    _decode_side(board, know, stages, len(held), decodes, now, decode, imposed, kv_ready, bound, kv)
    _decoding(board, know, decodes, where, until, reserved)
    rows = board.stage[stages]
    workflows, workflow = np.unique(rows["workflow"], return_inverse=True)
    flows = board.workflow[workflows]
    urgency = np.zeros(len(workflows))
    np.maximum.at(urgency, workflow, rows["urgency"])
    problem = PairProblem(
        prefill=prefill,
        decode=decode,
        transfer=transfer,
        tail=rows["tail"],
        workflow=workflow,
        due=flows["deadline"] - now,
        weight=flows["weight"] * urgency,
        kv=kv,
        kv_capacity=instance["blocks"][decodes],
        prefill_free=free,
        busy_instance=where,
        busy_until=until,
        busy_kv=reserved,
        seats=instance["max_seqs"][decodes],
        kv_ready=kv_ready,
        bound=bound,
        hold=_nowhere(prefill, decode, kv, kv_ready, bound, instance["blocks"][decodes]),
        imposed=imposed,
        weights=objective.weights,
    )
    return PairEpoch(problem, stages, prefills, decodes, new)


def _nowhere(prefill, decode, kv, kv_ready, bound, blocks):
    """When a call would end if it were held: at the end of all times where it fits nowhere, else it must not be."""
    at = np.arange(len(blocks))
    fits = np.isfinite(decode) & (kv[:, None] <= blocks) & ((bound[:, None] == NONE) | (bound[:, None] == at))
    arrives = np.isfinite(kv_ready)
    settled = arrives.any(axis=1)
    can = (fits & (arrives | ~settled[:, None])).any(axis=1) & (settled | np.isfinite(prefill).any(axis=1))
    return np.where(can, np.inf, 1e4)


@kernel
def _appraise_all(sim, know, stages, held, now):
    """Write tails and urgencies; what waits in an instance's queue keeps its place."""
    for k in range(stages.shape[0]):
        stage = sim.stage[stages[k]]
        if k < held:
            believe(sim, know, stages[k])
        priority = stage.priority
        appraise(sim, know, stages[k], now, stage.tail)
        if k >= held:
            stage.priority = priority


@kernel
def _ahead(sim, know, i, now):
    """Seconds until instance ``i`` is done with the prompts that run, and with those that wait, too."""
    inst = sim.instance[i]
    running = 0.0
    waiting = 0.0
    other = inst.first_here
    while other != NONE:
        there = sim.stage[other]
        if there.held > 0:
            running += max(there.prompt - there.computed, 0)
        else:
            waiting += there.expected_new
        other = there.next_here
    seconds = prefill_seconds(know.coef[i], running, 0.0, inst.max_batched, 0.0, 0.0) * know.scale[i]
    if inst.busy == 1:
        seconds = max(seconds - (now - inst.step_start), 0.0)
    both = seconds + prefill_seconds(know.coef[i], waiting, 0.0, inst.max_batched, 0.0, 0.0) * know.scale[i]
    return seconds, both


@kernel
def _prefill_side(sim, know, stages, held, prefills, decodes, now, prefill, new, transfer, free, kv_ready):
    for a in range(prefills.shape[0]):
        i = prefills[a]
        inst = sim.instance[i]
        soon, free[a] = _ahead(sim, know, i, now)
        for k in range(stages.shape[0]):
            r = stages[k]
            stage = sim.stage[r]
            if k >= held:
                if stage.instance == i and np.isnan(stage.handed):
                    done = soon if stage.held > 0 else free[a]
                    for b in range(decodes.shape[0]):
                        j = decodes[b]
                        kv_ready[k, b] = done + sim.link_latency[i, j] + stage.prompt * sim.link_seconds[i, j]
                continue
            if inst.state != OPEN or stage.prompt >= inst.max_len:
                continue
            found = 0
            if inst.prefix_caching == 1:
                blocks, _ = found_blocks(sim, i, stage.leaf, (stage.prompt - 1) // inst.block_size)
                found = blocks * inst.block_size
            new[k, a] = float(stage.prompt - found)
            seconds = prefill_seconds(know.coef[i], new[k, a], float(found), inst.max_batched, 0.0, 0.0)
            prefill[k, a] = max(seconds * know.scale[i], _LEAST_SECONDS)
            for b in range(decodes.shape[0]):
                j = decodes[b]
                transfer[k, a, b] = sim.link_latency[i, j] + stage.prompt * sim.link_seconds[i, j]


@kernel
def _decode_side(sim, know, stages, held, decodes, now, decode, imposed, kv_ready, bound, kv):
    for k in range(stages.shape[0]):
        stage = sim.stage[stages[k]]
        kv[k] = 0
        for b in range(decodes.shape[0]):
            j = decodes[b]
            inst = sim.instance[j]
            kv[k] = max(kv[k], blocks_expected(stage, inst.block_size))
            handed = k >= held and not np.isnan(stage.handed)
            if handed:
                if stage.bound != j:
                    continue
                bound[k] = b
                kv_ready[k, b] = 0.0 if stage.instance == j else max(stage.timer - now, 0.0)
            if stage.prompt + stage.output > inst.max_len or (inst.state != OPEN and not handed):
                continue
            decode[k, b], imposed[k, b] = _decoded_there(sim, know, j, stage)


@kernel
def _decoded_there(sim, know, j, stage):
    """Seconds of the decode in the company that is there, and by how much it delays that, weighted by urgency."""
    inst = sim.instance[j]
    output = max(stage.expected_output - stage.generated, 1.0)
    overlap = 0.0
    overlap_context = 0.0
    weighted = 0.0
    other = inst.first_here
    while other != NONE:
        there = sim.stage[other]
        if there.held > 0:
            both = min(tokens_left(there), output)
            overlap += both
            weighted += both * there.urgency
            overlap_context += both * (there.prompt + there.generated + both / 2.0)
        other = there.next_here
    company = overlap / output
    context = overlap_context / output
    own = stage.prompt + stage.generated + output / 2.0
    with_it = step_seconds(know.coef[j], 0.0, 0.0, 0.0, 0.0, company + 1.0, context + own)
    slower = 0.0
    if company > 0.0:
        slower = max(with_it - step_seconds(know.coef[j], 0.0, 0.0, 0.0, 0.0, company, context), 0.0)
    return max(output * with_it * know.scale[j], _LEAST_SECONDS), weighted * slower * know.scale[j]


@kernel
def _decoding(sim, know, decodes, where, until, reserved):
    """Write the calls that decode: where, until when in today's company, how many blocks they have reserved."""
    k = 0
    for b in range(decodes.shape[0]):
        inst = sim.instance[decodes[b]]
        calls = 0.0
        context = 0.0
        other = inst.first_here
        while other != NONE:
            there = sim.stage[other]
            if there.held > 0:
                calls += 1.0
                context += there.prompt + there.generated
            other = there.next_here
        step = step_seconds(know.coef[decodes[b]], 0.0, 0.0, 0.0, 0.0, calls, context) * know.scale[decodes[b]]
        other = inst.first_here
        while other != NONE:
            there = sim.stage[other]
            if there.held > 0:
                where[k] = b
                until[k] = tokens_left(there) * step
                reserved[k] = there.reserved
                k += 1
            other = there.next_here
