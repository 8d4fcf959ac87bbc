"""Least-loaded dispatch (fewest requests running or waiting), first come first served queues."""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel


@kernel
def least_requests(sim):
    """The instance with the fewest requests; the first of equals."""
    best = 0
    for i in range(1, sim.instance.shape[0]):
        load = sim.instance[i].running + sim.instance[i].waiting
        if load < sim.instance[best].running + sim.instance[best].waiting:
            best = i
    return best


@kernel
def place(sim, know, r):
    """The instance with the fewest requests."""
    sim.stage[r].priority = 0.0
    return least_requests(sim)
