"""Dispatch to the freest instance: Llumnix without migration, which its paper calls INFaaS++.

Llumnix (arXiv 2406.03243, OSDI'24, algorithm 1): freeness ``F = (M - sum V) / B`` with M blocks of
memory, V the blocks that a running call holds or a waiting one demands, B calls; the largest F wins, an empty instance
is infinitely free. Queues are first come first served.

``head_only=false``, by default, counts the demand of all waiting calls, as the published code's dispatch does
(``vllm/instance_info.py`` of its artifact: available blocks less those of all waiting calls, over running and waiting
ones); ``true`` counts that of the first one alone, as the paper's algorithm does.

Assumed: a waiting call demands the blocks of its prompt; of equals the first instance wins.

Deviations: no priority classes with their reserve, no session stickiness, no scaling; INFaaS++ also scales.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.policies.compiled import first_fitting
from hexopt.policies.serving import begins
from hexopt.simulation.state import NONE


@kernel
def _blocks(stage, block):
    return (stage.prompt + stage.generated + block - 1) // block


@kernel
def freeness(sim, know, i):
    """Free blocks, less what those that wait demand, a call; infinite where there is none."""
    inst = sim.instance[i]
    if inst.running + inst.waiting == 0:
        return 1e300
    left = float(inst.free)
    if inst.waiting == 0:
        return left / inst.running
    if know.weights[0] == 1.0:
        return (left - _blocks(sim.stage[inst.waiting_root], inst.block_size)) / (inst.running + 1)
    other = inst.first_here
    while other != NONE:
        there = sim.stage[other]
        if there.held == 0:
            left -= _blocks(there, inst.block_size)
        other = there.next_here
    return left / (inst.running + inst.waiting)


@kernel
def place(sim, know, r, now):
    """The instance with the largest freeness."""
    sim.stage[r].priority = 0.0
    best = 0
    highest = -1e300
    for i in range(sim.instance.shape[0]):
        free = freeness(sim, know, i)
        if free > highest and begins(sim.instance[i]):
            best = i
            highest = free
    return first_fitting(sim, r, best)
