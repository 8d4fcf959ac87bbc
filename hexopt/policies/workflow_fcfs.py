"""First come first served by workflow: calls queue by their workflow's arrival, at the least loaded instance.

The baseline "Workflow-FCFS" of HexAGenT (arXiv 2605.16637, section on evaluation), with its load-balanced dispatch.

Assumed: load is the number of calls for the instance's speed, as ``edf`` and ``llf`` count it, so that the three
differ in nothing but their order.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.policies.compiled import first_fitting
from hexopt.policies.deadline import least_loaded_for_its_speed


@kernel
def place(sim, know, r, now):
    """Least loaded for its speed; queue by the workflow's arrival."""
    stage = sim.stage[r]
    stage.priority = sim.workflow[stage.workflow].arrival
    return first_fitting(sim, r, least_loaded_for_its_speed(sim, know))
