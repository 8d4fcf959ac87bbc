"""HexAGenT's view of the cluster, see hexagent.py: a copy to plan on, projected finishes, and horizons."""

# mypy: ignore-errors
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexopt.models.kernel import kernel
from hexopt.models.roofline import step_seconds
from hexopt.policies.knowledge import fastest_seconds
from hexopt.policies.steps import prefill_seconds, tokens_left
from hexopt.simulation.handover import blocks_expected
from hexopt.simulation.state import DECODE, NONE, PREFILL, Simulation

SORT_ABOVE = 0
REVEALED = 1
PROJECTED = 2
"""Places in ``Knowledge.weights``: longest queue that is planned greedily; whether H counts, or 1; whether Delta."""


class Planning(NamedTuple):
    """What the planner keeps between decisions, and its copy of the cluster; n stages, m instances."""

    held: NDArray[np.int32]
    """Stages that wait here, in the plan's order; as many as the clock's ``held``; shape (n,)."""
    place: NDArray[np.int32]
    """Planned instance of each stage, shape (n,)."""
    decoder: NDArray[np.int32]
    """Planned decode instance of each stage, shape (n,); NONE where it decodes where it prefills."""
    order: NDArray[np.int32]
    """The last plan, shape (n,)."""
    alone: NDArray[np.float64]
    """Seconds of each stage alone on its fastest instance, 0 until it was revealed; shape (n,)."""
    corrected: NDArray[np.int8]
    """Whether they are those of a stage that has ended; shape (n,)."""
    begin: NDArray[np.float64]
    """Scratch: when a stage would begin if its workflow ran alone, shape (n,)."""
    new: NDArray[np.float64]
    """Prompt tokens that a held stage would have to compute on each instance, shape (room, m)."""
    finish: NDArray[np.float64]
    """Seconds until a held stage ends at its candidate, shape (room,)."""
    candidate: NDArray[np.int32]
    """The candidate, shape (room,); NONE once the stage is planned."""
    partner: NDArray[np.int32]
    """The candidate's decode instance, or NONE, shape (room,)."""
    ratio: NDArray[np.float64]
    """R of a held stage, shape (room,)."""
    horizon: NDArray[np.float64]
    """H of a held stage's workflow, seconds, shape (room,)."""
    alone_here: NDArray[np.float64]
    """H of each workflow when a call of it was last revealed, seconds, shape (w,)."""
    bound: NDArray[np.int32]
    """Stages between the starts of prefill and decode: prefilling, their KV on its way, or waiting; shape (room,)."""
    bound_to: NDArray[np.int32]
    """Where each of these decodes, or its candidate; NONE once it is planned; shape (room,)."""
    bound_from: NDArray[np.int32]
    """The instance that prefills it, NONE where its KV has left, shape (room,)."""
    arrives: NDArray[np.float64]
    """Seconds until its KV is there, or until its first token where that has not left, shape (room,)."""
    urgency: NDArray[np.float64]
    """R of it, shape (room,)."""
    free_at: NDArray[np.float64]
    """Seconds until an instance has computed the prompts before, shape (m,)."""
    ends: NDArray[np.float64]
    """Seconds until each call there ends, shape (m, room)."""
    tokens: NDArray[np.float64]
    """Tokens that it has reserved, shape (m, room)."""
    there: NDArray[np.int32]
    """How many there are, shape (m,)."""
    blocks: NDArray[np.int64]
    seats: NDArray[np.int64]
    """Scratch: what an instance has left for calls that are sent, shape (m,)."""


@kernel
def horizon(sim, know, plan, w, now):
    """Makespan of what is revealed of workflow ``w`` if it ran alone."""
    workflow = sim.workflow[w]
    last = workflow.first_stage + workflow.stages
    longest = 0.0
    for k in range(workflow.first_stage, last):
        plan.begin[k] = 0.0
    for k in range(workflow.first_stage, last):
        stage = sim.stage[k]
        if not stage.ready <= now:
            continue
        ended = stage.finish <= now
        if plan.alone[k] == 0.0 or (ended and plan.corrected[k] == 0):
            output = float(stage.output) if ended else stage.expected_output
            plan.corrected[k] = 1 if ended else 0
            plan.alone[k] = fastest_seconds(
                know.coef, know.scale, sim.instance["role"], sim.instance["max_batched"],
                sim.link_latency, sim.link_seconds, stage.prompt, 0, output,
            )  # fmt: skip
        # Only a first call has nothing before it.
        begin = plan.begin[k] if plan.begin[k] > 0.0 else stage.tool_delay
        finish = begin + plan.alone[k]
        longest = max(longest, finish)
        for c in range(stage.first_child, stage.first_child + stage.children):
            child = sim.child[c]
            plan.begin[child] = max(plan.begin[child], finish + sim.stage[child].tool_delay)
    return longest


