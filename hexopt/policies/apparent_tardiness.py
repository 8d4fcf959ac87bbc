"""Apparent tardiness cost (A. Vepsalainen and T. Morton, Management Science 33(8), 1987), dispatched as ``edf`` is.

The largest index first: ``I(t) = w / p * exp(-max(d - p - t, 0) / (k * pbar))`` with weight w, service p, due date d,
mean service pbar and a look-ahead of k mean services. A call is due its expected tail before its workflow's deadline,
and weighs what its workflow does.

Assumed: p on the mean instance; pbar the mean of the training's calls; k = 2, a usual value.

Deviations: instances take one number per call, fixed at dispatch, where the index changes with time. While two calls
have slack their order does not: dividing by the common ``exp(t / (k * pbar))`` leaves ``log(w / p) - (d - p) / (k *
pbar)``. A call that has none any more keeps ``log(w / p)``, which falls behind by ``t / (k * pbar)`` in that measure:
it is ranked as at the moment of its dispatch.
"""

# mypy: ignore-errors
from __future__ import annotations

import math

from hexopt.models.kernel import kernel
from hexopt.policies.compiled import first_fitting
from hexopt.policies.deadline import least_loaded_for_its_speed
from hexopt.policies.knowledge import alone_seconds, believe


@kernel
def place(sim, know, r, now):
    """Least loaded for its speed; queue by the index at dispatch."""
    believe(sim, know, r)
    stage = sim.stage[r]
    workflow = sim.workflow[stage.workflow]
    service = alone_seconds(know.mean_coef, stage.prompt, 0, stage.expected_output, sim.instance[0].max_batched)
    start_by = workflow.deadline - stage.tail - service
    ahead = know.weights[0] * know.table[0, 0]
    stage.priority = max(start_by, now) / ahead - math.log(max(workflow.weight, 1e-9) / service)
    return first_fitting(sim, r, least_loaded_for_its_speed(sim, know))
