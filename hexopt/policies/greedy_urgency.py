"""Greedy urgency: HexOpt's own rule for deciding at once.

A ready call goes where ``urgency * finish + imposed`` is smallest:

- *finish*: predicted seconds until the call ends there: prompts ahead in the queue, memory that must be freed
  first, its own prefill less what the prefix cache holds, its decode in the company of the calls already there;
- *imposed*: predicted seconds by which it delays those calls (their decode steps grow, its prefill holds them up), each
  second counted with the delayed call's own urgency;
- *urgency*: ``((service + tail) / (deadline - now)) ** exponent``: what is still needed over the time that is left,
  within [0.1, 2]. Workflows with time to spare leave the fast instances to those without. Those that cannot make it
  may be given up: they then count less and queue behind all others.

On a prefill instance both count its best decode instance, too, see :mod:`hexopt.policies.decode_choice`.

The tail behind the call is the same wherever it runs, so the earliest finish of the call is the earliest finish of the
workflow. Queues are ordered by least slack, ``deadline - service - tail``.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.models.roofline import step_seconds
from hexopt.policies.decode_choice import best_decoder, predict_apart
from hexopt.policies.knowledge import alone_seconds
from hexopt.policies.serving import begins
from hexopt.policies.steps import prefill_seconds, tokens_left
from hexopt.simulation.kvcache import found_blocks
from hexopt.simulation.state import NONE, PREFILL

IMPOSED = 0
AFFINITY = 1
URGENCY = 2
LOST = 3
"""Places in ``Knowledge.weights``: weight of the imposed delay; whether to look into the prefix caches; exponent;
factor on the urgency of workflows that cannot make their deadline any more."""

BEHIND_ALL = 1e6
"""Seconds of slack that put a lost workflow's calls behind all others."""

_CALM = 0.1
_LATE = 2.0
_HOPE = 0.8
"""Share of the expected need that may do: with less time left a workflow counts as lost."""


