"""HEFT, heterogeneous earliest finish time (H. Topcuoglu, S. Hariri and M. Wu, IEEE TPDS 13(3), 2002), online.

Order by upward rank, the largest first: ``rank(c) = mean service(c) + max over successors (rank)``. Placement: the
instance where the call is predicted to finish first.

Assumed: what follows a call is not known online, so the maximum over its successors is the learned tail; data moves
free of charge; a finish is predicted as greedy urgency does: queue, memory, prefill, decode among its neighbours;
where prefill and decode instances part, the pair with the earliest finish, the latter chosen at the hand-over.

Deviations: HEFT schedules one known graph before it starts and inserts calls into gaps; here calls of many workflows
are ranked together as they become ready, so the workflow with most work ahead goes first, however late it came.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.policies import greedy_urgency
from hexopt.policies.compiled import first_fitting
from hexopt.policies.greedy_urgency import cheapest
from hexopt.policies.knowledge import alone_seconds, believe


@kernel
def place(sim, know, r, now):
    """Earliest finish; queue by upward rank."""
    believe(sim, know, r)
    stage = sim.stage[r]
    service = alone_seconds(know.mean_coef, stage.prompt, 0, stage.expected_output, sim.instance[0].max_batched)
    stage.priority = -(service + stage.tail)
    # Finishes count whole, and the weight of the imposed delay is 0.
    stage.urgency = 1.0
    return first_fitting(sim, r, cheapest(sim, know, r, now))


@kernel
def handed(sim, know, r, now):
    """Earliest finish, again."""
    return greedy_urgency.handed(sim, know, r, now)
