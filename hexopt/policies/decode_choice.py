"""Greedy urgency's view of calls that prefill on one instance and decode on another.

At dispatch a prefill instance is worth what the call would cost there and then at its best decode instance: the wait
for the prompts ahead, its own prefill, its KV's way, the wait for memory, its decode in the company there. Where it
decodes is chosen when it is handed over, by the same cost, for other calls will have been bound in between.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.models.roofline import step_seconds
from hexopt.policies.steps import prefill_seconds, tokens_left
from hexopt.simulation.handover import blocks_expected
from hexopt.simulation.state import DECODE, NONE, OPEN

CLOSED = 1e9
"""Seconds that a decode instance costs that takes no calls: it is chosen where no other is long enough."""


@kernel
def decode_part(sim, know, d, stage, arrives):
    """What it would mean to decode the call on instance ``d``, its KV arriving in ``arrives`` seconds.

    Returns
    -------
    finish, imposed
        Seconds until it ends; seconds by which it delays the calls there, weighted by their urgency and summed.
    """
    inst = sim.instance[d]
    coef = know.coef[d]
    output = max(stage.expected_output, 1.0)
    own = float(blocks_expected(stage, inst.block_size))
    overlap = 0.0
    overlap_context = 0.0
    weighted = 0.0
    freed = 0.0
    bound = 0.0
    other = inst.first_here
    while other != NONE:
        there = sim.stage[other]
        left = tokens_left(there)
        both = min(left, output)
        overlap += both
        overlap_context += both * (there.prompt + there.generated + both / 2.0)
        weighted += both * there.urgency
        bound += there.reserved
        if there.held > 0:
            freed += there.reserved / left
        other = there.next_here
    # Of those on their way only the blocks are known: as many calls as would promise them if they were like this one.
    coming = max(inst.promised - bound, 0.0)
    company = overlap / output + coming / own
    context = overlap_context / output + coming * inst.block_size
    own_context = stage.prompt + output / 2.0
    with_it = step_seconds(coef, 0.0, 0.0, 0.0, 0.0, company + 1.0, context + own_context)
    without = step_seconds(coef, 0.0, 0.0, 0.0, 0.0, company, context) if company > 0.0 else 0.0
    lacking = inst.promised + own - inst.blocks
    memory = lacking / freed * with_it if lacking > 0.0 and freed > 0.0 else 0.0
    finish = max(arrives, memory * know.scale[d]) + (output - 1.0) * with_it * know.scale[d]
    return finish, weighted * max(with_it - without, 0.0) * know.scale[d]


@kernel
def best_decoder(sim, know, p, stage, first, weight):
    """The decode instance with the smallest urgency * finish + weight * imposed, if prefill at ``p`` ends in ``first``.

    Returns
    -------
    d, finish, imposed
        NONE and no time where no context is long enough.
    """
    best = NONE
    best_finish = 0.0
    best_imposed = 0.0
    lowest = 1e300
    for d in range(sim.instance.shape[0]):
        inst = sim.instance[d]
        if inst.role != DECODE or stage.prompt + stage.output > inst.max_len:
            continue
        arrives = first + sim.link_latency[p, d] + stage.prompt * sim.link_seconds[p, d]
        finish, imposed = decode_part(sim, know, d, stage, arrives)
        cost = stage.urgency * finish + weight * imposed
        if inst.state != OPEN:
            cost += CLOSED
        if cost < lowest:
            lowest = cost
            best = d
            best_finish = finish
            best_imposed = imposed
    return best, best_finish, best_imposed


@kernel
def predict_apart(sim, know, i, stage, cached, weight):
    """As :func:`hexopt.policies.greedy_urgency.predict_cached`, for the prefill instance ``i``."""
    inst = sim.instance[i]
    coef = know.coef[i]
    new = float(stage.prompt - cached)
    ahead = 0.0
    held_up = 0.0
    other = inst.first_here
    while other != NONE:
        there = sim.stage[other]
        if there.held > 0:
            ahead += max(there.prompt - there.computed, 0)
        elif there.priority <= stage.priority:
            ahead += there.expected_new
        else:
            held_up += there.urgency
        other = there.next_here
    budget = float(inst.max_batched)
    wait = prefill_seconds(coef, ahead, 0.0, budget, 0.0, 0.0) * know.scale[i]
    prefill = prefill_seconds(coef, new, cached, budget, 0.0, 0.0) * know.scale[i]
    first = wait + prefill
    _, finish, imposed = best_decoder(sim, know, i, stage, first, weight)
    return max(finish, first), imposed + prefill * held_up, new, 0.0
