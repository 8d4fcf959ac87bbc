"""Autellix's program-level attained service, PLAS and ATLAS, and its balancer (M. Luo et al., arXiv 2502.13965).

A program (a workflow here) has attained service; its call queues by it, the least first:

- PLAS: ``p(c_j) = sum over the earlier calls k < j of the program of t_k``, t the time that a call ran;
- ATLAS: ``p(c) = 0`` for a call without parents, else the maximum over its parents of ``p + t``, kept as one number a
  program: when a call ends, ``service = max(service, p(c) + t)``.

K queues: a call joins the one whose bin holds its p, first come first served in it. A program that has waited BETA
times as long as it was served joins the first queue. Placement: a call of at most 2048 prompt tokens goes to the least
used engine, a longer one to its program's own, which is the least used when the program first has a long call.

Assumed, for the paper as far as it could be read names no values: 8 queues whose bins end at 1, 2, 4 ... quanta; a
quantum is the training's mean service of a call; BETA is 10. The least used engine is that with the fewest calls for
its speed (the paper's are all alike; ``by_speed=false`` counts calls).

Deviations: a call keeps the queue that it joined: it is not demoted when its quantum is over, nor promoted while it
waits, and nothing running is preempted but for memory, as instances have no such mechanism.
"""

# mypy: ignore-errors
from __future__ import annotations

import math

from hexopt.models.kernel import kernel
from hexopt.policies.compiled import first_fitting
from hexopt.policies.deadline import least_loaded_for_its_speed
from hexopt.policies.least_loaded import least_requests

CRITICAL_PATH = 0
QUEUES = 1
QUANTUM = 2
BETA = 3
LONG = 4
BY_SPEED = 5
"""Places in ``Knowledge.weights``: whether ATLAS; K; seconds, 0 for the mean in the table; starvation; tokens; load."""

SERVICE = 0
WAITED = 1
SERVED = 2
ENGINE = 3
COLUMNS = 4
"""Places in ``Knowledge.programs``, seconds but for the last: one more than the program's engine, 0 without one."""


@kernel
def queue_of(service, quantum, queues):
    """The queue for attained ``service``: bins end at 1, 2, 4 ... quanta, the last one is open."""
    if service < quantum:
        return 0
    return min(1 + int(math.log2(service / quantum)), int(queues) - 1)


@kernel
def _least_used(sim, know):
    if know.weights[BY_SPEED] == 1.0:
        return least_loaded_for_its_speed(sim, know)
    return least_requests(sim)


@kernel
def place(sim, know, r, now):
    """Least used, or the program's own engine; queue by attained service."""
    stage = sim.stage[r]
    program = know.programs[stage.workflow]
    # Kept with the call: the program's may have grown before the call ends.
    stage.urgency = program[SERVICE]
    quantum = know.weights[QUANTUM] if know.weights[QUANTUM] > 0.0 else know.table[0, 0]
    stage.priority = queue_of(program[SERVICE], quantum, know.weights[QUEUES])
    if program[SERVED] > 0.0 and program[WAITED] >= know.weights[BETA] * program[SERVED]:
        stage.priority = 0.0
    if stage.prompt <= know.weights[LONG]:
        return first_fitting(sim, r, _least_used(sim, know))
    if program[ENGINE] == 0.0:
        program[ENGINE] = 1.0 + _least_used(sim, know)
    return first_fitting(sim, r, int(program[ENGINE]) - 1)


@kernel
def ended(sim, know, r):
    """Add to the program's service and waiting time."""
    stage = sim.stage[r]
    program = know.programs[stage.workflow]
    took = stage.finish - stage.start
    program[SERVED] += took
    program[WAITED] += stage.start - stage.ready
    if know.weights[CRITICAL_PATH] == 1.0:
        program[SERVICE] = max(program[SERVICE], stage.urgency + took)
    else:
        program[SERVICE] += took
    return r
