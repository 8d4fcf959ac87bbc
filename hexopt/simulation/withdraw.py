"""Take a call back from an instance before it has ended: its client has gone."""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.simulation.hostmemory import leave
from hexopt.simulation.jump import cut_jump
from hexopt.simulation.kvcache import release
from hexopt.simulation.queues import requeue
from hexopt.simulation.state import NONE


@kernel
def is_at(sim, i, r):
    """Whether stage ``r`` waits or runs at instance ``i``."""
    if sim.instance[i].first_here == r:
        return True
    # A stage that has left keeps its old links; nobody's point back to it.
    before = sim.stage[r].previous_here
    return before != NONE and sim.stage[before].next_here == r


@kernel
def withdraw(sim, i, r, now):
    """Remove stage ``r`` from instance ``i`` and free its blocks; the step that runs still takes its time.

    A jump ends at the first step boundary at or after ``now``.
    """
    inst = sim.instance[i]
    stage = sim.stage[r]
    leave(sim, i, r)
    inst.touched = 1
    if stage.held == 0:
        requeue(sim, i)
        return
    kept = 0
    for k in range(inst.running):
        if sim.running[i, k] != r:
            sim.running[i, kept] = sim.running[i, k]
            kept += 1
    inst.running = kept
    release(sim, i, r)
    cut_jump(sim, i, now)
