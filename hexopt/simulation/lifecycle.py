"""What becomes of an instance and its calls when it opens, drains or goes down.

The rule: docs/simulated-instance.md.
"""

# mypy: ignore-errors
from __future__ import annotations

import math

from hexopt.models.kernel import kernel
from hexopt.simulation.jump import freed
from hexopt.simulation.keeping import lose_kept
from hexopt.simulation.kvcache import clear, give_back, release
from hexopt.simulation.migration import give_up_move, strand_moves
from hexopt.simulation.queues import push_delayed, push_ready
from hexopt.simulation.state import DECODE, DOWN, LOADING, NONE, TOOLS, TRANSIT


@kernel
def change_state(sim, i, state, now):
    """Instance ``i`` is OPEN, DRAINING or DOWN from second ``now`` on."""
    inst = sim.instance[i]
    before = inst.state
    inst.state = state
    inst.touched = 1
    if state == DOWN and before != DOWN:
        inst.down_since = now
        _fail(sim, i, now)
    elif state != DOWN and before == DOWN:
        inst.down_seconds += now - inst.down_since
        _turn_away(sim, i)
        for j in range(sim.instance.shape[0]):
            if sim.instance[j].state == DOWN:
                _turn_away(sim, j)


@kernel
def _begin_anew(sim, r):
    """Stage ``r`` has lost all that it had; it is ready at once."""
    stage = sim.stage[r]
    stage.instance = NONE
    stage.decode_at = NONE
    stage.prefill_instance = NONE
    stage.node = NONE
    stage.computed = 0
    stage.generated = 0
    stage.held = 0
    stage.credited = 0
    stage.scheduled = 0
    stage.brought = 0
    stage.on_host = 0
    stage.copies = 0
    stage.copied = 0
    stage.allocated = 0
    stage.reserved = 0
    stage.cached = 0
    stage.start = math.nan
    stage.first_token = math.nan
    stage.handed = math.nan
    push_ready(sim, r)


@kernel
def _turn_away(sim, i):
    """Place all calls of instance ``i`` anew; none of them runs."""
    inst = sim.instance[i]
    r = inst.first_here
    while r != NONE:
        after = sim.stage[r].next_here
        if inst.role == DECODE:
            inst.promised -= sim.stage[r].reserved
        _begin_anew(sim, r)
        r = after
    inst.first_here = NONE
    inst.waiting_root = NONE
    inst.waiting = 0


@kernel
def _fail(sim, i, now):
    """Lose memory and calls of instance ``i``: those that run or wait there, or are on their way from or to it."""
    inst = sim.instance[i]
    if inst.busy == 1:
        inst.busy_seconds += now - inst.step_start
        inst.block_seconds += (now - inst.step_start) * (inst.blocks - inst.free)
        inst.busy = 0
        inst.next_event = math.inf
    if inst.moving > 0:
        give_up_move(sim, i, now)
    strand_moves(sim, i)
    r = inst.first_pinned
    for _ in range(inst.pinned):
        sim.stage[r].node = NONE
        r = sim.stage[r].next_here
    r = inst.first_here
    while r != NONE:
        sim.stage[r].lost += 1
        inst.lost += 1
        r = sim.stage[r].next_here
    _turn_away(sim, i)
    _lose_in_transit(sim, i, now)
    inst.running = 0
    inst.joining = 0
    inst.pinned = 0
    inst.promised = 0
    inst.reserved = 0
    if inst.host_keep == 1:
        lose_kept(sim, i)
    inst.host_used = 0
    inst.loading = 0
    inst.stall = 0.0
    inst.link_free = 0.0
    inst.since_check = inst.check_every
    inst.since_redraw = 0
    clear(sim, i)


@kernel
def _lose_in_transit(sim, i, now):
    clock = sim.clock[0]
    timers = clock.delayed
    clock.delayed = 0
    # Those that stay are pushed again, behind the place that is read.
    for k in range(timers):
        r = sim.delayed[k]
        stage = sim.stage[r]
        if stage.errand == LOADING and stage.instance == NONE:
            stage.errand = TOOLS
            continue
        if stage.errand != TRANSIT or (stage.instance != i and stage.bound != i):
            push_delayed(sim, r, stage.errand, stage.timer)
            continue
        stage.lost += 1
        sim.instance[i].lost += 1
        if stage.bound == i:
            release(sim, stage.instance, r)
            freed(sim, stage.instance, now)
        elif stage.allocated > 0:
            give_back(sim, stage.bound, stage.allocated)
            freed(sim, stage.bound, now)
        else:
            sim.instance[stage.bound].promised -= stage.reserved
        _begin_anew(sim, r)
