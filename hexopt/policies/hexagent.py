"""HexAGenT's planner (Y. Peng et al., arXiv 2605.16637) on clusters whose instances prefill and decode alike.

Calls that wait are ordered by the projected ratio, the largest first:

``R(c, t) = ((t - a_w) + Delta(c, t)) / H_w(t)``

with a_w the workflow's arrival, Delta the projected time from now until c is done at its best candidate, and H_w the
horizon: the makespan of what is revealed of workflow w if it ran alone on this cluster. A plan is made greedily on a
copy of the cluster's state: every waiting call's candidate is the instance with the minimum projected finish; the call
with the largest R is applied to the copy; then again for the rest. Long queues are sorted once instead. Calls are bound
late: a plan is made anew whenever calls become ready, for all that still wait; what has started stays.

Assumed, for no full text was at hand, only its abstract and notes of readers that agree on the formula:

- Delta is the wait for the instance's prompts and for memory, plus the own prefill (less what the prefix cache holds),
  plus the decode in the company there at the start. A call reserves its prompt and expected output, and enters when
  they fit: in the order of the plan, so that one that waits for memory holds up the prefills behind it;
- H is the longest path over the revealed calls on their fastest instances, tool times included; a call that has ended
  counts with the length that it turned out to have, any other with the expected one;
- queues of more than 64 calls are sorted once;
- a call leaves for its instance when that can admit it at its next step.

Deviations: no prefill-decode disaggregation, hence one instance a call, no KV transfer, and no second planning at the
decode stage; planning takes no simulated time, so no fallback policy is needed.
"""

# mypy: ignore-errors
from __future__ import annotations

import math
from typing import Any

from numba import typeof

from hexopt.models.kernel import kernel
from hexopt.policies.compiled import first_fitting
from hexopt.policies.hexagent_copy import (
    PROJECTED,
    REVEALED,
    SORT_ABOVE,
    Planning,
    enter_decode,
    horizon,
    new_planning,
    prefilled,
    project,
    put,
    reserved_tokens,
    survey,
    tokens_ahead,
    travel_seconds,
)
from hexopt.policies.hexagent_decodes import plan_decodes
from hexopt.policies.knowledge import Knowledge, believe
from hexopt.policies.serving import begins
from hexopt.simulation.kvcache import found_blocks
from hexopt.simulation.loop import dispatch
from hexopt.simulation.state import DECODE, NONE, PREFILL, Simulation


@kernel
def _consider(sim, know, plan, k, now):
    """Find the candidate of the ``k``-th held stage, and its R."""
    r = plan.held[k]
    stage = sim.stage[r]
    plan.finish[k] = math.inf
    plan.candidate[k] = 0
    plan.partner[k] = NONE
    earliest = math.inf
    for i in range(sim.instance.shape[0]):
        if not begins(sim.instance[i]):
            continue
        if sim.instance[i].role == PREFILL:
            first = prefilled(sim, know, plan, stage, i, plan.new[k, i])
            for d in range(sim.instance.shape[0]):
                if sim.instance[d].role != DECODE:
                    continue
                arrives = first + travel_seconds(sim, stage, i, d)
                if arrives > plan.finish[k]:
                    continue
                _, finish = enter_decode(sim, know, plan, stage, d, arrives)
                # Of equals that with the earlier KV.
                if finish < plan.finish[k] or (finish == plan.finish[k] and arrives < earliest):
                    plan.finish[k] = finish
                    plan.candidate[k] = i
                    plan.partner[k] = d
                    earliest = arrives
            continue
        _, _, finish = project(sim, know, plan, stage, i, plan.new[k, i])
        if finish < plan.finish[k]:
            plan.finish[k] = finish
            plan.candidate[k] = i
            plan.partner[k] = NONE
    if math.isinf(plan.finish[k]):
        # One token that no decode instance has to take.
        plan.candidate[k] = first_fitting(sim, r, 0)
        plan.finish[k] = prefilled(sim, know, plan, stage, plan.candidate[k], plan.new[k, plan.candidate[k]])
    ahead = plan.finish[k] if know.weights[PROJECTED] == 1.0 else 0.0
    plan.ratio[k] = (now - sim.workflow[stage.workflow].arrival + ahead) / plan.horizon[k]


@kernel
def _apply(sim, know, plan, k):
    """Plan the ``k``-th held stage at its candidate: in the copy it is there now."""
    r = plan.held[k]
    stage = sim.stage[r]
    i = plan.candidate[k]
    plan.place[r] = i
    plan.decoder[r] = plan.partner[k]
    stage.expected_new = plan.new[k, i]
    plan.candidate[k] = NONE
    if sim.instance[i].role == PREFILL:
        plan.free_at[i] = prefilled(sim, know, plan, stage, i, plan.new[k, i])
        d = plan.partner[k]
        if d != NONE:
            arrives = plan.free_at[i] + travel_seconds(sim, stage, i, d)
            _, finish = enter_decode(sim, know, plan, stage, d, arrives)
            put(plan, d, finish, reserved_tokens(sim, stage, d))
        return
    _, first, finish = project(sim, know, plan, stage, i, plan.new[k, i])
    plan.free_at[i] = first
    put(plan, i, finish, stage.prompt + max(stage.expected_output, 1.0))


