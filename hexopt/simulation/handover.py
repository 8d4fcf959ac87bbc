"""From one instance to another: a call leaves with its KV, is on its way, and arrives.

The rule: docs/simulated-instance.md.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.simulation.engine import arrive
from hexopt.simulation.jump import freed
from hexopt.simulation.kvcache import release
from hexopt.simulation.migration import land
from hexopt.simulation.queues import push_delayed
from hexopt.simulation.state import DECODE, NONE, OPEN, TRANSIT


@kernel
def blocks_expected(stage, block):
    """Blocks for all that ``stage`` will hold, as far as is known."""
    tokens = stage.prompt + max(int(stage.expected_output), stage.generated + 1)
    return (tokens + block - 1) // block


@kernel
def freest_decoder(sim, r):
    """The decode instance with the smallest share of its memory promised once stage ``r`` is there.

    NONE where no context is long enough; one that is not open only where no other is.
    """
    stage = sim.stage[r]
    best = NONE
    least = 1e300
    for i in range(sim.instance.shape[0]):
        inst = sim.instance[i]
        if inst.role != DECODE or stage.prompt + stage.output > inst.max_len:
            continue
        share = (inst.promised + blocks_expected(stage, inst.block_size)) / inst.blocks
        if inst.state != OPEN:
            share += 1e9
        if share < least:
            best = i
            least = share
    return best


@kernel
def hand_over(sim, r, d, now):
    """Send the KV of stage ``r``, which has its first token, to instance ``d``; until it is there its blocks stay."""
    stage = sim.stage[r]
    p = stage.instance
    stage.prefill_instance = p
    stage.handed = now
    stage.bound = d
    inst = sim.instance[d]
    stage.reserved = blocks_expected(stage, inst.block_size)
    inst.promised += stage.reserved
    seconds = sim.link_latency[p, d] + stage.computed * sim.link_seconds[p, d]
    stage.moved_seconds += seconds
    push_delayed(sim, r, TRANSIT, now + seconds)


@kernel
def bring(sim, r, now):
    """The KV of stage ``r`` has arrived: free it where it was, and queue the stage where it is."""
    stage = sim.stage[r]
    if stage.allocated > 0:
        land(sim, r, now)
        return
    p = stage.instance
    tokens = stage.computed
    release(sim, p, r)
    freed(sim, p, now)
    stage.computed = 0
    stage.brought = tokens
    arrive(sim, stage.bound, r, now)
