"""Earliest deadline first and least laxity first, dispatched to the least loaded instance for its speed.

Both order an instance's queue by the *workflow's* deadline (C. L. Liu and J. Layland 1973 for EDF; laxity as in
A. Mok 1983): EDF by the deadline itself, LLF by deadline - expected service - expected tail. Laxity falls for all
waiting calls alike as time passes, so a number fixed at dispatch keeps the order.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.policies.knowledge import alone_seconds
from hexopt.policies.serving import begins


@kernel
def least_loaded_for_its_speed(sim, know):
    """The instance with the fewest requests, one more included, in relation to its speed."""
    best = 0
    lowest = 1e300
    for i in range(sim.instance.shape[0]):
        load = (sim.instance[i].running + sim.instance[i].waiting + 1) / know.speed[i]
        if load < lowest and begins(sim.instance[i]):
            best = i
            lowest = load
    return best


@kernel
def place_edf(sim, know, r):
    """Least loaded for its speed; queue by the workflow's deadline."""
    stage = sim.stage[r]
    stage.priority = sim.workflow[stage.workflow].deadline
    return least_loaded_for_its_speed(sim, know)


@kernel
def place_llf(sim, know, r):
    """Least loaded for its speed; queue by the laxity."""
    stage = sim.stage[r]
    i = least_loaded_for_its_speed(sim, know)
    service = alone_seconds(know.coef[i], stage.prompt, 0, stage.expected_output, sim.instance[i].max_batched)
    stage.priority = sim.workflow[stage.workflow].deadline - service * know.scale[i] - stage.tail
    return i
