"""HexGen-Flow's two-level scheduler (arXiv 2505.05286 and its published simulator).

Dispatch, for a call of kind s and instance e, with the first instance as reference b:

``score_e = alpha * T_b(s) / T_e(s) - (1 - alpha) * k_e * W_e / W_b``, the largest wins, the first of equals;
then ``W_e += T_e(s)``.

Queue: the share of the workflow's remaining time that the call may take,

``SLO_call = (SLO - elapsed) * Tbar(s) / (Tbar(s) + sum of Tbar over the remaining template)``,

and the largest urgency ``T_e(s) - (SLO_call - waited)`` first. All urgencies at an instance grow alike, so
``ready + SLO_call - T_e(s)``, fixed at dispatch, keeps the order.

Quirks of the published code, kept because they are what is compared with:

- ``T_e(s)`` is one constant a kind: the call's own prompt length is not looked at.
- ``W_e`` only grows: completions, queues and memory are not looked at.
- ``k_e`` is 0.5 for A6000 and L40S and 1 for every other type, whatever the model.
- While ``W_b`` is 0 everything goes to b: the first call always does.
- *as shipped*, all workflows eat one shared template, which is soon empty: from then on a call gets the whole
  remaining time (its later version copies the template per workflow: *as described*).
- Past the deadline ``SLO - elapsed`` is negative, and a larger share makes a call *more* urgent.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.policies.serving import begins

ALPHA = 0
SHARED_TEMPLATE = 1
CLOSES = 2
CLOSED = 3
"""Places in ``Knowledge.weights``; a call of kind CLOSES removes what is left of kind CLOSED from the template."""


@kernel
def _dispatch(sim, know, kind):
    instances = sim.instance.shape[0]
    work = know.memory
    alpha = know.weights[ALPHA]
    first = 0
    while first < instances - 1 and not begins(sim.instance[first]):
        first += 1
    best = first
    if work[first] > 0.0:
        highest = -1e300
        for e in range(instances):
            if not begins(sim.instance[e]):
                continue
            ratio = know.table[first, kind] / know.table[e, kind]
            score = alpha * ratio - (1.0 - alpha) * work[instances + e] * work[e] / work[first]
            if score > highest:
                best = e
                highest = score
    work[best] += know.table[best, kind]
    return best


@kernel
def _remaining_template(sim, know, r):
    """Mean seconds of the template's entries that are left after this call, and remove the call's own."""
    instances = sim.instance.shape[0]
    stage = sim.stage[r]
    kind = stage.kind
    mean = know.table[instances]
    template = know.table[instances + 1]
    closes = int(know.weights[CLOSES])
    closed = int(know.weights[CLOSED])
    previous = r - 1
    first_of_group = not (
        previous >= sim.workflow[stage.workflow].first_stage
        and sim.stage[previous].kind == kind
        and sim.stage[previous].ready == stage.ready
    )
    left = 0.0
    if know.weights[SHARED_TEMPLATE] == 1.0:
        if first_of_group:
            template[kind] = max(template[kind] - 1.0, 0.0)
            if kind == closes:
                template[closed] = 0.0
        for s in range(mean.shape[0]):
            left += template[s] * mean[s]
        return left
    made = know.counts[stage.workflow]
    if first_of_group:
        made[kind] += 1
        if kind == closes:
            made[closed] = max(made[closed], template[closed])
    for s in range(mean.shape[0]):
        left += max(template[s] - made[s], 0.0) * mean[s]
    return left


@kernel
def place(sim, know, r, now):
    """Dispatch by score; queue by urgency."""
    stage = sim.stage[r]
    kind = stage.kind
    i = _dispatch(sim, know, kind)
    workflow = sim.workflow[stage.workflow]
    mean = know.table[sim.instance.shape[0], kind]
    share = mean / (mean + _remaining_template(sim, know, r))
    budget = (workflow.deadline - now) * share
    stage.priority = now + budget - know.table[i, kind]
    return i
