"""A plan to start a search from: stage by stage to the place where the objective grows least."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.counting import load_cost
from hexopt.solvers.insertion import by_slack
from hexopt.solvers.kernels import Arrays, kernel
from hexopt.solvers.moves import accept, put
from hexopt.solvers.plan import HELD
from hexopt.solvers.problem import EpochProblem
from hexopt.solvers.search_state import SearchState, keep_best, recount, restore_best
from hexopt.solvers.trials import try_at

_DEPTH = 6
"""Places looked at before the end of each queue."""
_CHUNK = 16
"""Stages between two looks at the clock."""
_BEGIN, _END = 0.5, 0.6
"""Shares of the time limit after which it is not begun, and at which it shall have ended."""


def build(problem: EpochProblem, a: Arrays, s: SearchState, started: float, time_limit: float | None) -> None:
    """Build a plan from nothing, and take it if it costs less than the one there is, which is the best so far."""
    limit = np.inf if time_limit is None else time_limit
    if time.perf_counter() - started > _BEGIN * limit:
        return
    order = by_slack(problem)
    n = order.shape[0]
    empty(a, s)
    begun, depth = time.perf_counter(), _DEPTH
    for k in range(0, n, _CHUNK):
        now = time.perf_counter()
        late = (now - begun) * n > (_END * limit - (begun - started)) * k
        depth = max(0, depth - 1) if late else min(_DEPTH, depth + 1)
        insert_best(a, s, order[k : k + _CHUNK], depth)
    recount(a, s)
    if s.cost[0] < s.cost[1]:
        keep_best(s)
    else:
        restore_best(s)
        recount(a, s)


@kernel
def empty(a: Arrays, s: SearchState) -> None:
    """Take every stage away."""
    s.length[:] = 0
    s.where[:] = HELD
    s.lateness[:] = -np.inf
    s.tardiness[:] = 0.0
    s.late_sum[:] = 0.0
    s.cost[0] = 0.0
    for i in range(s.load.shape[0]):
        s.load[i] = a.backlog[i]
        s.overload[i] = load_cost(a, s, i, 0.0)
        s.cost[0] += s.overload[i]


@kernel
def insert_best(a: Arrays, s: SearchState, order: NDArray[np.int64], depth: int) -> None:
    """Insert the stages of ``order``, none of which is placed, where the objective grows least.

    Looked at are the end of each queue and the ``depth`` places before it.
    """
    m = s.queue.shape[0]
    for r in order:
        best, at = HELD, 0
        least = try_at(a, s, r, HELD, 0, np.inf) if np.isfinite(a.hold[r]) else np.inf
        for i in range(m):
            if np.isinf(s.service[r, i]):
                continue
            for place in range(s.length[i], max(-1, s.length[i] - depth - 1), -1):
                cost = try_at(a, s, r, i, place, least)
                if cost < least:
                    best, at, least = i, place, cost
        if least < np.inf:
            put(a, s, r, best, at)
            accept(s)
