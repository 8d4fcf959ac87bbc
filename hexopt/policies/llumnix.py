"""Llumnix: dispatch to the freest instance, calls that move while they run, priority classes, scaling.

B. Sun et al., OSDI'24, arXiv 2406.03243: algorithm 1 and sections 4.3 and 4.4; values and the choice of a call from
its artefact and its published code. Freeness, roughly the decode steps that an instance can still run, is

``F = (M - sum V) / B``

with M blocks of memory, V the virtual usage of a call (the blocks that it holds; the demand of one that waits), and B
calls. An instance that drains has F = -infinity.

- *Dispatch*: to the largest F, first come first served; as in :mod:`hexopt.policies.infaas`, whose rule it is.
- *Migration*, every ``period`` seconds: instances with F below ``threshold`` are sources, those above it destinations;
  the lowest is paired with the highest, and so on. B counts the running calls, and one more where any wait. A source
  chooses the call to move: of the low class first, the shortest first (``choose=last``: the one that runs last, as in
  the artefact); one at a time, and as long as its F is below the threshold.
- *Priority classes* (``priorities=true``): workflows whose weight is above 1 are the high class. Its calls go first in
  the queues, and an instance that runs some has a reserve, so that they keep the ideal decode speed: all blocks but
  those of ``target`` tokens. A call of the high class is dispatched as if where none of its class is were reserved.
- *Scaling* (``scale=true``): where the mean F of the open instances is below ``low``, one more opens; above ``high``,
  that with the fewest running calls drains, and goes down once it is empty; looked at every ``interval`` seconds.

Assumed: a waiting call demands the blocks of its prompt; every period is four steps of about 30 ms, at which rate the
artefact looks for pairs; only calls that decode move, and only to instances without waiting calls, as there; an idle
instance is infinitely free, and counts in the mean as one with a single call; one that is opened starts after ``start``
seconds, first those that drain, without delay; one that is down starts where calls wait that fit on no other.

Deviations: instances that have preempted calls lately are not singled out as sources; the copies slow no engine down
(measured there: 1%); blocks that the destination has cached are copied, too; no session stickiness.
"""

# mypy: ignore-errors
from __future__ import annotations

import math

from hexopt.models.kernel import kernel
from hexopt.policies import infaas
from hexopt.policies.compiled import first_fitting
from hexopt.simulation.lifecycle import change_state
from hexopt.simulation.migration import begin_move, free_at, may_move
from hexopt.simulation.state import DOWN, DRAINING, MIXED, NONE, OPEN

HEAD_ONLY = 0
PERIOD = 1
THRESHOLD = 2
LAST = 3
PRIORITIES = 4
TARGET = 5
SCALE = 6
LOW = 7
HIGH = 8
INTERVAL = 9
LEAST = 10
START = 11
MIGRATE = 12
"""Places in ``Knowledge.weights``; the first is :mod:`hexopt.policies.infaas`'s."""

SCALED = 0
FREE = 1
"""Places in ``Knowledge.memory``: when scaling was looked at last; then the instances' freeness at the present turn,
and after these, when each opens, 0 where it is not starting."""


@kernel
def freeness(blocks, used, calls):
    """``(M - sum V) / B``; infinite where there is no call."""
    if calls == 0:
        return math.inf
    return (blocks - used) / calls


@kernel
def wanted_scaling(mean, low, high, instances, most, least):
    """1 where the mean freeness asks for an instance more, -1 for one less, else 0."""
    if mean < low and instances < most:
        return 1
    if mean > high and instances > least:
        return -1
    return 0


@kernel
def _high(sim, r):
    return sim.workflow[sim.stage[r].workflow].weight > 1.0


@kernel
def _hosts_high(sim, i):
    r = sim.instance[i].first_here
    while r != NONE:
        if _high(sim, r):
            return True
        r = sim.stage[r].next_here
    return False


@kernel
def _reserve(sim, know, i):
    inst = sim.instance[i]
    return inst.blocks - know.weights[TARGET] / inst.block_size


@kernel
def _demand(sim, i):
    """Blocks that the waiting calls of instance ``i`` demand."""
    inst = sim.instance[i]
    blocks = 0
    if inst.waiting == 0:
        return blocks
    r = inst.first_here
    while r != NONE:
        stage = sim.stage[r]
        if stage.held == 0:
            blocks += (stage.prompt + stage.generated + inst.block_size - 1) // inst.block_size
        r = stage.next_here
    return blocks


@kernel
def load_freeness(sim, know, i, now):
    """F of instance ``i`` as migration and scaling look at it."""
    inst = sim.instance[i]
    if inst.state != OPEN:
        return -math.inf
    used = inst.blocks - free_at(sim, i, now) + _demand(sim, i)
    if know.weights[PRIORITIES] == 1.0 and _hosts_high(sim, i):
        used += _reserve(sim, know, i)
    return freeness(inst.blocks, used, inst.running + inst.joining + min(inst.waiting, 1))


