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
from hexopt.policies.hexagent_copy import Planning, horizon, new_planning, project, survey
from hexopt.policies.knowledge import Knowledge, believe
from hexopt.simulation.kvcache import found_blocks
from hexopt.simulation.loop import dispatch
from hexopt.simulation.state import NONE, Simulation

SORT_ABOVE = 0
REVEALED = 1
PROJECTED = 2
"""Places in ``Knowledge.weights``: longest queue that is planned greedily; whether H counts, or 1; whether Delta."""


@kernel
def _consider(sim, know, plan, k, now):
    """Find the candidate of the ``k``-th held stage, and its R."""
    stage = sim.stage[plan.held[k]]
    plan.finish[k] = math.inf
    plan.candidate[k] = 0
    for i in range(sim.instance.shape[0]):
        _, _, finish = project(sim, know, plan, stage, i, plan.new[k, i])
        if finish < plan.finish[k]:
            plan.finish[k] = finish
            plan.candidate[k] = i
    ahead = plan.finish[k] if know.weights[PROJECTED] == 1.0 else 0.0
    plan.ratio[k] = (now - sim.workflow[stage.workflow].arrival + ahead) / plan.horizon[k]


@kernel
def _apply(sim, know, plan, k):
    """Plan the ``k``-th held stage at its candidate: in the copy it is there now."""
    r = plan.held[k]
    stage = sim.stage[r]
    i = plan.candidate[k]
    _, first, finish = project(sim, know, plan, stage, i, plan.new[k, i])
    place = plan.there[i]
    plan.free_at[i] = first
    plan.ends[i, place] = finish
    plan.tokens[i, place] = stage.prompt + max(stage.expected_output, 1.0)
    plan.there[i] = place + 1
    plan.place[r] = i
    stage.expected_new = plan.new[k, i]
    plan.candidate[k] = NONE


@kernel
def make_plan(sim, know, plan, held, now):
    """Order and place the first ``held`` stages that are held."""
    survey(sim, know, plan)
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
        plan.order[position] = plan.held[best]
        plan.ratio[best] = ratio
        _apply(sim, know, plan, best)
        for k in range(held if resorted else 0):
            # Elsewhere nothing has changed, and here it can only have become later.
            if plan.candidate[k] == i:
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
    kept = 0
    for k in range(held):
        r = plan.held[k]
        i = plan.place[r]
        inst = sim.instance[i]
        needed = int(sim.stage[r].expected_new) // inst.block_size + 1
        idle = inst.running + inst.waiting == 0
        if not idle and (plan.seats[i] < 1 or plan.blocks[i] < needed):
            # Nothing passes it: a smaller one behind would keep it waiting for ever.
            plan.seats[i] = 0
            plan.held[kept] = r
            kept += 1
            continue
        plan.seats[i] -= 1
        plan.blocks[i] -= needed
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
    clock.ready_done = clock.ready
    if fresh > 0:
        make_plan(sim, know, plan, held, clock.now)
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
        needed = int(there.max()) + int(clock["held"]) + int(clock["ready"]) - int(clock["ready_done"])
        if self.planning is None or needed > self.planning.finish.shape[0]:
            self.planning = new_planning(board, 2 * needed, self.planning)
        decide(board, know, self.planning)


def compile_for(board: Simulation, know: Knowledge) -> None:
    """Compile before a run, so that no decision waits for it."""
    compiled: Any = decide
    compiled.compile(tuple(typeof(x) for x in (board, know, new_planning(board, 1))))
