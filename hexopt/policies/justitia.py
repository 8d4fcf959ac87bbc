"""Justitia's fair queueing of agents by virtual time (M. Yang et al., arXiv 2510.17015).

A call of p prompt and d output tokens costs the memory that it holds times the steps that it holds it, ``p * d + d * d
/ 2``; an agent (a workflow here) costs what its calls do, predicted when it arrives. If all agents shared the memory
fairly, each of N would be served M / N tokens a step: virtual time V grows at that rate, and the agent that arrives at
a would end at ``F = V(a) + cost``. Agents are served whole in that order: all calls of an agent queue by its F.

Assumed: an agent's cost is the shrunken mean over the training's workflows whose first call was of the same kind with a
prompt of the same doubling, where the paper trains a small network on the prompt's text; M tokens a step are those that
full batches of mean calls hold on all instances, over the decode steps that these take; an agent leaves the fair system
when V reaches its F, as in weighted fair queueing; calls go to the instance that is least loaded for its speed; prefill
instances do not count into M.

Deviations: nothing running is preempted but for memory; the prediction is not corrected as the agent goes on. Where
first calls are alike all agents cost the same, and the order is that of their arrival.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.models.lengths import prompt_bucket
from hexopt.models.roofline import step_seconds
from hexopt.policies.compiled import first_fitting
from hexopt.policies.deadline import least_loaded_for_its_speed
from hexopt.simulation.state import PREFILL

VIRTUAL = 0
UNTIL = 1
ACTIVE = 2
RATE = 3
MEMORY = 4
"""Places in ``Knowledge.memory``: virtual time; the second that it was advanced to; agents in the fair system; its
memory times steps a second, 0 before the first call."""

FINISH = 0
HEAP = 1
COLUMNS = 2
"""Places in ``Knowledge.programs``: an agent's F, 0 before its first call; slots of a heap of the agents by F."""


def token_time(prompt, output):
    """KV token-time of a call; of arrays of calls, too."""
    return prompt * output + output * output / 2.0


@kernel
def kv_rate(sim, know):
    """Tokens that full batches of mean calls hold, by the decode steps that they take: token-steps a second."""
    mean = know.weights[0]
    rate = 0.0
    for i in range(sim.instance.shape[0]):
        inst = sim.instance[i]
        if inst.role == PREFILL:
            continue
        calls = max(min(inst.blocks * inst.block_size / mean, float(inst.max_seqs)), 1.0)
        rate += calls * mean / step_seconds(know.coef[i], 0.0, 0.0, 0.0, 0.0, calls, calls * mean)
    return rate


@kernel
def _swap(know, a, b):
    kept = know.programs[a, HEAP]
    know.programs[a, HEAP] = know.programs[b, HEAP]
    know.programs[b, HEAP] = kept


@kernel
def _finish_at(know, k):
    return know.programs[int(know.programs[k, HEAP]), FINISH]


@kernel
def join(know, w, cost):
    """Agent ``w`` joins the fair system."""
    know.programs[w, FINISH] = know.memory[VIRTUAL] + cost
    k = int(know.memory[ACTIVE])
    know.memory[ACTIVE] += 1.0
    know.programs[k, HEAP] = w
    while k > 0 and _finish_at(know, k) < _finish_at(know, (k - 1) // 2):
        _swap(know, k, (k - 1) // 2)
        k = (k - 1) // 2


@kernel
def _leave(know):
    """The agent with the smallest F leaves the fair system."""
    know.memory[ACTIVE] -= 1.0
    size = int(know.memory[ACTIVE])
    know.programs[0, HEAP] = know.programs[size, HEAP]
    k = 0
    while 2 * k + 1 < size:
        down = 2 * k + 1
        if down + 1 < size and _finish_at(know, down + 1) < _finish_at(know, down):
            down += 1
        if _finish_at(know, k) <= _finish_at(know, down):
            break
        _swap(know, k, down)
        k = down


@kernel
def advance(know, now):
    """Advance virtual time to second ``now``: at the rate a second over the agents in the fair system."""
    memory = know.memory
    while memory[ACTIVE] > 0.0:
        first = _finish_at(know, 0)
        left = memory[UNTIL] + (first - memory[VIRTUAL]) * memory[ACTIVE] / memory[RATE]
        if left > now:
            memory[VIRTUAL] += (now - memory[UNTIL]) * memory[RATE] / memory[ACTIVE]
            break
        memory[VIRTUAL] = first
        memory[UNTIL] = left
        _leave(know)
    memory[UNTIL] = now


@kernel
def place(sim, know, r, now):
    """Least loaded for its speed; queue by the agent's virtual finish."""
    stage = sim.stage[r]
    w = stage.workflow
    if know.memory[RATE] == 0.0:
        know.memory[RATE] = kv_rate(sim, know)
    if know.programs[w, FINISH] == 0.0:
        advance(know, now)
        join(know, w, max(know.table[stage.kind, prompt_bucket(stage.prompt)], 1.0))
    stage.priority = know.programs[w, FINISH]
    return first_fitting(sim, r, least_loaded_for_its_speed(sim, know))
