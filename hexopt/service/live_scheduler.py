"""The rolling horizon in real time: the solver runs in a process of its own, and plans apply when they come."""

# mypy: ignore-errors
from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hexopt.epoch import Epoch
from hexopt.policies.policy import Fleet
from hexopt.policies.rolling_horizon import RollingHorizon
from hexopt.room import Room
from hexopt.scheduler import Pending, Scheduler
from hexopt.service.solver_process import SolverProcess, Task
from hexopt.simulation.state import NONE
from hexopt.solvers import EpochProblem, Plan, greedy
from hexopt.solvers.judge import sequences

_log = logging.getLogger(__name__)

_SECONDS_PER_STAGE = 0.001
"""Solving stops gaining before: a handful of stages is not worth the whole limit."""
_SHARE_OF_SERVICE = 0.01
"""What waits for a plan waits for at most this share of its typical service time."""
_LEAST_LIMIT = 0.001
"""Seconds; below, greedy insertion's plan is hardly improved on before it is late."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan that placed a stage: enough to explain it later."""

    epoch: Epoch
    plan: Plan
    k: int


class LiveScheduler(Scheduler):
    """A :class:`Scheduler` that never waits for its solver.

    Parameters
    ----------
    settings, fleet, send
        As :class:`Scheduler` takes them.
    process
        Who solves.
    stir
        Called when a plan has come, so that :meth:`decide` is asked again.
    """

    def __init__(
        self,
        settings: RollingHorizon,
        fleet: Fleet,
        send: Callable[[Any, int, int], None],
        process: SolverProcess,
        stir: Callable[[], None],
    ) -> None:
        super().__init__(settings, fleet, send)
        self._process = process
        self._stir = stir
        self._gone: set[int] = set()
        self.planned: dict[int, Planned] = {}
        """By stage, for those that a plan has placed and that were not sent yet."""
        self.last: Plan | None = None

    @property
    def waiting(self) -> int:
        """Stages that have not been sent."""
        return len(self._held)

    def rehearse(self, board: Any, know: Any, now: float, rows: list[int]) -> None:
        """Build the problem of some stages and insert them; nothing comes of it."""
        epoch = self._builder.build(board, know, now, rows, [NONE] * len(rows))
        greedy(epoch.problem)
        Room(board, [])

    def forget(self, r: int) -> None:
        """Stage ``r`` is wanted no longer; its number may become another's."""
        if r in self._held:
            self._held.remove(r)
        self._place.pop(r, None)
        self._rank.pop(r, None)
        self.planned.pop(r, None)
        if self._pending is not None:
            self._gone.add(r)

    def release_all(self) -> list[int]:
        """All stages that wait here, given up to another scheduler."""
        held, self._held = self._held, []
        self._place.clear()
        self._rank.clear()
        self.planned.clear()
        self._room_for = []
        self._pending = None
        return held

    def forget_places(self) -> None:
        """An instance has come or gone: what waits is placed anew."""
        self._place.clear()
        self._rank.clear()
        self._room_for = []
        self._last = -math.inf

    def _warm_up(self) -> None:
        """Nothing: the solver warms up in its own process, and insertion in :meth:`rehearse`."""

    def _begin(self, epoch: Epoch, now: float) -> Pending:
        problem = epoch.problem
        limit = self._limit(problem)
        if problem.stages > 1 and limit >= _LEAST_LIMIT and self._process.free:
            pending = Pending(math.inf, epoch, None)
            self._process.submit(Task(problem, self.settings.solver, limit), self._solved)
            return pending
        plan = greedy(problem)
        self._count(epoch, plan.seconds)
        return Pending(now, epoch, plan)

    def _limit(self, problem: EpochProblem) -> float:
        """Seconds that are worth solving for."""
        service = float(np.median(problem.service.min(axis=1)))
        return min(self.settings.time_limit, _SECONDS_PER_STAGE * problem.stages, _SHARE_OF_SERVICE * service)

    def _solved(self, plan: Plan | None, seconds: float) -> None:
        pending = self._pending
        if pending is None or pending.plan is not None:
            return
        problem = pending.epoch.problem
        try:
            if plan is None:
                raise ValueError("no plan in time")
            sequences(problem, plan.instance, plan.order)
        except ValueError as error:
            _log.info("greedy insertion plans %d stages: %s", problem.stages, error)
            self.tally.failed += 1
            plan = greedy(problem)
        self._count(pending.epoch, seconds)
        self._pending = replace(pending, when=-math.inf, plan=plan)
        self._stir()

    def _count(self, epoch: Epoch, seconds: float) -> None:
        held = epoch.stages.shape[0]
        self.tally.solves += 1
        self.tally.stages += held
        self.tally.expected += epoch.problem.stages - held
        self.tally.seconds.append(seconds)
        # A service runs for months.
        del self.tally.seconds[:-1000]

    def _apply(self, board: Any, know: Any, now: float) -> None:
        epoch, plan = self._pending.epoch, self._pending.plan
        if self._gone:
            stages = np.where(np.isin(epoch.stages, list(self._gone)), NONE, epoch.stages)
            epoch = replace(epoch, stages=stages)
            self._pending = replace(self._pending, epoch=epoch)
            self._gone.clear()
        super()._apply(board, know, now)
        self.last = plan
        held = set(self._held)
        for k, r in enumerate(epoch.stages.tolist()):
            if r in held:
                self.planned[r] = Planned(epoch, plan, k)
