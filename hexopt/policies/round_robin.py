"""Round-robin dispatch, first come first served queues: vLLM behind a plain balancer."""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.policies.serving import begins


@kernel
def place(sim, know, r):
    """The next instance in turn."""
    instances = sim.instance.shape[0]
    i = int(know.memory[0])
    for k in range(instances):
        if begins(sim.instance[(i + k) % instances]):
            i = (i + k) % instances
            break
    know.memory[0] = (i + 1) % instances
    sim.stage[r].priority = 0.0
    return i
