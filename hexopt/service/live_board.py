"""The board of the live service: the simulator's arrays, moved by what is seen of real servers.

A call that was sent counts as running: HexOpt sends only what its server can admit. Its prompt's blocks are taken and
its prefix is looked up in the simulator's own KV cache, so that policies find the prefix caches where they expect them.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

from hexopt.models.kernel import kernel
from hexopt.models.roofline import decode_run_seconds, step_seconds
from hexopt.policies.greedy_urgency import predict
from hexopt.policies.knowledge import alone_seconds
from hexopt.simulation.kvcache import admit, credit, release, take_blocks
from hexopt.simulation.state import NONE


@kernel
def _link(sim, i, r):
    inst = sim.instance[i]
    stage = sim.stage[r]
    stage.instance = i
    stage.previous_here = NONE
    stage.next_here = inst.first_here
    if inst.first_here != NONE:
        sim.stage[inst.first_here].previous_here = r
    inst.first_here = r


@kernel
def _unlink(sim, i, r):
    stage = sim.stage[r]
    if stage.previous_here == NONE:
        sim.instance[i].first_here = stage.next_here
    else:
        sim.stage[stage.previous_here].next_here = stage.next_here
    if stage.next_here != NONE:
        sim.stage[stage.next_here].previous_here = stage.previous_here
    stage.instance = NONE


@kernel
def enqueue(sim, i, r):
    """Stage ``r`` waits, in the gateway, for instance ``i``."""
    _link(sim, i, r)
    sim.instance[i].waiting += 1


@kernel
def leave_queue(sim, r):
    """Stage ``r`` waits for its instance no longer."""
    i = sim.stage[r].instance
    _unlink(sim, i, r)
    sim.instance[i].waiting -= 1


@kernel
def start(sim, i, r, now):
    """Stage ``r``, which waits nowhere, is sent to instance ``i``."""
    inst = sim.instance[i]
    stage = sim.stage[r]
    _link(sim, i, r)
    inst.running += 1
    stage.start = now
    stage.generated = 0
    block = inst.block_size
    limit = (stage.prompt - 1) // block
    found = 0
    if inst.prefix_caching == 1:
        found = admit(sim, i, r, limit)
    else:
        stage.node = NONE
        stage.credited = 0
        stage.diverged = 1
    stage.cached = found * block
    stage.computed = found * block
    more = min((stage.prompt + block - 1) // block - found, inst.free)
    take_blocks(sim, i, more)
    stage.held = found + more


@kernel
def _grow(sim, i, r, tokens):
    inst = sim.instance[i]
    stage = sim.stage[r]
    more = min((tokens + inst.block_size - 1) // inst.block_size - stage.held, inst.free)
    if more > 0:
        take_blocks(sim, i, more)
        stage.held += more


@kernel
def progress(sim, r, generated):
    """Stage ``r`` has been seen to have produced ``generated`` tokens, at least 1."""
    stage = sim.stage[r]
    i = stage.instance
    if stage.computed < stage.prompt:
        stage.computed = min(stage.prompt, stage.held * sim.instance[i].block_size)
        credit(sim, i, r, stage.computed // sim.instance[i].block_size)
    stage.generated = max(stage.generated, generated)
    _grow(sim, i, r, stage.prompt + stage.generated)


@kernel
def leave(sim, r):
    """Stage ``r`` has left its instance; its prompt's blocks stay cached there."""
    i = sim.stage[r].instance
    release(sim, i, r)
    _unlink(sim, i, r)
    sim.instance[i].running -= 1


@kernel
def candidates(sim, know, r, now, found):
    """What placing stage ``r`` on each instance would mean, into ``found``, shape (m, 4).

    Columns: seconds until it ends; seconds that it delays others, weighted; prompt tokens to compute; seconds in which
    it waits for memory. Infinite where it cannot run.
    """
    stage = sim.stage[r]
    for i in range(sim.instance.shape[0]):
        if stage.prompt + stage.output > sim.instance[i].max_len:
            found[i, :] = np.inf
            continue
        found[i, 0], found[i, 1], found[i, 2], found[i, 3] = predict(sim, know, i, r, now)


@kernel
def uncorrected_seconds(sim, know, i, prompt, cached, output, company):
    """Seconds that the latency model gives a call on instance ``i`` in the company of as many others alike.

    Returns
    -------
    total, decode
        Of the whole call, and of its decode run alone.
    """
    coef = know.coef[i]
    total = alone_seconds(coef, prompt, cached, 1.0, sim.instance[i].max_batched)
    decode = 0.0
    if output > 1.0:
        if company <= 1.0:
            decode = decode_run_seconds(coef, 1.0, prompt + 1.0, output - 1.0)
        else:
            context = company * (prompt + output / 2.0)
            decode = (output - 1.0) * step_seconds(coef, 0.0, 0.0, 0.0, 0.0, company, context)
    return total + decode, decode
