"""AgentMath's prefix-aware weighted load balancing in its rollout system (arXiv 2512.20745).

A request of L prefix tokens weighs ``floor(L / L_base) + w_base``. A session that is known goes to the engine that it
was on, any other to the engine with the least total weight; the engines' queues are first come first served. The least
recently used session is forgotten where there are too many.

Assumed, for the paper names no values: a session is a workflow and its prefix the whole prompt; L_base is 8192 tokens,
w_base 1, and 4096 sessions are remembered; a request's weight is released when it ends; of equals the first engine
wins.

Deviations: only the balancer of its rollout system is here, without tools' sandboxes, segments and iterations; weights
are not divided by the engines' speeds, which the paper has all alike. Where prefill and decode instances part, engines
are those that prefill.
"""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.policies.compiled import first_fitting
from hexopt.simulation.state import NONE

BASE_TOKENS = 0
BASE_WEIGHT = 1
SESSIONS = 2
"""Places in ``Knowledge.weights``."""

ENGINE = 0
OLDER = 1
NEWER = 2
COLUMNS = 3
"""Places in ``Knowledge.programs``: each one more than what it names, 0 for nothing; sessions are linked by use."""

OLDEST = 0
NEWEST = 1
KNOWN = 2
LOADS = 3
"""Places in ``Knowledge.memory``: ends of that list, one more than the session; its length; the engines' weights."""


@kernel
def weight_of(know, prompt):
    """What a request of ``prompt`` tokens weighs."""
    return prompt // know.weights[BASE_TOKENS] + know.weights[BASE_WEIGHT]


@kernel
def _unlink(know, w):
    older = int(know.programs[w, OLDER])
    newer = int(know.programs[w, NEWER])
    if older > 0:
        know.programs[older - 1, NEWER] = newer
    else:
        know.memory[OLDEST] = newer
    if newer > 0:
        know.programs[newer - 1, OLDER] = older
    else:
        know.memory[NEWEST] = older
    know.memory[KNOWN] -= 1.0


@kernel
def _use(know, w):
    """Put session ``w`` at the end of those last used, and forget the first if they are too many."""
    newest = int(know.memory[NEWEST])
    know.programs[w, OLDER] = newest
    know.programs[w, NEWER] = 0.0
    if newest > 0:
        know.programs[newest - 1, NEWER] = w + 1.0
    else:
        know.memory[OLDEST] = w + 1.0
    know.memory[NEWEST] = w + 1.0
    know.memory[KNOWN] += 1.0
    if know.memory[KNOWN] > know.weights[SESSIONS]:
        forgotten = int(know.memory[OLDEST]) - 1
        _unlink(know, forgotten)
        know.programs[forgotten, ENGINE] = 0.0


@kernel
def route(know, w, prompt, engines):
    """The engine for a request of session ``w``, and remember the session."""
    known = int(know.programs[w, ENGINE])
    i = 0
    if known > 0:
        _unlink(know, w)
        i = known - 1
    else:
        for e in range(1, engines):
            if know.memory[LOADS + e] < know.memory[LOADS + i]:
                i = e
    know.programs[w, ENGINE] = i + 1.0
    _use(know, w)
    return i


@kernel
def place(sim, know, r, now):
    """The session's engine, or the one with the least weight."""
    stage = sim.stage[r]
    stage.priority = 0.0
    i = first_fitting(sim, r, route(know, stage.workflow, stage.prompt, sim.instance.shape[0]))
    know.memory[LOADS + i] += weight_of(know, stage.prompt)
    return i


@kernel
def ended(sim, know, r):
    """Take the request's weight off its engine."""
    stage = sim.stage[r]
    engine = stage.instance if stage.prefill_instance == NONE else stage.prefill_instance
    know.memory[LOADS + engine] -= weight_of(know, stage.prompt)
    return r
