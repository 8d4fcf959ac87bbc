"""One vLLM V1 instance: schedule a step, jump over the steps that are alike, apply them.

The rule is docs/simulated-instance.md; names follow it.
"""

# mypy: ignore-errors
from __future__ import annotations

import math

from hexopt.models.kernel import kernel
from hexopt.models.roofline import decode_run_seconds, step_seconds
from hexopt.simulation.admission import admits, look, observe
from hexopt.simulation.fairness import redraw
from hexopt.simulation.hostmemory import fetch, fetched, forget_copy, leave, swap_out
from hexopt.simulation.jump import blocks_for, cut_jump
from hexopt.simulation.keeping import reloaded_blocks
from hexopt.simulation.kvcache import admit, credit, found_blocks, release, take_blocks
from hexopt.simulation.migration import give_up_move, go_on, seat, steps_until_copied
from hexopt.simulation.pinning import unpin_latest, unpin_workflow
from hexopt.simulation.queues import enter, pop_waiting, push_waiting
from hexopt.simulation.state import DECODE, DOWN, FITS, NONE, PAST_FUTURE, PREFILL, TOOLS

FOREVER = math.inf
PREEMPTED = -2e9
"""Added to a workflow's arrival where calls that were preempted go first: earlier than any other priority in use."""


@kernel
def _decodes(stage):
    return stage.generated > 0 and stage.computed == stage.prompt + stage.generated - 1


@kernel
def arrive(sim, i, r, now):
    """Queue stage ``r`` at instance ``i``; cut a jump short where the newcomer could be admitted."""
    inst = sim.instance[i]
    enter(sim, i, r)
    push_waiting(sim, i, r)
    inst.touched = 1
    if inst.waiting_root == r and inst.running + inst.loading < inst.max_seqs:
        # No earlier than the rule looks again.
        cut_jump(sim, i, now, 1 if inst.admission == FITS else inst.check_every - inst.since_check)


@kernel
def joins(sim, i, r, now):
    """The KV of stage ``r`` is back from host memory: it runs from the next step on."""
    inst = sim.instance[i]
    stage = sim.stage[r]
    stage.errand = TOOLS
    stage.scheduled = 0
    if inst.host_reuse == 0:
        forget_copy(sim, i, r)
    inst.loading -= 1
    sim.running[i, inst.running] = r
    inst.running += 1
    inst.touched = 1
    cut_jump(sim, i, now)


@kernel
def _preempt(sim, i, position):
    """Take the running stage at ``position`` out, by recompute or into host memory; it waits again."""
    inst = sim.instance[i]
    r = sim.running[i, position]
    for k in range(position, inst.running - 1):
        sim.running[i, k] = sim.running[i, k + 1]
    inst.running -= 1
    inst.preemptions += 1
    stage = sim.stage[r]
    if inst.host_blocks > 0:
        swap_out(sim, i, r)
    release(sim, i, r)
    if inst.role == DECODE:
        inst.reserved -= stage.reserved
    stage.computed = 0
    stage.preemptions += 1
    if inst.by_priority == 0:
        inst.front_sequence -= 1
        stage.sequence = inst.front_sequence
    elif inst.preempted_first == 1:
        stage.priority = sim.workflow[stage.workflow].arrival + PREEMPTED
    push_waiting(sim, i, r)


@kernel
def _victim(sim, i):
    """Position in the running list of the stage to preempt."""
    inst = sim.instance[i]
    worst = inst.running - 1
    if inst.by_priority == 1:
        for k in range(inst.running):
            a = sim.stage[sim.running[i, k]]
            b = sim.stage[sim.running[i, worst]]
            if a.priority > b.priority or (a.priority == b.priority and a.sequence > b.sequence):
                worst = k
    return worst


