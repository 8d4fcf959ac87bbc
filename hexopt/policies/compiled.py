"""One switch over the compiled policies: the event loop and the live service call them through it.

A plain switch rather than function pointers, so that Numba can cache the whole loop.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.policies import deadline, greedy_urgency, hexgen_flow, least_loaded, round_robin
from hexopt.policies.knowledge import believe, learn
from hexopt.policies.serving import begins
from hexopt.simulation.handover import freest_decoder
from hexopt.simulation.state import DECODE, DRAINING, NONE, PREFILL

EXTERNAL = 0
ROUND_ROBIN = 1
LEAST_LOADED = 2
HEXGEN_FLOW = 3
EDF = 4
LLF = 5
GREEDY_URGENCY = 6
PLANNER = 7
"""Asked at every event while it holds stages; places, holds and wakes by itself."""
LINKED = 8
"""A rule that is called by address, see :mod:`hexopt.policies.linking`."""


@kernel
def _choose(policy, sim, know, r, now):
    if policy == ROUND_ROBIN:
        return round_robin.place(sim, know, r)
    if policy == LEAST_LOADED:
        return least_loaded.place(sim, know, r)
    if policy == HEXGEN_FLOW:
        return hexgen_flow.place(sim, know, r, now)
    believe(sim, know, r)
    if policy == EDF:
        return deadline.place_edf(sim, know, r)
    if policy == LLF:
        return deadline.place_llf(sim, know, r)
    return greedy_urgency.place(sim, know, r, now)


@kernel
def place(policy, sim, know, r, now):
    """Choose the instance for the ready stage ``r`` and write its priority (lower is earlier) into its record.

    Returns
    -------
    int
        Index of the instance: the policy's choice, or the next one after it whose context is long enough.
    """
    return first_fitting(sim, r, _choose(policy, sim, know, r, now))


@kernel
def first_fitting(sim, r, i):
    """Instance ``i``, or the next one after it that takes stage ``r``.

    Where none is open to it, one that drains, else one that is down: it waits there.
    """
    instances = sim.instance.shape[0]
    for k in range(instances):
        if takes(sim, r, (i + k) % instances):
            return (i + k) % instances
    shut = i
    for k in range(instances - 1, -1, -1):
        j = (i + k) % instances
        if not fits(sim, r, j):
            continue
        if sim.instance[j].state == DRAINING:
            return j
        shut = j
    return shut


@kernel
def takes(sim, r, i):
    """Whether instance ``i`` is open to calls that begin, and its context long enough for stage ``r``."""
    return begins(sim.instance[i]) and fits(sim, r, i)


@kernel
def fits(sim, r, i):
    """Whether stage ``r`` may begin on instance ``i`` when that is open: by its role and its longest context."""
    inst = sim.instance[i]
    stage = sim.stage[r]
    if inst.role == DECODE:
        return False
    # A call names its longest output (max_tokens), so whether it fits a context is known before it runs.
    if inst.role != PREFILL or stage.output == 1:
        return stage.prompt + stage.output <= inst.max_len
    return stage.prompt + 1 <= inst.max_len and freest_decoder(sim, r) != NONE


@kernel
def ended(policy, sim, know, r):
    """Tell the policy that stage ``r`` has ended; its true lengths may be learned from now on."""
    if policy == EXTERNAL or policy >= EDF:
        learn(sim, know, r)
