"""Contents that stay in the cache of an instance though nobody runs on them: until a time, or their workflow is back.

The rule: docs/simulated-instance.md; its source is Continuum (arXiv 2511.02230). A pin is kept in the record of the
call that left the contents: ``node`` is the deepest one pinned.
"""

# mypy: ignore-errors
from __future__ import annotations

import math

from hexopt.models.kernel import kernel
from hexopt.simulation.jump import freed
from hexopt.simulation.kvcache import admit, drop_nodes
from hexopt.simulation.queues import push_delayed
from hexopt.simulation.state import NONE, PINNED


@kernel
def pin(sim, r, until):
    """Keep what call ``r``, which ends now, has left in its instance's cache, until second ``until``.

    Returns
    -------
    bool
        Whether anything is pinned: not the last call of a workflow, nor one that left nothing.
    """
    stage = sim.stage[r]
    inst = sim.instance[stage.instance]
    if until <= stage.finish or sim.workflow[stage.workflow].stages_left == 0:
        return False
    admit(sim, stage.instance, r, stage.prompt + stage.output)
    stage.credited = 0
    if stage.node == NONE:
        return False
    stage.next_here = inst.first_pinned if inst.pinned > 0 else NONE
    inst.first_pinned = r
    inst.pinned += 1
    if until < math.inf:
        push_delayed(sim, r, PINNED, until)
    return True


@kernel
def unpin(sim, i, r):
    """Let the contents go that call ``r`` has pinned on instance ``i``."""
    inst = sim.instance[i]
    stage = sim.stage[r]
    if inst.first_pinned == r:
        inst.first_pinned = stage.next_here
    else:
        before = inst.first_pinned
        while sim.stage[before].next_here != r:
            before = sim.stage[before].next_here
        sim.stage[before].next_here = stage.next_here
    inst.pinned -= 1
    drop_nodes(sim, i, stage.node)
    stage.node = NONE


@kernel
def unpin_workflow(sim, i, w):
    """Let all go that workflow ``w`` has pinned on instance ``i``."""
    left = sim.instance[i].pinned
    r = sim.instance[i].first_pinned
    while left > 0:
        after = sim.stage[r].next_here
        if sim.stage[r].workflow == w:
            unpin(sim, i, r)
        left -= 1
        r = after


@kernel
def unpin_latest(sim, i, spared):
    """Let one pin of instance ``i`` go, of the workflow that arrived last; ``spared``'s only where no other has any.

    Of one workflow's pins the latest call's goes.
    """
    inst = sim.instance[i]
    best = NONE
    r = inst.first_pinned
    for _ in range(inst.pinned):
        stage = sim.stage[r]
        if best == NONE:
            best = r
        else:
            other = sim.stage[best]
            mine = stage.workflow != spared
            its = other.workflow != spared
            if mine != its:
                if mine:
                    best = r
            else:
                arrival = sim.workflow[stage.workflow].arrival
                latest = sim.workflow[other.workflow].arrival
                if arrival > latest or (arrival == latest and r > best):
                    best = r
        r = stage.next_here
    unpin(sim, i, best)


@kernel
def expire(sim, r, now):
    """The time of the pin of call ``r`` is over: it goes, unless its workflow waits at its instance by now."""
    stage = sim.stage[r]
    if stage.node == NONE:
        return
    i = stage.instance
    workflow = sim.workflow[stage.workflow]
    for k in range(workflow.first_stage, workflow.first_stage + workflow.stages):
        other = sim.stage[k]
        if other.instance == i and other.held == 0 and math.isnan(other.finish):
            return
    unpin(sim, i, r)
    freed(sim, i, now)


@kernel
def unpin_ended(sim, w, now):
    """Workflow ``w`` has ended: nothing of it stays pinned anywhere."""
    for i in range(sim.instance.shape[0]):
        if sim.instance[i].pinned > 0:
            unpin_workflow(sim, i, w)
            freed(sim, i, now)
