"""KV in host memory: a call that is preempted leaves it there and gets it back, instead of computing it again.

The rule: docs/simulated-instance.md.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.simulation.kvcache import take_blocks
from hexopt.simulation.queues import push_delayed
from hexopt.simulation.state import LOADING, NONE


@kernel
def copy_seconds(inst, tokens):
    """Seconds that the KV of ``tokens`` takes between an instance's GPU and its host memory.

    ``calls * max(call_seconds, bytes of a chunk * byte_seconds)``: a chunk is a block, or all of the tokens, of one
    layer's keys or values.
    """
    chunk = tokens if inst.host_group == 1 else inst.block_size
    if chunk == 0:
        return 0.0
    calls = (tokens + chunk - 1) // chunk * inst.copy_parts
    return calls * max(inst.call_seconds, chunk * inst.kv_bytes / inst.copy_parts * inst.byte_seconds)


@kernel
def _blocks(inst, tokens):
    return (tokens + inst.block_size - 1) // inst.block_size


@kernel
def forget_copy(sim, i, r):
    """Free what host memory holds of stage ``r``."""
    inst = sim.instance[i]
    stage = sim.stage[r]
    inst.host_used -= _blocks(inst, stage.on_host)
    stage.on_host = 0


@kernel
def _make_room(sim, i, r, blocks):
    """Drop copies of other stages that are on the GPU, too, the last come first, until ``blocks`` are free."""
    inst = sim.instance[i]
    other = inst.first_here
    while other != NONE and inst.host_blocks - inst.host_used < blocks:
        there = sim.stage[other]
        if other != r and there.on_host > 0 and there.held > 0 and there.errand != LOADING:
            forget_copy(sim, i, other)
        other = there.next_here


@kernel
def swap_out(sim, i, r):
    """Copy what host memory lacks of stage ``r``'s KV there, if there is room."""
    inst = sim.instance[i]
    stage = sim.stage[r]
    new = stage.computed - stage.on_host
    if new == 0:
        return
    blocks = _blocks(inst, stage.computed) - _blocks(inst, stage.on_host)
    _make_room(sim, i, r, blocks)
    if blocks > inst.host_blocks - inst.host_used:
        return
    inst.host_used += blocks
    stage.on_host = stage.computed
    inst.swapped_out += new
    seconds = copy_seconds(inst, new)
    inst.copy_seconds += seconds
    if inst.host_overlap == 1:
        inst.link_free = max(inst.link_free, inst.step_start) + seconds
    else:
        inst.stall += seconds


@kernel
def fetched(inst, tokens):
    """Account for the copy of the KV of ``tokens`` from host memory; return its seconds."""
    seconds = copy_seconds(inst, tokens)
    inst.swapped_in += tokens
    inst.copy_seconds += seconds
    return seconds


@kernel
def fetch(sim, i, r, now):
    """Start copying the KV of stage ``r`` into blocks of its own, while the instance goes on."""
    inst = sim.instance[i]
    stage = sim.stage[r]
    stage.held = _blocks(inst, stage.prompt + stage.generated)
    take_blocks(sim, i, stage.held)
    stage.computed = stage.on_host
    stage.node = NONE
    stage.credited = 0
    stage.diverged = 1
    inst.loading += 1
    inst.link_free = max(inst.link_free, now) + fetched(inst, stage.on_host)
    push_delayed(sim, r, LOADING, inst.link_free)


@kernel
def leave(sim, i, r):
    """Unlink stage ``r`` from the list of those at instance ``i``; host memory forgets it."""
    stage = sim.stage[r]
    if stage.on_host > 0:
        forget_copy(sim, i, r)
    if stage.previous_here == NONE:
        sim.instance[i].first_here = stage.next_here
    else:
        sim.stage[stage.previous_here].next_here = stage.next_here
    if stage.next_here != NONE:
        sim.stage[stage.next_here].previous_here = stage.previous_here
