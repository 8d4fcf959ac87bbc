"""The rolling horizon: stages wait here, are planned on events and on a timer, and leave when they can start.

At an event the held stages become an epoch problem, a solver plans them, and the plan is applied as many seconds later
as solving took, to those that still wait. Stages that become ready while a plan is being made, or sooner after the last
one than the floor, are placed by greedy urgency at once. A planned stage leaves when its instance can admit it at its
next step; until then it may be planned elsewhere.
"""

# mypy: ignore-errors
from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

import numpy as np

from hexopt.epoch import Epoch, EpochBuilder, appraise_all
from hexopt.objective import make_objective
from hexopt.pair_epoch import only_roles
from hexopt.pair_scheduler import PairScheduler
from hexopt.policies import compiled
from hexopt.policies.knowledge import Knowledge
from hexopt.policies.policy import Fleet
from hexopt.policies.rolling_horizon import RollingHorizon
from hexopt.room import Room
from hexopt.simulation.loop import dispatch
from hexopt.simulation.state import NONE, Simulation
from hexopt.solvers import HELD, EpochProblem, Plan, anneal, greedy, solve
from hexopt.solvers.extras import MissingExtraError
from hexopt.solvers.judge import sequences
from hexopt.solvers.spoiling import spoil

_log = logging.getLogger(__name__)

_OVERTIME = 1.1
"""A solver that takes longer than its limit by this factor is late."""
_SOON = 1e-9
_REHEARSALS = 20


@dataclass
class SolveTally:
    """What the solver did in a run."""

    solves: int = 0
    stages: int = 0
    expected: int = 0
    """Expected successors in the problems, beside the stages."""
    seconds: list[float] = field(default_factory=list)
    """Of each solve."""
    failed: int = 0
    """Solves that raised an error or returned no plan: greedy insertion's was used."""
    late: int = 0
    """Solves that took more than a tenth longer than they may."""
    reacted: int = 0
    """Stages that greedy urgency placed between solves."""
    homeless: int = 0
    """Stages that fit nowhere as far as is known, and were sent where their context is long enough."""
    moved: int = 0
    """Waiting stages whose place changed."""

    def count(self, stages: int, expected: int, seconds: float, limit: float) -> None:
        """A problem of ``stages``, and ``expected`` ones, was solved in so many seconds of ``limit``."""
        self.solves += 1
        self.stages += stages
        self.expected += expected
        self.seconds.append(seconds)
        self.late += seconds > _OVERTIME * limit


@dataclass(frozen=True)
class Pending:
    """A plan that is applied at a time."""

    when: float
    epoch: Epoch
    plan: Plan


