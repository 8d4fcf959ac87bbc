"""A running call moves to another instance while it goes on decoding, as in Llumnix (arXiv 2406.03243, section 4.2).

Its KV is copied in stages: the first copies what there is, each further one what was computed in the one before. The
last, which begins with at most one block to copy or as the third, pauses the call. The destination allocates before
each stage; the move is given up where it cannot, where it is no longer open, or where the call ends or is preempted.

The rule: docs/simulated-instance.md.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.models.roofline import decode_steps_within
from hexopt.simulation.hostmemory import leave
from hexopt.simulation.jump import blocks_for, cut_jump, freed, growth
from hexopt.simulation.kvcache import give_back, release, take_blocks
from hexopt.simulation.queues import enter, push_delayed
from hexopt.simulation.state import MIXED, NONE, OPEN, TRANSIT

DOWNTIME = 0.025
"""Seconds that the last stage takes beside its copy: 20 to 30 ms are measured there (section 6.2)."""
MOST_STAGES = 3
"""As in its published code."""


@kernel
def may_move(sim, r, d):
    """Whether the running call ``r`` may set out for instance ``d``: both prefill and decode, one move at a time."""
    stage = sim.stage[r]
    source = sim.instance[stage.instance]
    to = sim.instance[d]
    if d == stage.instance or source.moving > 0 or source.role != MIXED or to.role != MIXED or to.state != OPEN:
        return False
    return stage.generated > 0 and stage.prompt + stage.output <= to.max_len


@kernel
def begin_move(sim, r, d, now):
    """Let the running call ``r`` set out for instance ``d`` at its next step boundary."""
    stage = sim.stage[r]
    inst = sim.instance[stage.instance]
    inst.moving = r + 1
    inst.touched = 1
    stage.bound = d
    cut_jump(sim, stage.instance, now)


@kernel
def give_up_move(sim, i, now):
    """End the move from instance ``i``: the call stays, the destination gets its blocks back."""
    inst = sim.instance[i]
    stage = sim.stage[inst.moving - 1]
    inst.moving = 0
    give_back(sim, stage.bound, stage.allocated)
    freed(sim, stage.bound, now)
    stage.allocated = 0
    stage.copies = 0
    stage.copied = 0


@kernel
def free_at(sim, i, now):
    """Free blocks of instance ``i`` at ``now``, those of its present step taken."""
    inst = sim.instance[i]
    if inst.busy == 0 or inst.jump <= 1:
        return inst.free
    elapsed = now - inst.step_start
    steps = decode_steps_within(sim.coef[i], inst.decodes, inst.decode_context, elapsed, inst.jump)
    return inst.free - growth(sim, i, steps)


@kernel
def go_on(sim, i, now):
    """At a step boundary of instance ``i``, whose call moves: begin the next stage if the last one is over."""
    inst = sim.instance[i]
    r = inst.moving - 1
    stage = sim.stage[r]
    if stage.copies > 0 and now < stage.copy_end:
        return
    d = stage.bound
    to = sim.instance[d]
    if to.state != OPEN:
        give_up_move(sim, i, now)
        return
    rest = stage.computed - stage.copied
    more = blocks_for(stage.computed, to.block_size) - stage.allocated
    # A jump of the destination has reckoned with the blocks that go now.
    cut_jump(sim, d, now)
    if more > free_at(sim, d, now):
        give_up_move(sim, i, now)
        return
    take_blocks(sim, d, more)
    stage.allocated += more
    stage.copies += 1
    stage.copied = stage.computed
    seconds = sim.link_latency[i, d] + rest * sim.link_seconds[i, d]
    if rest > inst.block_size and stage.copies < MOST_STAGES:
        stage.copy_end = now + seconds
        return
    inst.moving = 0
    kept = 0
    for k in range(inst.running):
        if sim.running[i, k] != r:
            sim.running[i, kept] = sim.running[i, k]
            kept += 1
    inst.running = kept
    leave(sim, i, r)
    stage.moved_seconds += DOWNTIME + seconds
    push_delayed(sim, r, TRANSIT, now + DOWNTIME + seconds)


@kernel
def land(sim, r, now):
    """The moved call ``r`` is at its destination: it runs there as soon as there is a seat."""
    stage = sim.stage[r]
    release(sim, stage.instance, r)
    freed(sim, stage.instance, now)
    i = stage.bound
    inst = sim.instance[i]
    stage.held = stage.allocated
    stage.allocated = 0
    stage.copies = 0
    stage.copied = 0
    stage.migrations += 1
    # Its blocks are private: what has come along cannot be found by others.
    stage.diverged = 1
    enter(sim, i, r)
    stage.right = NONE
    if inst.joining == 0:
        inst.first_joining = r
    else:
        sim.stage[inst.last_joining].right = r
    inst.last_joining = r
    inst.joining += 1
    inst.touched = 1
    if inst.running + inst.loading < inst.max_seqs:
        cut_jump(sim, i, now)


@kernel
def seat(sim, i):
    """Let calls that have moved to instance ``i`` run, the first that came first, while there are seats."""
    inst = sim.instance[i]
    while inst.joining > 0 and inst.running + inst.loading < inst.max_seqs:
        r = inst.first_joining
        inst.first_joining = sim.stage[r].right
        inst.joining -= 1
        sim.running[i, inst.running] = r
        inst.running += 1


@kernel
def steps_until_copied(sim, i, steps):
    """Decode steps, of at most ``steps``, after which the copy from instance ``i`` is over."""
    inst = sim.instance[i]
    left = sim.stage[inst.moving - 1].copy_end - inst.step_start
    return decode_steps_within(sim.coef[i], inst.decodes, inst.decode_context, left, steps)


@kernel
def strand_moves(sim, d):
    """Instance ``d`` has lost its memory: no call is under way to it any more; those that are copied stay."""
    for i in range(sim.instance.shape[0]):
        inst = sim.instance[i]
        if inst.moving > 0 and sim.stage[inst.moving - 1].bound == d:
            stage = sim.stage[inst.moving - 1]
            inst.moving = 0
            stage.allocated = 0
            stage.copies = 0
            stage.copied = 0
