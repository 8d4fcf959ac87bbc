"""Least-loaded dispatch (fewest requests running or waiting), first come first served queues."""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.policies.serving import begins


@kernel
def least_requests(sim):
    """The instance with the fewest requests; the first of equals."""
    best = 0
    fewest = 1 << 30
    for i in range(sim.instance.shape[0]):
        load = sim.instance[i].running + sim.instance[i].waiting
        if load < fewest and begins(sim.instance[i]):
            best = i
            fewest = load
    return best


@kernel
def place(sim, know, r):
    """The instance with the fewest requests."""
    sim.stage[r].priority = 0.0
    return least_requests(sim)