class Scheduler:
    """The rolling horizon over one run; the board's event loop asks :meth:`decide`.

    Parameters
    ----------
    settings
        How it plans.
    fleet
        What it is told of the instances.
    send
        Called with the board, a stage and its instance when the stage leaves.
    """

    def __init__(
        self, settings: RollingHorizon, fleet: Fleet, send: Callable[[Simulation, int, int], None] = dispatch
    ) -> None:
        self.settings = settings
        self._dispatch = send
        self.tally = SolveTally()
        self._builder = EpochBuilder(
            make_objective(settings.objective),
            fleet.price / 3600.0,
            settings.tail_share,
            settings.congestion,
            settings.lookahead,
        )
        self._held: list[int] = []
        self._place: dict[int, int] = {}
        self._rank: dict[int, int] = {}
        self._room_for: list[tuple[int, int, float]] = []
        self._pending: Pending | None = None
        self._pairs: PairScheduler | None = None
        self._last = -math.inf
        self._warm_up()
        self.watch: Callable[[Epoch, float], None] | None = None
        """Called with every epoch before it is solved, and its time."""

    def _warm_up(self) -> None:
        warm_up(self.settings.solver)

    def decide(self, board: Simulation, know: Knowledge) -> None:
        """Take the ready stages in, plan, send what can start, and say when to be asked again."""
        if self._pairs is None and only_roles(board):
            self._pairs = PairScheduler(self.settings, self.tally, self._dispatch)
        if self._pairs is not None:
            self._pairs.decide(board, know)
            return
        clock = board.clock[0]
        now = float(clock["now"])
        fresh = board.ready[int(clock["ready_done"]) : int(clock["ready"])].tolist()
        clock["ready_done"] = clock["ready"]
        self._held += fresh
        if self._pending is not None and now >= self._pending.when - _SOON:
            self._apply(board, know, now)
        if self._pending is None and self._held and now >= self._last + self.settings.floor - _SOON:
            self._plan(board, know, now)
        self._send(board)
        waits = set() if self._pending is None else set(self._pending.epoch.stages.tolist())
        for r in fresh:
            if r not in self._place and r not in waits and r in self._held:
                self._place[r] = int(compiled.place(compiled.GREEDY_URGENCY, board, know, r, now))
                self._rank[r] = -1
                self.tally.reacted += 1
                # The next one is placed with this one on the board.
                self._send(board)
        clock["held"] = len(self._held)
        clock["wake"] = self._wake()

    def _wake(self) -> float:
        if self._pending is not None:
            return self._pending.when
        return self._last + max(self.settings.epoch, self.settings.floor) if self._held else math.inf

    def _plan(self, board: Simulation, know: Knowledge, now: float) -> None:
        """Solve for the stages held now; the plan is applied when solving would be done."""
        self._last = now
        stages = self._held
        if not self.settings.reassign:
            stages = [r for r in stages if r not in self._place]
        most = int(self.settings.together * board.instance.shape[0])
        if 0 < most < len(stages):
            stages = self._most_urgent(board, know, now, stages, most)
        if not stages:
            return
        epoch = self._builder.build(board, know, now, stages, [self._place.get(r, NONE) for r in stages])
        if self.watch is not None:
            self.watch(epoch, now)
        self._pending = self._begin(epoch, now)
        if self._pending.when <= now:
            self._apply(board, know, now)

    def _most_urgent(self, board: Simulation, know: Knowledge, now: float, stages: list[int], most: int) -> list[int]:
        """The ``most`` of ``stages`` with the least slack."""
        appraise_all(board, know, np.array(stages, dtype=np.int64), now, self.settings.tail_share)
        slack = board.stage["priority"][stages]
        return [stages[k] for k in np.argsort(slack, kind="stable")[:most]]

    def _begin(self, epoch: Epoch, now: float) -> Pending:
        """Start to solve; says when the plan is applied."""
        plan, seconds = self._solve(epoch)
        took = 0.0 if self.settings.freeze else self.settings.solve_seconds or seconds
        return Pending(now + took, epoch, plan)

    def _solve(self, epoch: Epoch) -> tuple[Plan, float]:
        """The solver's plan, or greedy insertion's where it fails; and the seconds that it took."""
        started = time.perf_counter()
        settings, problem = self.settings, epoch.problem
        try:
            if problem.stages == 1:
                # Insertion tries every instance: nothing is better.
                plan = greedy(problem)
            elif settings.freeze and settings.solver == "annealing":
                # Expected stages only make room: they need no search of their own.
                plan = anneal(problem, time_limit=None, moves=int(settings.moves) * epoch.stages.shape[0])
            else:
                plan = solve(problem, solver=settings.solver, time_limit=settings.time_limit)
            sequences(problem, plan.instance, plan.order)
            if settings.spoil > 0.0:
                plan = spoil(problem, plan, settings.spoil, seed=self.tally.solves)
        except MissingExtraError:
            raise
        except Exception:
            _log.exception("solver %s failed on %d stages: greedy insertion plans", settings.solver, problem.stages)
            self.tally.failed += 1
            plan = greedy(problem)
        seconds = time.perf_counter() - started
        stages = epoch.stages.shape[0]
        self.tally.count(stages, problem.stages - stages, seconds, settings.time_limit)
        return plan, seconds

    def _apply(self, board: Simulation, know: Knowledge, now: float) -> None:
        """Give the stages that still wait the places of the pending plan."""
        epoch, plan = self._pending.epoch, self._pending.plan
        self._pending = None
        waiting = set(self._held)
        self._room_for = []
        for rank, k in enumerate(plan.order.tolist()):
            if k >= epoch.stages.shape[0]:
                # Only expected: those behind it leave room for it until the next plan, which expects anew.
                if plan.instance[k] != HELD:
                    self._room_for.append((rank, int(plan.instance[k]), float(epoch.new[k, plan.instance[k]])))
                continue
            r, i = int(epoch.stages[k]), int(plan.instance[k])
            if r not in waiting:
                continue
            if i == HELD:
                self.tally.homeless += 1
                i = int(compiled.place(compiled.GREEDY_URGENCY, board, know, r, now))
            self.tally.moved += r in self._place and self._place[r] != i
            self._place[r], self._rank[r] = i, rank
            board.stage["expected_new"][r] = epoch.new[k, i]

    def _send(self, board: Simulation) -> None:
        """Dispatch what its instance can admit at its next step, in the plan's order."""
        placed = sorted((r for r in self._held if r in self._place), key=lambda r: self._rank[r])
        if not placed:
            return
        room = Room(board, self._room_for) if self.settings.late_binding else None
        sent = set()
        for r in placed:
            i = self._place[r]
            if room is not None and not room.take(i, self._rank[r], float(board.stage["expected_new"][r])):
                continue
            self._dispatch(board, r, i)
            sent.add(r)
        for r in sent:
            del self._place[r], self._rank[r]
        self._held = [r for r in self._held if r not in sent]