@kernel
def _schedule_running(sim, i):
    """Give every running stage its tokens of this step.

    Returns
    -------
    budget, preempted
        Tokens left, and whether a stage had to go.
    """
    inst = sim.instance[i]
    block = inst.block_size
    budget = inst.max_batched
    preempted = False
    for k in range(inst.running):
        sim.stage[sim.running[i, k]].scheduled = 0
    k = 0
    while k < inst.running and budget > 0:
        r = sim.running[i, k]
        stage = sim.stage[r]
        new = min(stage.prompt + stage.generated - stage.computed, budget)
        grow = blocks_for(stage.computed + new, block) - stage.held
        gone = False
        while grow > inst.free:
            if inst.pinned > 0:
                unpin_latest(sim, i, NONE)
                continue
            preempted = True
            v = _victim(sim, i)
            victim = sim.running[i, v]
            if v < k:
                budget += sim.stage[victim].scheduled
                k -= 1
            _preempt(sim, i, v)
            if victim == r:
                gone = True
                break
        if gone:
            break
        if grow > 0:
            take_blocks(sim, i, grow)
            stage.held += grow
        stage.scheduled = new
        budget -= new
        if not _decodes(stage):
            credit(sim, i, r, (stage.computed + new) // block)
        k += 1
    return budget, preempted


@kernel
def _run(sim, i, r):
    """Append stage ``r`` to the running list."""
    inst = sim.instance[i]
    sim.running[i, inst.running] = r
    inst.running += 1
    if inst.role == DECODE:
        inst.reserved += sim.stage[r].reserved


@kernel
def _take_in(sim, i, r, budget):
    """Admit the first waiting stage, whose KV has come along; False if there is no room."""
    inst = sim.instance[i]
    stage = sim.stage[r]
    tokens = stage.prompt + stage.generated
    if blocks_for(tokens, inst.block_size) > inst.free:
        return False
    pop_waiting(sim, i)
    new = min(tokens - stage.brought, budget)
    stage.computed = stage.brought
    stage.brought = 0
    stage.scheduled = new
    stage.held = blocks_for(stage.computed + new, inst.block_size)
    take_blocks(sim, i, stage.held)
    # What has come along cannot be found by others.
    stage.node = NONE
    stage.credited = 0
    stage.diverged = 1
    _run(sim, i, r)
    return True


@kernel
def _swap_in(sim, i, r, budget, now):
    """Admit the first waiting stage, whose KV is in host memory; False if there is no room.

    It is scheduled at once and the step waits for the copy, or joins later, when the copy has come.
    """
    inst = sim.instance[i]
    stage = sim.stage[r]
    if inst.host_overlap == 1:
        if blocks_for(stage.prompt + stage.generated, inst.block_size) > inst.free:
            return False
        pop_waiting(sim, i)
        stage.scheduled = 0
        if inst.role == DECODE:
            inst.reserved += stage.reserved
        fetch(sim, i, r, now)
        return True
    stage.brought = stage.on_host
    if not _take_in(sim, i, r, budget):
        stage.brought = 0
        return False
    inst.stall += fetched(inst, stage.on_host)
    if inst.host_reuse == 0:
        forget_copy(sim, i, r)
    return True


@kernel
def _schedule_waiting(sim, i, budget, now):
    """Admit waiting stages in order until the budget, the seats, the blocks or the admission rule say no."""
    inst = sim.instance[i]
    block = inst.block_size
    ruled = inst.admission != FITS
    if ruled and inst.running > 0 and inst.since_check < inst.check_every:
        return
    looked = False
    prefill = 0
    admitted = False
    while inst.waiting_root != NONE and budget > 0 and inst.running + inst.loading < inst.max_seqs:
        r = inst.waiting_root
        stage = sim.stage[r]
        tokens = stage.prompt + stage.generated
        limit = (tokens - 1) // block
        if inst.role == DECODE and inst.running > 0 and inst.reserved + stage.reserved > inst.blocks:
            break
        if ruled:
            if not looked:
                look(sim, i)
                looked = True
            if prefill >= inst.max_prefill or not admits(sim, i, r):
                break
            prefill += tokens - stage.brought - stage.on_host
        came_along = stage.on_host > 0 or stage.brought > 0
        while came_along and blocks_for(tokens, block) > inst.free and inst.pinned > 0 and not admitted:
            unpin_latest(sim, i, stage.workflow)
        if stage.on_host > 0:
            if not _swap_in(sim, i, r, budget, now):
                break
            admitted = True
            if inst.pinned > 0:
                unpin_workflow(sim, i, stage.workflow)
            budget -= stage.scheduled
            continue
        if stage.brought > 0:
            if not _take_in(sim, i, r, budget):
                break
            admitted = True
            if inst.pinned > 0:
                unpin_workflow(sim, i, stage.workflow)
            budget -= stage.scheduled
            continue
        found = 0
        from_free = 0
        if inst.prefix_caching == 1:
            found, from_free = found_blocks(sim, i, stage.leaf, limit)
        loaded = 0
        if inst.host_keep == 1:
            loaded = reloaded_blocks(sim, i, r, found, limit)
        new = min(tokens - (found + loaded) * block, budget)
        grow = blocks_for((found + loaded) * block + new, block) - found
        while blocks_for(tokens, block) - found > inst.free - from_free and inst.pinned > 0 and not admitted:
            unpin_latest(sim, i, stage.workflow)
            if inst.prefix_caching == 1:
                found, from_free = found_blocks(sim, i, stage.leaf, limit)
        if blocks_for(tokens, block) - found > inst.free - from_free:
            break
        pop_waiting(sim, i)
        admitted = True
        if inst.pinned > 0:
            unpin_workflow(sim, i, stage.workflow)
        admit(sim, i, r, limit)
        take_blocks(sim, i, grow)
        stage.held = found + grow
        stage.computed = (found + loaded) * block
        stage.scheduled = new
        budget -= new
        if loaded > 0:
            inst.stall += fetched(inst, loaded * block)
        _run(sim, i, r)
        if math.isnan(stage.start):
            stage.start = now
            stage.cached = found * block
        inst.cached_tokens += found * block
        credit(sim, i, r, (stage.computed + new) // block)


@kernel
def _steps_that_fit(sim, i, steps):
    """Most decode steps, up to ``steps``, for which the free blocks suffice (the first one's are taken already)."""
    inst = sim.instance[i]
    block = inst.block_size
    if inst.running * (steps // block + 1) <= inst.free:
        return steps
    low = 1
    high = steps
    while low < high:
        middle = (low + high + 1) // 2
        need = 0
        for k in range(inst.running):
            stage = sim.stage[sim.running[i, k]]
            need += blocks_for(stage.computed + middle, block) - stage.held
        if need <= inst.free:
            low = middle
        else:
            high = middle - 1
    return low


@kernel
def begin_step(sim, i, now):
    """Schedule the next step of instance ``i`` at ``now``, or send it to sleep."""
    inst = sim.instance[i]
    inst.touched = 0
    if inst.state == DOWN:
        return
    inst.step_start = now
    if inst.redraw_every > 0 and inst.since_redraw >= inst.redraw_every and inst.running + inst.waiting > 0:
        for k in range(inst.running - 1, redraw(sim, i) - 1, -1):
            _preempt(sim, i, k)
    if inst.moving > 0:
        if sim.stage[inst.moving - 1].held == 0:
            give_up_move(sim, i, now)
        else:
            go_on(sim, i, now)
    while True:
        if inst.joining > 0:
            seat(sim, i)
        budget, preempted = _schedule_running(sim, i)
        if preempted and inst.moving > 0 and sim.stage[inst.moving - 1].held == 0:
            give_up_move(sim, i, now)
        if not preempted:
            _schedule_waiting(sim, i, budget, now)
        chunks = 0
        chunk_tokens = 0
        attention = 0.0
        chunk_context = 0.0
        decodes = 0
        context = 0.0
        shortest = 2147483647
        for k in range(inst.running):
            stage = sim.stage[sim.running[i, k]]
            new = stage.scheduled
            if new == 0:
                continue
            if _decodes(stage):
                decodes += 1
                context += stage.computed + 1.0
                shortest = min(shortest, stage.output - stage.generated)
            else:
                chunks += 1
                chunk_tokens += new
                attention += new * (stage.computed + new / 2.0)
                chunk_context += stage.computed + new
        if chunks + decodes > 0 or not preempted:
            break
    if chunks + decodes == 0:
        inst.busy = 0
        inst.next_event = FOREVER
        return
    inst.busy = 1
    if inst.stall > 0.0:
        inst.busy_seconds += inst.stall
        inst.block_seconds += inst.stall * (inst.blocks - inst.free)
        inst.stall_seconds += inst.stall
        inst.step_start = now + inst.stall
        inst.stall = 0.0
    inst.decodes = decodes
    inst.decode_context = context
    if chunks > 0:
        inst.jump = 0
        seconds = step_seconds(sim.coef[i], chunks, chunk_tokens, attention, chunk_context, decodes, context)
    else:
        steps = 1
        if not preempted and decodes == inst.running:
            steps = _steps_that_fit(sim, i, shortest)
        if inst.admission != FITS and inst.waiting_root != NONE and inst.running + inst.loading < inst.max_seqs:
            steps = max(min(steps, inst.check_every - inst.since_check), 1)
        if inst.redraw_every > 0:
            steps = min(steps, inst.redraw_every - inst.since_redraw)
        if inst.moving > 0:
            steps = steps_until_copied(sim, i, steps)
        inst.jump = steps
        seconds = decode_run_seconds(sim.coef[i], decodes, context, steps)
    inst.next_event = inst.step_start + seconds


@kernel
def end_step(sim, i, ended):
    """Apply the step or jump of instance ``i`` that ends now.

    Stages that ended are written to ``ended``; of those that a prefill instance hands over, ``~r``: these keep their
    blocks.

    Returns
    -------
    int
        How many there are.
    """
    inst = sim.instance[i]
    now = inst.next_event
    block = inst.block_size
    lasted = now - inst.step_start
    inst.busy_seconds += lasted
    inst.block_seconds += lasted * (inst.blocks - inst.free)
    steps = max(inst.jump, 1)
    inst.steps += steps
    inst.since_check += steps
    inst.since_redraw += steps
    count = 0
    kept = 0
    for k in range(inst.running):
        r = sim.running[i, k]
        stage = sim.stage[r]
        if stage.scheduled > 0:
            if inst.jump > 0:
                stage.computed += inst.jump
                stage.generated += inst.jump
                inst.computed_tokens += inst.jump
                grow = blocks_for(stage.computed, block) - stage.held
                if grow > 0:
                    take_blocks(sim, i, grow)
                    stage.held += grow
            else:
                stage.computed += stage.scheduled
                inst.computed_tokens += stage.scheduled
                if stage.computed == stage.prompt + stage.generated:
                    stage.generated += 1
            if stage.generated >= 1 and math.isnan(stage.first_token):
                stage.first_token = now
            if stage.generated == stage.output:
                stage.finish = now
                ended[count] = r
                count += 1
                continue
            if inst.role == PREFILL and stage.generated > 0:
                ended[count] = ~r
                count += 1
                continue
        sim.running[i, kept] = r
        kept += 1
    inst.running = kept
    for k in range(count):
        r = ended[k]
        if r < 0:
            leave(sim, i, ~r)
            continue
        release(sim, i, r)
        leave(sim, i, r)
        if inst.moving == r + 1:
            give_up_move(sim, i, now)
        inst.finished += 1
        if inst.admission == PAST_FUTURE:
            observe(sim, i, sim.stage[r].output)
        if inst.role == DECODE:
            inst.reserved -= sim.stage[r].reserved
            inst.promised -= sim.stage[r].reserved
    inst.busy = 0
    inst.next_event = FOREVER
    inst.touched = 1
    return count