@kernel
def place(sim, know, r, now):
    """The instance with the largest freeness to this call's class."""
    stage = sim.stage[r]
    if know.weights[PRIORITIES] == 0.0:
        return infaas.place(sim, know, r, now)
    high = _high(sim, r)
    stage.priority = 0.0 if high else 1.0
    best = 0
    most = -math.inf
    for i in range(sim.instance.shape[0]):
        inst = sim.instance[i]
        used = inst.blocks - inst.free + _demand(sim, i)
        if _hosts_high(sim, i) != high:
            used += _reserve(sim, know, i)
        free = freeness(inst.blocks, used, inst.running + inst.waiting)
        if inst.state == OPEN and free > most:
            best = i
            most = free
    return first_fitting(sim, r, best)


@kernel
def chosen_call(sim, know, i, d):
    """The running call that instance ``i`` sends to instance ``d``; NONE where none may go."""
    best = NONE
    for k in range(sim.instance[i].running):
        r = sim.running[i, k]
        if not may_move(sim, r, d):
            continue
        if best == NONE:
            best = r
            continue
        lower = know.weights[PRIORITIES] == 1.0 and _high(sim, best) and not _high(sim, r)
        higher = know.weights[PRIORITIES] == 1.0 and _high(sim, r) and not _high(sim, best)
        shorter = sim.stage[r].computed < sim.stage[best].computed
        if lower or (not higher and (shorter or know.weights[LAST] == 1.0)):
            best = r
    return best


@kernel
def _pair(sim, know, now):
    """Let a call move from each source to its destination: the lowest to the highest freeness, and so on."""
    instances = sim.instance.shape[0]
    free = know.memory
    while True:
        source = NONE
        to = NONE
        for i in range(instances):
            f = free[FREE + i]
            inst = sim.instance[i]
            if f < know.weights[THRESHOLD] and inst.running > 0 and (source == NONE or f < free[FREE + source]):
                source = i
            if f > know.weights[THRESHOLD] and inst.waiting == 0 and (to == NONE or f > free[FREE + to]):
                to = i
        if source == NONE or to == NONE:
            return
        free[FREE + source] = math.nan
        free[FREE + to] = math.nan
        if sim.instance[source].moving == 0:
            r = chosen_call(sim, know, source, to)
            if r != NONE:
                begin_move(sim, r, to, now)


@kernel
def _scale(sim, know, now):
    instances = sim.instance.shape[0]
    opens = FREE + instances
    total = 0.0
    up = 0
    starting = 0
    for i in range(instances):
        inst = sim.instance[i]
        if inst.state == OPEN:
            total += min(know.memory[FREE + i], float(inst.blocks))
            up += 1
        elif know.memory[opens + i] > 0.0:
            starting += 1
    wanted = wanted_scaling(
        total / max(up, 1), know.weights[LOW], know.weights[HIGH], up + starting, instances, know.weights[LEAST]
    )
    chosen = NONE
    for i in range(instances):
        inst = sim.instance[i]
        if inst.role != MIXED or inst.ordered != OPEN or know.memory[opens + i] > 0.0:
            continue
        warmer = chosen == NONE or (inst.state == DRAINING and sim.instance[chosen].state == DOWN)
        if wanted == 1 and inst.state != OPEN and warmer:
            chosen = i
        fewest = chosen == NONE or inst.running < sim.instance[chosen].running
        if wanted == -1 and inst.state == OPEN and fewest:
            chosen = i
    if chosen == NONE or (wanted == -1 and up < 2):
        return
    if wanted == -1:
        change_state(sim, chosen, DRAINING, now)
    elif sim.instance[chosen].state == DRAINING:
        change_state(sim, chosen, OPEN, now)
    else:
        know.memory[opens + chosen] = now + know.weights[START]


@kernel
def _settle(sim, know, now):
    """Open what has started, stop what has drained, start what calls wait for that fit nowhere else."""
    instances = sim.instance.shape[0]
    opens = FREE + instances
    for i in range(instances):
        inst = sim.instance[i]
        if inst.ordered != OPEN:
            know.memory[opens + i] = 0.0
        elif know.memory[opens + i] > 0.0 and now >= know.memory[opens + i]:
            know.memory[opens + i] = 0.0
            change_state(sim, i, OPEN, now)
        elif inst.state == DRAINING and inst.first_here == NONE and inst.moving == 0:
            change_state(sim, i, DOWN, now)
        elif inst.state == DOWN and inst.waiting > 0 and know.memory[opens + i] == 0.0:
            know.memory[opens + i] = now + know.weights[START]


@kernel
def tick(sim, know, now):
    """Pair and move; scale."""
    if know.weights[SCALE] == 1.0:
        _settle(sim, know, now)
    for i in range(sim.instance.shape[0]):
        know.memory[FREE + i] = load_freeness(sim, know, i, now)
    if know.weights[SCALE] == 1.0 and now >= know.memory[SCALED] + know.weights[INTERVAL]:
        know.memory[SCALED] = now
        _scale(sim, know, now)
    if know.weights[MIGRATE] == 1.0:
        _pair(sim, know, now)
    if know.weights[MIGRATE] == 1.0 or know.weights[SCALE] == 1.0:
        sim.clock[0].tick = now + know.weights[PERIOD]
    return sim.instance.shape[0]