@kernel
def survey(sim, know, plan):
    """Copy the state of the instances: prompts ahead, and when the calls there end and give their tokens back.

    Of decode instances only what runs: what is to come there is planned first.
    """
    for i in range(sim.instance.shape[0]):
        inst = sim.instance[i]
        if inst.role == PREFILL:
            plan.there[i] = 0
            plan.free_at[i] = _prompts_ahead(sim, know, i)
            continue
        if inst.role == DECODE:
            _survey_decodes(sim, know, plan, i)
            continue
        ahead = 0.0
        running = 0.0
        context = 0.0
        calls = 0
        other = inst.first_here
        while other != NONE:
            there = sim.stage[other]
            if there.held > 0:
                running += 1.0
                context += there.prompt + there.generated
                ahead += max(there.prompt - there.computed, 0)
            else:
                ahead += there.expected_new
            calls += 1
            other = there.next_here
        plan.there[i] = calls
        plan.free_at[i] = know.scale[i] * prefill_seconds(know.coef[i], ahead, 0.0, inst.max_batched, running, context)
        step = know.scale[i] * step_seconds(know.coef[i], 0.0, 0.0, 0.0, 0.0, float(calls), context)
        other = inst.first_here
        for k in range(calls):
            there = sim.stage[other]
            left = tokens_left(there)
            begins = 0.0 if there.generated > 0 else plan.free_at[i]
            plan.ends[i, k] = begins + left * step
            plan.tokens[i, k] = there.prompt + there.generated + left
            other = there.next_here


@kernel
def _admission(inst, plan, i, enters, reserved):
    """When a call that is there in ``enters`` seconds and reserves so many tokens is admitted at instance ``i``.

    Returns
    -------
    enters, beside, taken
        Seconds from now; calls that are there then, and the tokens that they have reserved.
    """
    room = float(inst.blocks * inst.block_size)
    while True:
        beside = 0.0
        taken = 0.0
        next_end = math.inf
        for k in range(plan.there[i]):
            if plan.ends[i, k] > enters:
                beside += 1.0
                taken += plan.tokens[i, k]
                next_end = min(next_end, plan.ends[i, k])
        if beside == 0.0 or (taken + reserved <= room and beside < inst.max_seqs):
            return enters, beside, taken
        enters = next_end


@kernel
def project(sim, know, plan, stage, i, new):
    """When the call would enter instance ``i``, have its first token, and end; seconds from now, infinite if never."""
    inst = sim.instance[i]
    output = max(stage.expected_output, 1.0)
    reserved = stage.prompt + output
    if stage.prompt + stage.output > inst.max_len:
        return math.inf, math.inf, math.inf
    enters, beside, taken = _admission(inst, plan, i, plan.free_at[i], reserved)
    coef = know.coef[i]
    prefill = prefill_seconds(coef, new, stage.prompt - new, inst.max_batched, beside, taken)
    step = step_seconds(coef, 0.0, 0.0, 0.0, 0.0, beside + 1.0, taken + stage.prompt + output / 2.0)
    first = enters + prefill * know.scale[i]
    return enters, first, first + (output - 1.0) * step * know.scale[i]


@kernel
def _prompts_ahead(sim, know, i):
    """Seconds until prefill instance ``i`` has computed the prompts that it has."""
    return know.scale[i] * prefill_seconds(
        know.coef[i], tokens_ahead(sim, i), 0.0, float(sim.instance[i].max_batched), 0.0, 0.0
    )


@kernel
def tokens_ahead(sim, i):
    """Prompt tokens that instance ``i`` has yet to compute."""
    ahead = 0.0
    other = sim.instance[i].first_here
    while other != NONE:
        there = sim.stage[other]
        ahead += max(there.prompt - there.computed, 0) if there.held > 0 else there.expected_new
        other = there.next_here
    return ahead


