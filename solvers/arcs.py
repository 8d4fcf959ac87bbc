"""Starts that an optimal plan may still have: reachable, and not ruled out by the Lagrangian bound."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.lagrangian import Lagrangian
from hexopt.solvers.plan import HELD

SAME = 1e-9
"""Seconds below which two moments are one."""


@dataclass(frozen=True, slots=True)
class Arcs:
    """Arc k: ``stage[k]`` runs on ``instance[k]`` (HELD: is held) from ``start[k]`` to ``end[k]``."""

    stage: NDArray[np.int64]
    instance: NDArray[np.int64]
    start: NDArray[np.float64]
    end: NDArray[np.float64]


def surviving_arcs(search: Lagrangian, upper: float, most: int) -> Arcs | None:
    """The arcs that a plan of objective at most ``upper`` may have; None if they are more than ``most``.

    A stage starts now, when one is released, when a running call ends, or when a stage before it ends. So the starts on
    an instance are found from these moments on, and arcs whose regret lifts the bound above ``upper`` are left out
    (reduced-cost fixing).
    """
    search.settle()
    p: Any = search.problem
    allowed = upper - search.bound + SAME * (1.0 + abs(upper))
    found: list[tuple[int, int, float, float]] = []
    for r in np.flatnonzero(search.regrets(HELD, 0.0) <= allowed).tolist():
        found.append((r, HELD, 0.0, float(p.hold[r])))
    for i in range(search.problem.instances):
        released = p.release[p.feasible[:, i]]
        moments = sorted({0.0, *p.busy_until[p.busy_instance == i].tolist(), *released.tolist()})
        seen: set[int] = set()
        last = _last_start(p, i)
        while moments:
            t = heapq.heappop(moments)
            key = round(t / SAME)
            if key in seen:
                continue
            seen.add(key)
            for r in np.flatnonzero((search.regrets(i, t) <= allowed) & (t <= last)).tolist():
                end = t + float(p.service[r, i])
                found.append((r, i, t, end))
                heapq.heappush(moments, end)
            if len(found) > most:
                return None
    table = np.array(found, dtype=np.float64).reshape(-1, 4)
    return Arcs(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], table[:, 3])


def _last_start(p: Any, i: int) -> NDArray[np.float64]:
    """When each stage starts on instance ``i`` at the latest: all others ran there, one after the other. Shape (n,).

    First the running calls ended and all were released; from then on something runs while anything waits.
    """
    runs = np.where(p.feasible[:, i], p.service[:, i], 0.0)
    begin = max(p.busy_until[p.busy_instance == i].max(initial=0.0), p.release[p.feasible[:, i]].max(initial=0.0))
    latest: NDArray[np.float64] = begin + runs.sum() - runs + SAME
    return latest
