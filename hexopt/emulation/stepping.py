"""The simulated instance in small steps, so that the outside can come in between."""

# mypy: ignore-errors
from __future__ import annotations

import math

from hexopt.models.kernel import kernel
from hexopt.models.roofline import decode_run_seconds, decode_steps_within
from hexopt.simulation.engine import arrive, begin_step, end_step
from hexopt.simulation.state import NONE

_ROUNDING = 1e-9
"""Seconds by which a token may be early."""


@kernel
def catch_up(sim, now, ended, iterations):
    """Bring instance 0 to ``now``, or to the next instant at which stages end: they are written to ``ended``.

    Parameters
    ----------
    iterations
        Engine steps by their number of tokens, counted further: index b is for up to 2**b tokens, the last for more.

    Returns
    -------
    int
        How many ended; with any, call it again.
    """
    inst = sim.instance[0]
    while inst.next_event <= now:
        event = inst.next_event
        steps = max(inst.jump, 1)
        before = inst.computed_tokens
        count = end_step(sim, 0, ended)
        tokens = (inst.computed_tokens - before) / steps
        b = 0
        while b < iterations.shape[0] - 1 and tokens > 2**b:
            b += 1
        iterations[b] += steps
        begin_step(sim, 0, event)
        if count > 0:
            return count
    return 0


@kernel
def accept(sim, r, now):
    """Queue stage ``r`` at instance 0, which has been brought to ``now``."""
    arrive(sim, 0, r, now)


@kernel
def wake(sim, now):
    """Let instance 0 start on what has arrived or left at ``now``, if it is idle."""
    inst = sim.instance[0]
    if inst.busy == 0 and inst.touched == 1:
        begin_step(sim, 0, now)


@kernel
def within_jump(sim, now):
    """Steps of the jump that are over at ``now``, and when the next one will be.

    Returns
    -------
    steps, following
        0 and the step's end where the step is no jump.
    """
    inst = sim.instance[0]
    if inst.busy == 0 or inst.jump < 2:
        return 0, inst.next_event
    elapsed = now - inst.step_start + _ROUNDING
    steps = decode_steps_within(sim.coef[0], inst.decodes, inst.decode_context, elapsed, inst.jump)
    if decode_run_seconds(sim.coef[0], inst.decodes, inst.decode_context, steps) > elapsed:
        steps -= 1
    if steps + 1 >= inst.jump:
        return steps, inst.next_event
    return steps, inst.step_start + decode_run_seconds(sim.coef[0], inst.decodes, inst.decode_context, steps + 1)


@kernel
def emitted(sim, r, steps):
    """Tokens that stage ``r`` has put out when ``steps`` of the present jump are over."""
    stage = sim.stage[r]
    if steps > 0 and stage.held > 0 and stage.scheduled > 0:
        return stage.generated + steps
    return stage.generated


@kernel
def count_tokens(sim, r, steps, sums):
    """Add stage ``r``'s tokens to ``sums``: of a prompt that was read, generated, looked up in the cache, found."""
    stage = sim.stage[r]
    out = emitted(sim, r, steps)
    if out > 0:
        sums[0] += stage.prompt
    sums[1] += out
    if not math.isnan(stage.start):
        sums[2] += stage.prompt
        sums[3] += stage.cached


@kernel
def count_live(sim, steps, sums):
    """:func:`count_tokens` of all stages at instance 0."""
    other = sim.instance[0].first_here
    while other != NONE:
        count_tokens(sim, other, steps, sums)
        other = sim.stage[other].next_here