@cache
def warm_up(solver: str) -> None:
    """Solve a tiny problem, so that no plan of a run waits for a compiler."""
    two = np.ones(2)
    tiny = EpochProblem(
        service=np.ones((2, 2)), tail=two, workflow=[0, 1], due=two, weight=two, seats=two, kv_capacity=two, kv=two
    )
    greedy(tiny)
    try:
        # Time spent on compiling is not spent on solving: what comes later may not have been reached.
        for _ in range(_REHEARSALS):
            started = time.perf_counter()
            solve(tiny, solver=solver, time_limit=0.1)
            if time.perf_counter() - started < 0.2:
                break
    except MissingExtraError:
        raise
    except Exception:
        _log.exception("solver %s failed on a tiny problem", solver)


class _Seen(Exception):
    """The epoch that was looked for."""

    def __init__(self, epoch: Epoch, now: float) -> None:
        super().__init__()
        self.found = (epoch, now)


@dataclass(frozen=True)
class _Watched(RollingHorizon):
    """Shows every epoch, and its time, before it is solved."""

    watch: Callable[[Epoch, float], None] | None = None

    def scheduler(self, fleet: Fleet) -> Scheduler:
        result = Scheduler(self, fleet)
        result.watch = self.watch
        return result


def watched(settings: RollingHorizon, watch: Callable[[Epoch, float], None]) -> RollingHorizon:
    """The same policy, whose every epoch is shown to ``watch`` with its time before it is solved."""
    own = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return _Watched(**own, watch=watch)


def epoch_at(
    experiment: Any, settings: RollingHorizon, picks: Any, times: Any, at: float, stages: int
) -> tuple[Epoch, float] | None:
    """The first epoch of a run from second ``at`` on with at least ``stages`` stages, and its time; None without one.

    Parameters
    ----------
    experiment
        A :class:`hexopt.simulation.experiment.Experiment`.
    picks, times
        As it takes them.
    """

    def watch(epoch: Epoch, now: float) -> None:
        if now >= at and epoch.problem.stages >= stages:
            raise _Seen(epoch, now)

    try:
        experiment.run(watched(settings, watch), picks, times)
    except _Seen as seen:
        return seen.found
    return None
