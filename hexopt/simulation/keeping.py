"""Contents that stay in host memory after a call, for the next calls of its workflow: reloaded, not computed again.

The rule: docs/simulated-instance.md. How many tokens of a call that has ended are kept stands in its ``on_host``.
"""

# mypy: ignore-errors
from __future__ import annotations

import math

from hexopt.models.kernel import kernel
from hexopt.models.roofline import step_seconds
from hexopt.simulation.hostmemory import copy_seconds, forget_copy
from hexopt.simulation.state import DECODE, NONE


@kernel
def _common_tokens(sim, a, b):
    """Tokens that the paths to nodes ``a`` and ``b`` begin with alike."""
    while a != b:
        if b == NONE or (a != NONE and sim.node[a].end >= sim.node[b].end):
            a = sim.node[a].parent
        else:
            b = sim.node[b].parent
    return 0 if a == NONE else sim.node[a].end


@kernel
def _kept(sim, i, k):
    other = sim.stage[k]
    return other.instance == i and other.on_host > 0 and not math.isnan(other.finish)


@kernel
def keep(sim, r):
    """Keep what call ``r``, which ends now, has left, whole blocks of it; copies that begin it go.

    Where there is no room for it, it is not kept.
    """
    stage = sim.stage[r]
    i = stage.instance
    inst = sim.instance[i]
    if inst.role == DECODE or inst.prefix_caching == 0 or stage.leaf == NONE:
        return
    workflow = sim.workflow[stage.workflow]
    blocks = min(sim.node[stage.leaf].end, stage.prompt + stage.output - 1) // inst.block_size
    tokens = blocks * inst.block_size
    for k in range(workflow.first_stage, workflow.first_stage + workflow.stages):
        if k != r and _kept(sim, i, k):
            other = sim.stage[k]
            if other.on_host <= min(tokens, _common_tokens(sim, other.leaf, stage.leaf)):
                forget_copy(sim, i, k)
    if inst.host_used + blocks <= inst.host_blocks:
        inst.host_used += blocks
        inst.swapped_out += tokens
        stage.on_host = tokens


@kernel
def reloaded_blocks(sim, i, r, found, limit):
    """Blocks of call ``r`` behind the ``found`` cached ones that host memory has, at most ``limit`` with these.

    0 where computing them is faster than copying them.
    """
    stage = sim.stage[r]
    inst = sim.instance[i]
    if stage.leaf == NONE:
        return 0
    block = inst.block_size
    workflow = sim.workflow[stage.workflow]
    most = 0
    for k in range(workflow.first_stage, workflow.first_stage + workflow.stages):
        if k != r and _kept(sim, i, k):
            other = sim.stage[k]
            most = max(most, min(other.on_host, _common_tokens(sim, other.leaf, stage.leaf)) // block)
    blocks = min(most, limit) - found
    if blocks <= 0:
        return 0
    tokens = blocks * block
    cached = found * block
    prefill = step_seconds(sim.coef[i], 1, tokens, tokens * (cached + tokens / 2.0), cached + 1.0 * tokens, 0, 0.0)
    return blocks if copy_seconds(inst, tokens) < prefill else 0


@kernel
def forget_kept(sim, w):
    """Workflow ``w`` has ended: host memory keeps nothing of it."""
    workflow = sim.workflow[w]
    for i in range(sim.instance.shape[0]):
        if sim.instance[i].host_keep == 1:
            for k in range(workflow.first_stage, workflow.first_stage + workflow.stages):
                if _kept(sim, i, k):
                    forget_copy(sim, i, k)


@kernel
def lose_kept(sim, i):
    """Instance ``i`` has failed, and its host memory with it."""
    for k in range(sim.stage.shape[0]):
        if _kept(sim, i, k):
            sim.stage[k].on_host = 0
