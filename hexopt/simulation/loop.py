"""The event loop: arrivals, ends of steps, decisions, starts of steps, in that order at every instant."""

# mypy: ignore-errors
from __future__ import annotations

import math

from numba import int64

from hexopt.models.kernel import kernel
from hexopt.policies.compiled import EXTERNAL, LINKED, PLANNER, ended, first_fitting, place
from hexopt.policies.knowledge import believe
from hexopt.policies.linking import ENDED, HANDED, PLACE, TICK, call_at
from hexopt.simulation.cycles import cycles
from hexopt.simulation.engine import FOREVER, arrive, begin_step, end_step, joins
from hexopt.simulation.handover import bring, freest_decoder, hand_over
from hexopt.simulation.keeping import forget_kept, keep
from hexopt.simulation.lifecycle import change_state
from hexopt.simulation.pinning import expire, unpin_ended
from hexopt.simulation.queues import pop_delayed, push_delayed, push_ready
from hexopt.simulation.state import LOADING, NONE, OPEN, PINNED, TOOLS, TRANSIT

FINISHED = 0
"""Every stage has ended."""
PAUSED = 1
"""The time asked for is reached."""
DECIDE = 2
"""Stages are ready and the policy is not a compiled one: the caller places them and resumes."""


@kernel
def _becomes_ready(sim, r, when):
    """Stage ``r`` has nothing more to wait for but its tools, which start at ``when``."""
    stage = sim.stage[r]
    stage.ready = when + stage.tool_delay
    if stage.tool_delay > 0.0:
        push_delayed(sim, r, TOOLS, stage.ready)
    else:
        push_ready(sim, r)


@kernel
def _finish_stage(policy, sim, know, r, now):
    stage = sim.stage[r]
    workflow = sim.workflow[stage.workflow]
    sim.clock[0].stages_left -= 1
    workflow.stages_left -= 1
    if workflow.stages_left == 0:
        workflow.finish = now
        unpin_ended(sim, stage.workflow, now)
        forget_kept(sim, stage.workflow)
    elif sim.instance[stage.instance].host_keep == 1:
        keep(sim, r)
    ended(policy, sim, know, r)
    for k in range(stage.first_child, stage.first_child + stage.children):
        child = sim.child[k]
        sim.stage[child].parents_left -= 1
        if sim.stage[child].parents_left == 0:
            _becomes_ready(sim, child, now)


@kernel
def _first_token(sim, know, r, now, handed_at):
    """Choose where stage ``r`` decodes, unless it was chosen before, and send it there."""
    stage = sim.stage[r]
    d = stage.decode_at
    if d == NONE:
        if stage.expected_output == 0.0:
            believe(sim, know, r)
        d = call_at(handed_at, (sim, know, int64(r), now)) if handed_at != 0 else freest_decoder(sim, r)
    hand_over(sim, r, d, now)


@kernel
def _timer(sim, r, now):
    """What stage ``r`` waited for has come."""
    if sim.stage[r].errand == TRANSIT:
        sim.clock[0].landed += 1
        bring(sim, r, now)
    elif sim.stage[r].errand == LOADING:
        joins(sim, sim.stage[r].instance, r, now)
    elif sim.stage[r].errand == PINNED:
        expire(sim, r, now)
    else:
        push_ready(sim, r)


@kernel
def _next_time(sim):
    clock = sim.clock[0]
    now = FOREVER
    if clock.next_workflow < sim.workflow.shape[0]:
        now = sim.workflow[clock.next_workflow].arrival
    if clock.delayed > 0:
        now = min(now, sim.stage[sim.delayed[0]].timer)
    now = min(now, clock.wake)
    if clock.stages_left > 0:
        now = min(now, clock.tick)
        if clock.next_event < sim.event.shape[0]:
            now = min(now, sim.event[clock.next_event].when)
    for i in range(sim.instance.shape[0]):
        now = min(now, sim.instance[i].next_event)
    return now


