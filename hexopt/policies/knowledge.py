"""What a policy may know: learned latency, learned lengths and tails, its own memory. Never the truth to come."""

# mypy: ignore-errors
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexopt.models.kernel import kernel
from hexopt.models.lengths import expected_output, observe_output
from hexopt.models.roofline import decode_run_seconds, step_seconds
from hexopt.models.successors import Successors
from hexopt.models.tails import expected_tail, observe_tail
from hexopt.models.tallies import Tally
from hexopt.simulation.state import DECODE, MIXED


class Knowledge(NamedTuple):
    """The arrays that policies read and the observations that they learn from; m instances."""

    coef: NDArray[np.float64]
    """Believed roofline coefficients, shape (m, N_FEATURES), seconds."""
    mean_coef: NDArray[np.float64]
    """Their mean over the instances, shape (N_FEATURES,): the yardstick for tails."""
    scale: NDArray[np.float64]
    """Observed over predicted step time of each instance, shape (m,)."""
    speed: NDArray[np.float64]
    """Service rate of each instance relative to the mean one on the training calls, shape (m,)."""
    lengths: Tally
    tails: Tally
    successors: Successors
    """What follows a call; learned before the run, not in it."""
    weights: NDArray[np.float64]
    """The policy's parameters."""
    memory: NDArray[np.float64]
    """The policy's own numbers, kept between decisions."""
    table: NDArray[np.float64]
    """The policy's own table; its shape is the policy's affair."""
    counts: NDArray[np.int16]
    """Calls of each kind a workflow has made, shape (w, kinds); empty where the policy does not count them."""
    programs: NDArray[np.float64]
    """The policy's own numbers of each workflow, shape (w, how many it keeps); empty where it keeps none."""
    length_noise: NDArray[np.float64]
    """What each call's predicted length is multiplied by, shape (calls,); empty: by 1."""
    taken_for: NDArray[np.int64]
    """The call that each is taken for when its length is predicted, shape (calls,); empty: itself."""


@kernel
def alone_seconds(coef, prompt, cached, output, budget):
    """Seconds of one call on an idle instance: prefill in chunks of ``budget`` tokens, then a decode run."""
    done = cached
    seconds = 0.0
    while done < prompt:
        new = min(budget, prompt - done)
        seconds += step_seconds(coef, 1.0, new, new * (done + new / 2.0), done + new, 0.0, 0.0)
        done += new
    if output > 1.0:
        seconds += decode_run_seconds(coef, 1.0, prompt + 1.0, output - 1.0)
    return seconds


@kernel
def fastest_seconds(coef, scale, role, budgets, link_latency, link_seconds, prompt, cached, output):
    """Seconds of one call alone on the instance that is fastest for it, or on the fastest pair of a prefill and a
    decode instance, with its KV's way between them.

    Parameters
    ----------
    coef, scale, role, budgets
        Roofline coefficients, factor on them, role and token budget of each instance, shapes (m, N_FEATURES) and (m,).
    link_latency, link_seconds
        Of :class:`hexopt.simulation.state.Simulation`.
    """
    best = 1e300
    for i in range(coef.shape[0]):
        if role[i] == DECODE:
            continue
        tokens = output if role[i] == MIXED else 1.0
        first = alone_seconds(coef[i], prompt, cached, tokens, budgets[i]) * scale[i]
        if role[i] == MIXED or output <= 1.0:
            best = min(best, first)
            continue
        for d in range(coef.shape[0]):
            if role[d] == DECODE:
                travel = link_latency[i, d] + prompt * link_seconds[i, d]
                decode = decode_run_seconds(coef[d], 1.0, prompt + 1.0, output - 1.0) * scale[d]
                best = min(best, first + travel + decode)
    return best


@kernel
def believe(sim, know, r):
    """Write what is expected of the ready stage ``r`` into its record: output tokens and tail, as told or learned."""
    stage = sim.stage[r]
    if stage.told_output > 0:
        stage.expected_output = stage.told_output
    else:
        like = stage if know.taken_for.shape[0] == 0 else sim.stage[know.taken_for[r]]
        stage.expected_output = expected_output(know.lengths, like.kind, like.prompt)
        if know.length_noise.shape[0] > 0:
            stage.expected_output *= know.length_noise[r]
    stage.tail = 0.0 if stage.told_final == 1 else expected_tail(know.tails, stage.kind, stage.occurrence)


@kernel
def learn(sim, know, r):
    """Learn from stage ``r``, which has ended, and from its workflow if that has ended with it."""
    stage = sim.stage[r]
    observe_output(know.lengths, stage.kind, stage.prompt, stage.output)
    workflow = sim.workflow[stage.workflow]
    if workflow.stages_left > 0:
        return
    budget = sim.instance[0].max_batched
    for k in range(workflow.first_stage + workflow.stages - 1, workflow.first_stage - 1, -1):
        done = sim.stage[k]
        done.tail = 0.0
        for c in range(done.first_child, done.first_child + done.children):
            child = sim.stage[sim.child[c]]
            service = alone_seconds(know.mean_coef, child.prompt, child.cached, child.output, budget)
            done.tail = max(done.tail, child.tool_delay + service + child.tail)
        observe_tail(know.tails, done.kind, done.occurrence, done.tail)
