"""The queues: stages at an instance and those that wait there, stages that have a timer, stages that are ready."""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.simulation.generator import draw
from hexopt.simulation.state import NONE


@kernel
def earlier(sim, a, b):
    """Whether stage ``a`` comes before stage ``b`` by (priority, sequence)."""
    x = sim.stage[a]
    y = sim.stage[b]
    return x.priority < y.priority or (x.priority == y.priority and x.sequence < y.sequence)


@kernel
def _merge(sim, a, b):
    """Merge two skew heaps (Sleator and Tarjan 1986), top down; return the root.

    Linked through the stages themselves: a queue of any length costs no memory of its own.
    """
    if a == NONE:
        return b
    if b == NONE:
        return a
    if earlier(sim, b, a):
        a, b = b, a
    root = a
    while True:
        below = sim.stage[a].right
        sim.stage[a].right = sim.stage[a].left
        if below == NONE:
            sim.stage[a].left = b
            return root
        if earlier(sim, b, below):
            below, b = b, below
        sim.stage[a].left = below
        a = below


@kernel
def enter(sim, i, r):
    """Link stage ``r`` into the list of those at instance ``i``, with its number in the order of arrival there."""
    inst = sim.instance[i]
    stage = sim.stage[r]
    stage.instance = i
    stage.sequence = inst.next_sequence
    inst.next_sequence += 1
    if inst.by_priority == 0:
        stage.priority = 0.0
    elif inst.redraw_every > 0:
        stage.priority = draw(sim, i)
    stage.previous_here = NONE
    stage.next_here = inst.first_here
    if inst.first_here != NONE:
        sim.stage[inst.first_here].previous_here = r
    inst.first_here = r


@kernel
def push_waiting(sim, i, r):
    """Queue stage ``r`` at instance ``i`` by (priority, sequence)."""
    inst = sim.instance[i]
    sim.stage[r].left = NONE
    sim.stage[r].right = NONE
    inst.waiting_root = _merge(sim, inst.waiting_root, r)
    inst.waiting += 1


@kernel
def pop_waiting(sim, i):
    """Remove and return the first stage that waits at instance ``i``."""
    inst = sim.instance[i]
    r = inst.waiting_root
    inst.waiting_root = _merge(sim, sim.stage[r].left, sim.stage[r].right)
    inst.waiting -= 1
    return r


@kernel
def requeue(sim, i):
    """Queue anew the stages that wait at instance ``i``, whose priorities or number have changed."""
    inst = sim.instance[i]
    inst.waiting_root = NONE
    inst.waiting = 0
    other = inst.first_here
    while other != NONE:
        if sim.stage[other].held == 0:
            push_waiting(sim, i, other)
        other = sim.stage[other].next_here


@kernel
def push_delayed(sim, r, errand, when):
    """Remember stage ``r`` until second ``when``, and what for."""
    sim.stage[r].errand = errand
    sim.stage[r].timer = when
    clock = sim.clock[0]
    heap = sim.delayed
    k = clock.delayed
    clock.delayed += 1
    while k > 0:
        up = (k - 1) // 2
        if not _sooner(sim, r, heap[up]):
            break
        heap[k] = heap[up]
        k = up
    heap[k] = r


@kernel
def pop_delayed(sim):
    """Remove and return the stage whose timer is next."""
    clock = sim.clock[0]
    heap = sim.delayed
    first = heap[0]
    clock.delayed -= 1
    size = clock.delayed
    last = heap[size]
    k = 0
    while 2 * k + 1 < size:
        down = 2 * k + 1
        if down + 1 < size and _sooner(sim, heap[down + 1], heap[down]):
            down += 1
        if not _sooner(sim, heap[down], last):
            break
        heap[k] = heap[down]
        k = down
    heap[k] = last
    return first


@kernel
def push_ready(sim, r):
    """Stage ``r`` is to be placed at this instant."""
    clock = sim.clock[0]
    k = clock.ready
    while k > 0 and sim.ready[k - 1] > r:
        sim.ready[k] = sim.ready[k - 1]
        k -= 1
    sim.ready[k] = r
    clock.ready += 1


@kernel
def _sooner(sim, a, b):
    x = sim.stage[a].timer
    y = sim.stage[b].timer
    return x < y or (x == y and a < b)