@kernel
def run(sim, know, policy, hooks, finished, until):
    """Advance to the end, to time ``until``, or to the next decision that is the caller's.

    Parameters
    ----------
    sim, know
        The state, and what policies may know and remember; both are changed.
    policy
        Number of the compiled policy, or ``EXTERNAL``.
    hooks
        Addresses of the rules of a ``LINKED`` policy, 0 where there is none, shape (HOOKS,).
    finished
        Scratch, int32, shape (largest max_seqs,).

    Returns
    -------
    int
        FINISHED, PAUSED or DECIDE.
    """
    clock = sim.clock[0]
    instances = sim.instance.shape[0]
    while True:
        if clock.ready == 0 and clock.planned == 0:
            now = _next_time(sim)
            if math.isinf(now):
                return FINISHED
            if now > until:
                return PAUSED
            clock.now = now
            stirred = clock.wake <= now
            if stirred:
                clock.wake = FOREVER
            for i in range(instances):
                if sim.instance[i].next_event <= now:
                    for k in range(end_step(sim, i, finished)):
                        stirred = True
                        r = finished[k]
                        if r < 0:
                            _first_token(sim, know, ~r, now, hooks[HANDED])
                            continue
                        _finish_stage(policy, sim, know, r, now)
                        if hooks[ENDED] != 0:
                            call_at(hooks[ENDED], (sim, know, int64(r)))
            clock.landed = 0
            while clock.delayed > 0 and sim.stage[sim.delayed[0]].timer <= now:
                _timer(sim, pop_delayed(sim), now)
            while clock.next_event < sim.event.shape[0] and sim.event[clock.next_event].when <= now:
                event = sim.event[clock.next_event]
                clock.next_event += 1
                sim.instance[event.instance].ordered = event.state
                change_state(sim, event.instance, event.state, now)
                stirred = True
            if clock.tick <= now:
                clock.tick = FOREVER
                call_at(hooks[TICK], (sim, know, now))
            while clock.next_workflow < sim.workflow.shape[0]:
                workflow = sim.workflow[clock.next_workflow]
                if workflow.arrival > now:
                    break
                clock.next_workflow += 1
                for r in range(workflow.first_stage, workflow.first_stage + workflow.stages):
                    if sim.stage[r].parents_left == 0:
                        _becomes_ready(sim, r, workflow.arrival)
            if policy == PLANNER and (clock.ready > 0 or clock.landed > 0 or (clock.held > 0 and stirred)):
                clock.planned = 1
                return DECIDE
        now = clock.now
        clock.planned = 0
        if clock.ready_done < clock.ready and policy == EXTERNAL:
            return DECIDE
        while clock.ready_done < clock.ready:
            r = sim.ready[clock.ready_done]
            clock.ready_done += 1
            clock.decisions += 1
            started = cycles()
            if policy == LINKED:
                i = call_at(hooks[PLACE], (sim, know, int64(r), now))
            else:
                i = place(policy, sim, know, r, now)
            clock.decision_cycles += cycles() - started
            arrive(sim, i, r, now)
        clock.ready = 0
        clock.ready_done = 0
        for i in range(instances):
            if sim.instance[i].touched == 1 and sim.instance[i].busy == 0:
                begin_step(sim, i, now)


@kernel
def dispatch(sim, r, i):
    """Send stage ``r``, which a planner had, to instance ``i``, or to the next open one."""
    clock = sim.clock[0]
    if sim.instance[i].state != OPEN:
        i = first_fitting(sim, r, i)
    clock.decisions += 1
    arrive(sim, i, r, clock.now)


@kernel
def place_external(sim, r, i, priority):
    """Carry out an external policy's decision for the ready stage ``r``."""
    clock = sim.clock[0]
    clock.ready_done += 1
    clock.decisions += 1
    sim.stage[r].priority = priority
    arrive(sim, i, r, clock.now)


__all__ = ["DECIDE", "FINISHED", "NONE", "PAUSED", "dispatch", "place_external", "run"]
