"""Paged KV blocks and the prefix cache of one instance (the rule: docs/simulated-instance.md)."""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.simulation.state import NONE


@kernel
def _push_free(sim, i, node, blocks):
    """Append ``blocks`` of ``node`` (or anonymous ones) to the back of the free queue."""
    inst = sim.instance[i]
    inst.free += blocks
    back = inst.lru_back
    if node == NONE and back != NONE and sim.entry[i, back].node == NONE:
        sim.entry[i, back].blocks += blocks
        return
    e = inst.lru_spare
    new = sim.entry[i, e]
    inst.lru_spare = new.next
    new.node = node
    new.blocks = blocks
    new.previous = back
    new.next = NONE
    if back == NONE:
        inst.lru_front = e
    else:
        sim.entry[i, back].next = e
    inst.lru_back = e
    if node != NONE:
        sim.here[i, node].entry = e


@kernel
def _unlink(sim, i, e):
    """Take entry ``e`` out of the free queue (its blocks are the caller's affair)."""
    inst = sim.instance[i]
    entry = sim.entry[i, e]
    if entry.previous == NONE:
        inst.lru_front = entry.next
    else:
        sim.entry[i, entry.previous].next = entry.next
    if entry.next == NONE:
        inst.lru_back = entry.previous
    else:
        sim.entry[i, entry.next].previous = entry.previous
    if entry.node != NONE:
        sim.here[i, entry.node].entry = NONE
    entry.next = inst.lru_spare
    inst.lru_spare = e


@kernel
def take_blocks(sim, i, blocks):
    """Allocate ``blocks`` (at most the free ones), evicting the least recently used contents."""
    inst = sim.instance[i]
    inst.free -= blocks
    while blocks > 0:
        e = inst.lru_front
        entry = sim.entry[i, e]
        taken = min(blocks, entry.blocks)
        entry.blocks -= taken
        blocks -= taken
        if entry.node != NONE:
            sim.here[i, entry.node].cached -= taken
        if entry.blocks == 0:
            _unlink(sim, i, e)


@kernel
def _hold(sim, i, v):
    here = sim.here[i, v]
    if here.holders == 0 and here.entry != NONE:
        sim.instance[i].free -= here.cached
        e = here.entry
        before = sim.entry[i, e].previous
        after = sim.entry[i, e].next
        _unlink(sim, i, e)
        # Anonymous neighbours become one entry: the number of entries stays bounded by the nodes.
        between = before != NONE and after != NONE
        if between and sim.entry[i, before].node == NONE and sim.entry[i, after].node == NONE:
            sim.entry[i, before].blocks += sim.entry[i, after].blocks
            _unlink(sim, i, after)
    here.holders += 1


@kernel
def _path_to(sim, leaf):
    """Write the nodes from the root to ``leaf`` into the scratch path; return how many."""
    length = 0
    v = leaf
    while v != NONE:
        length += 1
        v = sim.node[v].parent
    v = leaf
    for k in range(length - 1, -1, -1):
        sim.path[k] = v
        v = sim.node[v].parent
    return length


@kernel
def _start_of(sim, v):
    parent = sim.node[v].parent
    return 0 if parent == NONE else sim.node[parent].end


@kernel
def found_blocks(sim, i, leaf, limit):
    """Blocks of the path to ``leaf`` that the cache holds, at most ``limit``, and the free ones among their nodes'.

    Returns
    -------
    found, from_free
        ``from_free`` counts the blocks that leave the free queue when the found nodes get a holder.
    """
    found = 0
    from_free = 0
    if leaf == NONE:
        return found, from_free
    block = sim.instance[i].block_size
    for k in range(_path_to(sim, leaf)):
        v = sim.path[k]
        here = sim.here[i, v]
        size = sim.node[v].end // block - _start_of(sim, v) // block
        hit = min(here.cached, limit - found)
        if (hit > 0 or hit == size) and here.holders == 0:
            from_free += here.cached
        found += hit
        if hit < size:
            break
    return found, from_free


@kernel
def admit(sim, i, r, limit):
    """Take the cached blocks of stage ``r``'s path into use; return how many were found."""
    stage = sim.stage[r]
    stage.node = NONE
    stage.credited = 0
    stage.diverged = 1
    if stage.leaf == NONE or sim.instance[i].prefix_caching == 0:
        return 0
    stage.diverged = 0
    block = sim.instance[i].block_size
    for k in range(_path_to(sim, stage.leaf)):
        v = sim.path[k]
        here = sim.here[i, v]
        size = sim.node[v].end // block - _start_of(sim, v) // block
        hit = min(here.cached, limit - stage.credited)
        if hit == 0 and size > 0:
            break
        if hit < size and (hit < here.cached or here.holders > 0):
            stage.diverged = 1
        _hold(sim, i, v)
        stage.node = v
        stage.credited += hit
        if hit < size:
            break
    return stage.credited


@kernel
def credit(sim, i, r, full):
    """Make the first ``full`` blocks of stage ``r`` findable, as far as its path goes."""
    stage = sim.stage[r]
    if stage.diverged != 0:
        return
    block = sim.instance[i].block_size
    while stage.credited < full:
        v = stage.node
        if v != NONE:
            end = sim.node[v].end // block
            if stage.credited < end:
                more = min(full, end) - stage.credited
                sim.here[i, v].cached += more
                stage.credited += more
                continue
        if v == stage.leaf:
            stage.diverged = 1
            return
        u = stage.leaf
        while sim.node[u].parent != v:
            u = sim.node[u].parent
        if sim.here[i, u].holders > 0 or sim.here[i, u].cached > 0:
            stage.diverged = 1
            return
        sim.here[i, u].holders = 1
        stage.node = u


@kernel
def give_back(sim, i, blocks):
    """Free ``blocks`` private blocks."""
    if blocks > 0:
        _push_free(sim, i, NONE, blocks)


@kernel
def drop_nodes(sim, i, v):
    """One holder less for node ``v`` and all above it: those without one are free, the deepest first."""
    while v != NONE:
        here = sim.here[i, v]
        here.holders -= 1
        if here.holders == 0 and here.cached > 0:
            _push_free(sim, i, v, here.cached)
        v = sim.node[v].parent


@kernel
def release(sim, i, r):
    """Give back all blocks of stage ``r``: private ones first, then its path from the deepest node up."""
    stage = sim.stage[r]
    credit(sim, i, r, stage.computed // sim.instance[i].block_size)
    give_back(sim, i, stage.held - stage.credited)
    drop_nodes(sim, i, stage.node)
    stage.held = 0
    stage.credited = 0
    stage.node = NONE


@kernel
def clear(sim, i):
    """Forget all contents: every block of instance ``i`` is free and anonymous."""
    inst = sim.instance[i]
    for v in range(sim.node.shape[0]):
        here = sim.here[i, v]
        here.cached = 0
        here.holders = 0
        here.entry = NONE
    entries = sim.entry.shape[1]
    for e in range(entries):
        sim.entry[i, e].next = e + 1 if e + 1 < entries else NONE
    first = sim.entry[i, 0]
    first.previous = NONE
    first.next = NONE
    first.node = NONE
    first.blocks = inst.blocks
    inst.lru_front = 0
    inst.lru_back = 0
    inst.lru_spare = 1
    inst.free = inst.blocks
