"""HexAGenT's second planning, see hexagent.py: who decodes next, and where those decode whose KV has not left yet.

Calls whose KV is at its decode instance or on its way there are locked: they are only ordered. Those that are being
prefilled are free: each may go to any decode instance whose context is long enough.
"""

# mypy: ignore-errors
from __future__ import annotations

import math

from hexopt.models.kernel import kernel
from hexopt.policies.hexagent_copy import PROJECTED, SORT_ABOVE, enter_decode, put, reserved_tokens, travel_seconds
from hexopt.simulation.engine import cut_jump
from hexopt.simulation.queues import requeue
from hexopt.simulation.state import DECODE, NONE, PREFILL, TRANSIT


@kernel
def _note(plan, count, r, here, there, arrives):
    plan.bound[count] = r
    plan.bound_from[count] = here
    plan.bound_to[count] = there
    plan.arrives[count] = arrives
    return count + 1


@kernel
def _collect(sim, plan, now):
    """Write the calls that are between the start of their prefill and that of their decode; return how many."""
    count = 0
    for i in range(sim.instance.shape[0]):
        inst = sim.instance[i]
        if inst.role != PREFILL and (inst.role != DECODE or inst.waiting == 0):
            continue
        other = inst.first_here
        while other != NONE:
            stage = sim.stage[other]
            if inst.role == DECODE and stage.held == 0:
                count = _note(plan, count, other, NONE, i, 0.0)
            elif inst.role == PREFILL and stage.decode_at != NONE:
                count = _note(plan, count, other, i, stage.decode_at, plan.free_at[i])
            other = stage.next_here
    for k in range(sim.clock[0].delayed):
        r = sim.delayed[k]
        stage = sim.stage[r]
        if stage.errand == TRANSIT and sim.instance[stage.bound].role == DECODE:
            count = _note(plan, count, r, NONE, stage.bound, stage.timer - now)
    return count


@kernel
def _arrives(sim, plan, k, d):
    """Seconds until the KV of the ``k``-th of these calls is at instance ``d``."""
    p = plan.bound_from[k]
    return plan.arrives[k] + (travel_seconds(sim, sim.stage[plan.bound[k]], p, d) if p != NONE else 0.0)


@kernel
def _consider(sim, know, plan, k, now):
    """Find where the ``k``-th of these calls would end first, and its R."""
    stage = sim.stage[plan.bound[k]]
    if plan.bound_from[k] == NONE:
        _, best = enter_decode(sim, know, plan, stage, plan.bound_to[k], plan.arrives[k])
    else:
        best = math.inf
        for d in range(sim.instance.shape[0]):
            if sim.instance[d].role != DECODE:
                continue
            _, finish = enter_decode(sim, know, plan, stage, d, _arrives(sim, plan, k, d))
            if finish < best:
                best = finish
                plan.bound_to[k] = d
    ahead = best if know.weights[PROJECTED] == 1.0 else 0.0
    plan.urgency[k] = (now - sim.workflow[stage.workflow].arrival + ahead) / plan.alone_here[stage.workflow]


@kernel
def _next(sim, plan, count):
    """The call with the largest R that is not planned yet; of equals the one that came first to where it is."""
    best = NONE
    for k in range(count):
        if plan.bound_to[k] == NONE:
            continue
        sooner = best == NONE or sim.stage[plan.bound[k]].sequence < sim.stage[plan.bound[best]].sequence
        if best == NONE or plan.urgency[k] > plan.urgency[best] or (plan.urgency[k] == plan.urgency[best] and sooner):
            best = k
    return best


@kernel
def plan_decodes(sim, know, plan, now):
    """Order and place all calls between prefill and decode, the largest R first, each applied to the copy."""
    count = _collect(sim, plan, now)
    for k in range(count):
        _consider(sim, know, plan, k, now)
    resorted = count <= know.weights[SORT_ABOVE]
    for position in range(count):
        best = _next(sim, plan, count)
        r = plan.bound[best]
        stage = sim.stage[r]
        if not resorted:
            _consider(sim, know, plan, best, now)
        d = plan.bound_to[best]
        _, finish = enter_decode(sim, know, plan, stage, d, _arrives(sim, plan, best, d))
        put(plan, d, finish, reserved_tokens(sim, stage, d))
        plan.bound_to[best] = NONE
        if plan.bound_from[best] != NONE:
            stage.decode_at = d
        elif stage.instance == d:
            stage.priority = position
        for k in range(count if resorted else 0):
            # Elsewhere nothing has changed, and here it can only have become later.
            if plan.bound_to[k] == d:
                _consider(sim, know, plan, k, now)
    for d in range(sim.instance.shape[0]):
        inst = sim.instance[d]
        if inst.role == DECODE and inst.waiting > 0:
            head = inst.waiting_root
            requeue(sim, d)
            inst.touched = 1
            if inst.waiting_root != head and inst.running < inst.max_seqs:
                cut_jump(sim, d, now)
