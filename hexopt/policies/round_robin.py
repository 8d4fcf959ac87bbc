"""Round-robin dispatch, first come first served queues: vLLM behind a plain balancer."""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel


@kernel
def place(sim, know, r):
    """The next instance in turn."""
    i = int(know.memory[0])
    know.memory[0] = (i + 1) % sim.instance.shape[0]
    sim.stage[r].priority = 0.0
    return i
