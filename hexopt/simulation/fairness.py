"""Priorities that are drawn anew every so many steps, and who is resident then.

FastSwitch (arXiv 2411.18424) preempts by such priorities to be fair. The rule: docs/simulated-instance.md.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.simulation.generator import draw
from hexopt.simulation.queues import earlier, pop_waiting, push_waiting
from hexopt.simulation.state import LOADING, NONE


@kernel
def _sort_running(sim, i):
    """Put the running list into the order of the priorities."""
    for k in range(1, sim.instance[i].running):
        r = sim.running[i, k]
        at = k
        while at > 0 and earlier(sim, r, sim.running[i, at - 1]):
            sim.running[i, at] = sim.running[i, at - 1]
            at -= 1
        sim.running[i, at] = r


@kernel
def _draw_anew(sim, i):
    """Draw the priorities of all stages at instance ``i``, the last come first, and queue those that wait by them.

    Returns
    -------
    used
        Blocks of the stages that come back from host memory: they stay.
    """
    inst = sim.instance[i]
    inst.waiting_root = NONE
    inst.waiting = 0
    used = 0
    r = inst.first_here
    while r != NONE:
        stage = sim.stage[r]
        if inst.redraw_keep == 0.0 or draw(sim, i) >= inst.redraw_keep:
            stage.priority = draw(sim, i)
        if stage.held == 0:
            push_waiting(sim, i, r)
        elif stage.errand == LOADING:
            used += stage.held
        r = stage.next_here
    return used


@kernel
def redraw(sim, i):
    """Draw new priorities; the resident set is the calls of highest priority up to the first that does not fit.

    Returns
    -------
    int
        How many running stages are in it: the first ones of the running list.
    """
    inst = sim.instance[i]
    inst.since_redraw = 0
    used = _draw_anew(sim, i)
    _sort_running(sim, i)
    block = inst.block_size
    seats = inst.max_seqs - inst.loading
    kept = 0
    chosen = NONE
    while seats > 0:
        r = inst.waiting_root
        runs = kept < inst.running and (r == NONE or earlier(sim, sim.running[i, kept], r))
        if runs:
            r = sim.running[i, kept]
        if r == NONE:
            break
        used += (sim.stage[r].prompt + sim.stage[r].generated + block - 1) // block
        if used > inst.blocks:
            break
        seats -= 1
        if runs:
            kept += 1
        else:
            pop_waiting(sim, i)
            sim.stage[r].left = chosen
            chosen = r
    while chosen != NONE:
        r = chosen
        chosen = sim.stage[r].left
        push_waiting(sim, i, r)
    return kept