@kernel
def _survey_decodes(sim, know, plan, d):
    inst = sim.instance[d]
    plan.free_at[d] = 0.0
    context = 0.0
    for k in range(inst.running):
        there = sim.stage[sim.running[d, k]]
        context += there.prompt + there.generated
    step = know.scale[d] * step_seconds(know.coef[d], 0.0, 0.0, 0.0, 0.0, float(inst.running), context)
    plan.there[d] = inst.running
    for k in range(inst.running):
        there = sim.stage[sim.running[d, k]]
        plan.ends[d, k] = tokens_left(there) * step
        plan.tokens[d, k] = there.reserved * inst.block_size


@kernel
def enter_decode(sim, know, plan, stage, d, arrives):
    """When a call whose KV arrives in ``arrives`` seconds is admitted at decode instance ``d``, and ends there.

    Seconds from now, infinite if never.
    """
    inst = sim.instance[d]
    if stage.prompt + stage.output > inst.max_len:
        return math.inf, math.inf
    reserved = reserved_tokens(sim, stage, d)
    enters, beside, taken = _admission(inst, plan, d, arrives, reserved)
    coef = know.coef[d]
    left = tokens_left(stage) if stage.generated > 0 else max(stage.expected_output, 1.0) - 1.0
    size = stage.prompt + stage.generated
    again = 0.0
    if stage.generated > 0 and stage.brought == 0 and stage.instance == d:
        # It was preempted, and computes anew what it had.
        again = prefill_seconds(coef, float(size), 0.0, float(inst.max_batched), beside, taken)
    step = step_seconds(coef, 0.0, 0.0, 0.0, 0.0, beside + 1.0, taken + size + left / 2.0)
    return enters, enters + (again + left * step) * know.scale[d]


@kernel
def prefilled(sim, know, plan, stage, i, new):
    """Seconds until a call has its first token at prefill instance ``i``, of whose prompt ``new`` tokens are new."""
    budget = float(sim.instance[i].max_batched)
    own = prefill_seconds(know.coef[i], new, stage.prompt - new, budget, 0.0, 0.0)
    return plan.free_at[i] + own * know.scale[i]


@kernel
def travel_seconds(sim, stage, p, d):
    """Seconds that the KV of a call's prompt takes from instance ``p`` to instance ``d``."""
    return sim.link_latency[p, d] + stage.prompt * sim.link_seconds[p, d]


@kernel
def put(plan, i, finish, tokens):
    """Put a call into the copy of instance ``i`` that holds ``tokens`` and ends in ``finish`` seconds."""
    k = plan.there[i]
    plan.ends[i, k] = finish
    plan.tokens[i, k] = tokens
    plan.there[i] = k + 1


@kernel
def reserved_tokens(sim, stage, d):
    """Tokens for which decode instance ``d`` reserves blocks, should the call come there."""
    block = sim.instance[d].block_size
    return float(blocks_expected(stage, block) * block)


def new_planning(board: Simulation, room: int, old: Planning | None = None) -> Planning:
    """Planning for up to ``room`` calls that are held or at an instance; what is held stays held."""
    stages, instances = board.stage.shape[0], board.instance.shape[0]
    return Planning(
        held=np.zeros(stages, dtype=np.int32) if old is None else old.held,
        place=np.full(stages, NONE, dtype=np.int32) if old is None else old.place,
        decoder=np.full(stages, NONE, dtype=np.int32) if old is None else old.decoder,
        order=np.zeros(stages, dtype=np.int32) if old is None else old.order,
        alone=np.zeros(stages) if old is None else old.alone,
        corrected=np.zeros(stages, dtype=np.int8) if old is None else old.corrected,
        begin=np.zeros(stages) if old is None else old.begin,
        new=np.zeros((room, instances)),
        finish=np.zeros(room),
        candidate=np.zeros(room, dtype=np.int32),
        partner=np.zeros(room, dtype=np.int32),
        ratio=np.zeros(room),
        horizon=np.zeros(room),
        alone_here=np.ones(board.workflow.shape[0]) if old is None else old.alone_here,
        bound=np.zeros(room, dtype=np.int32),
        bound_to=np.zeros(room, dtype=np.int32),
        bound_from=np.zeros(room, dtype=np.int32),
        arrives=np.zeros(room),
        urgency=np.zeros(room),
        free_at=np.zeros(instances),
        ends=np.zeros((instances, room)),
        tokens=np.zeros((instances, room)),
        there=np.zeros(instances, dtype=np.int32),
        blocks=np.zeros(instances, dtype=np.int64),
        seats=np.zeros(instances, dtype=np.int64),
    )
