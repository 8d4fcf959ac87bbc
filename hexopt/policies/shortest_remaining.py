"""Shortest expected remaining time of the workflow first, dispatched as ``edf`` is.

``priority = expected service + expected tail``: what the workflow still needs from this call on, both learned. SRPT
(L. Schrage 1968) minimises the mean latency on one preemptive server with known sizes; LLM schedulers that order by
predicted remaining work of the workflow (Chimera, arXiv 2603.22206) carry it over.

Assumed: remaining *time* along the critical path on the mean instance, not the sum of all calls still to come.

Deviations: nothing running is preempted for a shorter one; a workflow's calls that run side by side are ranked each by
its own path.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.policies.compiled import first_fitting
from hexopt.policies.deadline import least_loaded_for_its_speed
from hexopt.policies.knowledge import alone_seconds, believe


@kernel
def by_remaining(sim, know, r):
    """Least loaded for its speed; queue by what the workflow is expected to need yet."""
    stage = sim.stage[r]
    service = alone_seconds(know.mean_coef, stage.prompt, 0, stage.expected_output, sim.instance[0].max_batched)
    stage.priority = service + stage.tail
    return least_loaded_for_its_speed(sim, know)


@kernel
def place(sim, know, r, now):
    """As :func:`by_remaining`, by what was learned."""
    believe(sim, know, r)
    return first_fitting(sim, r, by_remaining(sim, know, r))