@kernel
def predict(sim, know, i, r, now):
    """What placing stage ``r`` on instance ``i`` now would mean.

    Returns
    -------
    finish, imposed, new, lacking
        Seconds until the stage ends; seconds by which it delays the others there, weighted by their urgency and summed;
        prompt tokens that it would have to compute; the part of ``finish`` in which it waits for memory.
    """
    stage = sim.stage[r]
    inst = sim.instance[i]
    cached = 0
    if inst.prefix_caching == 1 and know.weights[AFFINITY] == 1.0:
        found, _ = found_blocks(sim, i, stage.leaf, (stage.prompt - 1) // inst.block_size)
        cached = found * inst.block_size
    return predict_cached(sim, know, i, stage, cached)


@kernel
def predict_cached(sim, know, i, stage, cached):
    """As :func:`predict`, for the call in the record ``stage``, of whose prompt ``cached`` tokens are in the cache."""
    inst = sim.instance[i]
    if inst.role == PREFILL:
        return predict_apart(sim, know, i, stage, cached, know.weights[IMPOSED])
    coef = know.coef[i]
    block = inst.block_size
    new = float(stage.prompt - cached)
    output = max(stage.expected_output, 1.0)

    running = 0.0
    behind = 0.0
    context = 0.0
    ahead = 0.0
    ahead_blocks = 0.0
    overlap = 0.0
    overlap_context = 0.0
    freed = 0.0
    weighted = 0.0
    held_up = 0.0
    other = inst.first_here
    while other != NONE:
        there = sim.stage[other]
        left = tokens_left(there)
        size = there.prompt + there.generated
        if there.held > 0:
            running += 1.0
            held_up += there.urgency
            context += size
            ahead += max(there.prompt - there.computed, 0)
            freed += there.held / left
        elif there.priority <= stage.priority:
            ahead += there.expected_new
            ahead_blocks += (size + left) / block
        else:
            behind += 1.0
            held_up += there.urgency
        both = min(left, output)
        overlap += both
        weighted += both * there.urgency
        overlap_context += both * (size + both / 2.0)
        other = there.next_here

    budget = float(inst.max_batched)
    company = overlap / output
    company_context = overlap_context / output
    own_context = stage.prompt + output / 2.0
    with_it = step_seconds(coef, 0.0, 0.0, 0.0, 0.0, company + 1.0, company_context + own_context)
    without = step_seconds(coef, 0.0, 0.0, 0.0, 0.0, company, company_context) if company > 0.0 else 0.0
    prefill = prefill_seconds(coef, new, cached, budget, running, context)
    stall = prefill
    if running > 0.0:
        steps = max(new / max(budget - running, 1.0), 1.0)
        stall = max(prefill - steps * step_seconds(coef, 0.0, 0.0, 0.0, 0.0, running, context), 0.0)

    wait = prefill_seconds(coef, ahead, 0.0, budget, running, context)
    lacking = ahead_blocks + (stage.prompt + output) / block - cached / block - inst.free
    memory = lacking / freed * with_it if lacking > 0.0 and freed > 0.0 else 0.0
    finish = (wait + memory + prefill + (output - 1.0) * with_it) * know.scale[i]
    imposed = 0.0
    if running + behind > 0.0:
        slower = with_it - without if company > 0.0 else 0.0
        imposed = (weighted * slower + stall * held_up) * know.scale[i]
    return finish, imposed, new, memory * know.scale[i]


@kernel
def decoded_beside(coef, stage, new, budget):
    """Seconds by which the call lengthens the steps of one decoding beside it from start to end."""
    output = max(stage.expected_output, 1.0)
    context = stage.prompt + output / 2.0
    one = step_seconds(coef, 0.0, 0.0, 0.0, 0.0, 1.0, context)
    two = step_seconds(coef, 0.0, 0.0, 0.0, 0.0, 2.0, 2.0 * context)
    return alone_seconds(coef, new, 0.0, 1.0, budget) + (output - 1.0) * max(two - one, 0.0)


@kernel
def appraise(sim, know, r, now, tail):
    """Write the slack that orders stage ``r`` in queues, and its urgency, if ``tail`` seconds follow it."""
    appraise_call(sim, know, sim.stage[r], now, tail)


@kernel
def appraise_call(sim, know, stage, now, tail):
    """As :func:`appraise`, for the call in the record ``stage``."""
    deadline = sim.workflow[stage.workflow].deadline
    service = alone_seconds(know.mean_coef, stage.prompt, 0, stage.expected_output, sim.instance[0].max_batched)
    stage.priority = deadline - service - tail
    need = service + tail
    left = max(deadline - now, need / _LATE)
    stage.urgency = max(need / left, _CALM) ** know.weights[URGENCY]
    if know.weights[LOST] < 1.0 and deadline - now < _HOPE * need:
        stage.urgency *= know.weights[LOST]
        stage.priority += BEHIND_ALL


@kernel
def place(sim, know, r, now):
    """The instance with the smallest urgency * finish + weight * imposed; queue by slack."""
    appraise(sim, know, r, now, sim.stage[r].tail)
    return cheapest(sim, know, r, now)


@kernel
def cheapest(sim, know, r, now):
    """The instance with the smallest urgency * finish + weight * imposed for stage ``r``, which has been appraised."""
    stage = sim.stage[r]
    best = 0
    lowest = 1e300
    best_new = 0.0
    for i in range(sim.instance.shape[0]):
        if stage.prompt > sim.instance[i].max_len or not begins(sim.instance[i]):
            continue
        finish, imposed, new, _ = predict(sim, know, i, r, now)
        cost = stage.urgency * finish + know.weights[IMPOSED] * imposed
        if cost < lowest:
            best = i
            lowest = cost
            best_new = new
    stage.expected_new = best_new
    return best


@kernel
def handed(sim, know, r, now):
    """The decode instance with the smallest urgency * finish + weight * imposed for a call that is handed over."""
    stage = sim.stage[r]
    d, _, _ = best_decoder(sim, know, stage.instance, stage, 0.0, know.weights[IMPOSED])
    return d