@kernel
def make_plan(sim, know, plan, held, now):
    """Order and place the first ``held`` stages that are held."""
    survey(sim, know, plan)
    plan_decodes(sim, know, plan, now)
    for k in range(held):
        stage = sim.stage[plan.held[k]]
        known = k > 0 and sim.stage[plan.held[k - 1]].workflow == stage.workflow
        if know.weights[REVEALED] == 0.0:
            plan.horizon[k] = 1.0
        else:
            plan.horizon[k] = plan.horizon[k - 1] if known else horizon(sim, know, plan, stage.workflow, now)
        for i in range(sim.instance.shape[0]):
            inst = sim.instance[i]
            found = 0
            if inst.prefix_caching == 1:
                found, _ = found_blocks(sim, i, stage.leaf, (stage.prompt - 1) // inst.block_size)
            plan.new[k, i] = float(stage.prompt - found * inst.block_size)
        _consider(sim, know, plan, k, now)
    resorted = held <= know.weights[SORT_ABOVE]
    for position in range(held):
        best = NONE
        for k in range(held):
            if plan.candidate[k] != NONE and (best == NONE or plan.ratio[k] > plan.ratio[best]):
                best = k
        ratio = plan.ratio[best]
        if not resorted:
            _consider(sim, know, plan, best, now)
        i = plan.candidate[best]
        d = plan.partner[best]
        plan.order[position] = plan.held[best]
        plan.ratio[best] = ratio
        _apply(sim, know, plan, best)
        for k in range(held if resorted else 0):
            # Elsewhere nothing has changed, and here it can only have become later.
            if plan.candidate[k] != NONE and (plan.candidate[k] == i or (d != NONE and plan.partner[k] == d)):
                _consider(sim, know, plan, k, now)
    for k in range(held):
        plan.held[k] = plan.order[k]


@kernel
def send(sim, plan, held):
    """Send the first ``held`` stages that are held to where they are planned, if they can start there.

    Returns
    -------
    int
        How many are still held.
    """
    for i in range(sim.instance.shape[0]):
        inst = sim.instance[i]
        plan.seats[i] = inst.max_seqs - inst.running - inst.waiting
        plan.blocks[i] = inst.free
        other = inst.first_here if inst.waiting > 0 else NONE
        while other != NONE:
            there = sim.stage[other]
            if there.held == 0:
                plan.blocks[i] -= int(there.expected_new) // inst.block_size + 1
            other = there.next_here
        plan.free_at[i] = tokens_ahead(sim, i) if inst.role == PREFILL else 0.0
    kept = 0
    for k in range(held):
        r = plan.held[k]
        i = plan.place[r]
        inst = sim.instance[i]
        needed = int(sim.stage[r].expected_new) // inst.block_size + 1
        idle = inst.running + inst.waiting == 0
        full = plan.free_at[i] >= inst.max_batched
        if not idle and (full or plan.seats[i] < 1 or plan.blocks[i] < needed):
            # Nothing passes it: a smaller one behind would keep it waiting for ever.
            plan.seats[i] = 0
            plan.held[kept] = r
            kept += 1
            continue
        plan.seats[i] -= 1
        plan.blocks[i] -= needed
        if inst.role == PREFILL:
            plan.free_at[i] += sim.stage[r].expected_new
            sim.stage[r].decode_at = plan.decoder[r]
        dispatch(sim, r, i)
    return kept


@kernel
def decide(sim, know, plan):
    """Take the ready stages in, plan if there are any, and send what can start."""
    clock = sim.clock[0]
    held = clock.held
    fresh = clock.ready - clock.ready_done
    for k in range(clock.ready_done, clock.ready):
        believe(sim, know, sim.ready[k])
        plan.held[held] = sim.ready[k]
        held += 1
    for k in range(clock.ready_done, clock.ready):
        w = sim.stage[sim.ready[k]].workflow
        plan.alone_here[w] = horizon(sim, know, plan, w, clock.now) if know.weights[REVEALED] == 1.0 else 1.0
    clock.ready_done = clock.ready
    if fresh > 0:
        make_plan(sim, know, plan, held, clock.now)
    elif clock.landed > 0:
        survey(sim, know, plan)
        plan_decodes(sim, know, plan, clock.now)
    clock.held = send(sim, plan, held)
    clock.wake = math.inf


class Planner:
    """Asked by the event loop; keeps what the kernels work on."""

    tally = None
    """It runs no solver."""

    def __init__(self) -> None:
        self.planning: Planning | None = None

    def decide(self, board: Simulation, know: Knowledge) -> None:
        """Plan and send, see :func:`decide`."""
        clock: Any = board.clock[0]
        there = board.instance["running"] + board.instance["waiting"]
        # With roles, any of those that wait, and of those on their way, may be planned into one instance.
        most = there.sum() + clock["delayed"] if board.instance["role"].any() else there.max()
        needed = int(most) + int(clock["held"]) + int(clock["ready"]) - int(clock["ready_done"])
        if self.planning is None or needed > self.planning.finish.shape[0]:
            self.planning = new_planning(board, 2 * needed, self.planning)
        decide(board, know, self.planning)


def compile_for(board: Simulation, know: Knowledge) -> None:
    """Compile before a run, so that no decision waits for it."""
    compiled: Any = decide
    compiled.compile(tuple(typeof(x) for x in (board, know, new_planning(board, 1))))
