"""Jumps that end sooner than they were to, and what they have taken by then."""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.models.roofline import decode_run_seconds, decode_steps_within
from hexopt.simulation.state import NONE


@kernel
def blocks_for(tokens, block):
    """Blocks that ``tokens`` tokens fill or begin."""
    return (tokens + block - 1) // block


@kernel
def cut_jump(sim, i, now, least=1):
    """End the jump of instance ``i``, if any, at the first step boundary at or after ``now`` and ``least`` steps."""
    inst = sim.instance[i]
    if inst.busy == 1 and inst.jump > 1:
        elapsed = now - inst.step_start
        steps = decode_steps_within(sim.coef[i], inst.decodes, inst.decode_context, elapsed, inst.jump)
        steps = max(steps, least)
        if steps < inst.jump:
            inst.jump = steps
            inst.next_event = inst.step_start + decode_run_seconds(
                sim.coef[i], inst.decodes, inst.decode_context, steps
            )


@kernel
def growth(sim, i, steps):
    """Blocks that the calls of instance ``i`` take in ``steps`` steps of its jump, but for the first one's."""
    inst = sim.instance[i]
    blocks = 0
    if inst.busy == 1 and inst.jump > 1:
        for k in range(inst.running):
            stage = sim.stage[sim.running[i, k]]
            blocks += blocks_for(stage.computed + steps, inst.block_size) - stage.held
    return blocks


@kernel
def freed(sim, i, now):
    """Blocks of instance ``i`` have become free at ``now``, which may let the first waiting call in."""
    inst = sim.instance[i]
    inst.touched = 1
    if inst.waiting_root != NONE and inst.running + inst.loading < inst.max_seqs:
        cut_jump(sim, i, now)
