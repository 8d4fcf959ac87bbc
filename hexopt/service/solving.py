"""Solving for API clients: in a process of its own, a few at a time."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

MOST = 8
"""Problems that are solved or wait; further ones are turned away."""


class Busy(Exception):
    """Too many problems wait."""


def solved(table: dict[str, Any], solver: str, time_limit: float, seed: int) -> dict[str, Any]:
    """The plan of a problem given as a table, for JSON.

    Raises
    ------
    ValueError
        If the problem is wrong.
    """
    from hexopt.solvers import evaluate, solve
    from hexopt.solvers.files import problem_from

    problem = problem_from(table)
    plan = solve(problem, solver=solver, time_limit=time_limit, seed=seed)
    found = evaluate(problem, plan.instance, plan.order)
    return {
        "solver": plan.solver,
        "status": plan.status,
        "seconds": plan.seconds,
        "objective": plan.objective,
        "bound": plan.bound if math.isfinite(plan.bound) else None,
        "gap": plan.gap if math.isfinite(plan.gap) else None,
        "terms": found.terms,
        "instance": plan.instance.tolist(),
        "order": plan.order.tolist(),
        "completion": [x if math.isfinite(x) else None for x in found.completion.tolist()],
        "homeless": problem.homeless.tolist(),
    }


class Solving:
    """Solves in one further process, which starts with the first problem."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._waiting = 0

    async def solve(self, table: dict[str, Any], solver: str, time_limit: float, seed: int) -> dict[str, Any]:
        """As :func:`solved`.

        Raises
        ------
        Busy
            If ``MOST`` problems wait already.
        """
        if self._waiting >= MOST:
            raise Busy(f"{self._waiting} problems wait already")
        self._waiting += 1
        try:
            for last in (False, True):
                if self._pool is None:
                    self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
                try:
                    loop = asyncio.get_running_loop()
                    return await loop.run_in_executor(self._pool, solved, table, solver, time_limit, seed)
                except BrokenProcessPool:
                    self._pool = None
                    if last:
                        raise ValueError("the solver's process died of this problem twice") from None
        finally:
            self._waiting -= 1
        raise AssertionError

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
