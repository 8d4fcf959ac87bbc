"""The rolling horizon on a cluster whose instances either prefill or decode: pairs are planned, and bound late.

Calls wait here until a prefill instance can take them into its next step. With every plan the calls that are at a
prefill instance get the decode instance anew, until they are handed over; those that wait anywhere queue in the plan's
order. Between plans nothing is decided: what becomes ready waits for the next one.
"""

# mypy: ignore-errors
from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hexopt.models.kernel import kernel
from hexopt.objective import make_objective
from hexopt.pair_epoch import PairEpoch, build_pairs, open_in_both
from hexopt.policies.knowledge import Knowledge
from hexopt.simulation.queues import requeue
from hexopt.simulation.state import DECODE, NONE, OPEN, Simulation
from hexopt.solvers.extras import MissingExtraError
from hexopt.solvers.pairs import PAIR_SOLVERS, PairPlan, PairProblem, anneal_pairs, greedy_pairs, solve_pairs
from hexopt.solvers.pairs.judge import objective_of
from hexopt.solvers.pairs.kernels import arrays_of

_log = logging.getLogger(__name__)

_SOON = 1e-9


@dataclass(frozen=True)
class _Pending:
    """A plan that is applied at a time."""

    when: float
    epoch: PairEpoch
    plan: PairPlan


class PairScheduler:
    """Plans pairs over one run.

    Parameters
    ----------
    settings
        The rolling horizon's.
    tally
        Counts solves.
    send
        Called with the board, a stage and its prefill instance when the stage leaves.

    Raises
    ------
    ValueError
        If the solver plans no pairs.
    """

    def __init__(self, settings: Any, tally: Any, send: Callable[[Simulation, int, int], None]) -> None:
        if settings.solver not in PAIR_SOLVERS:
            raise ValueError(
                f"solver {settings.solver!r} plans no pairs of instances: expected one of {', '.join(PAIR_SOLVERS)}"
            )
        self.settings = settings
        self.tally = tally
        self._dispatch = send
        self._objective = make_objective(settings.objective)
        self._held: list[int] = []
        self._sent: list[int] = []
        self._pair: dict[int, tuple[int, int]] = {}
        self._pending: _Pending | None = None
        self._last = -math.inf

    def decide(self, board: Simulation, know: Knowledge) -> None:
        """Take the ready stages in, plan, send what can start, and say when to be asked again."""
        clock = board.clock[0]
        now = float(clock["now"])
        fresh = board.ready[int(clock["ready_done"]) : int(clock["ready"])].tolist()
        clock["ready_done"] = clock["ready"]
        # The calls of an instance that failed are ready anew.
        again = set(fresh)
        self._sent = [r for r in self._sent if r not in again and not _decodes_or_ended(board, r)]
        self._held += fresh
        if self._pending is not None and now >= self._pending.when - _SOON:
            self._apply(board)
        due = self._pending is None and now >= self._last + self.settings.floor - _SOON
        if due and (self._held or self._sent) and open_in_both(board):
            self._plan(board, know, now)
        self._send(board)
        clock["held"] = len(self._held) + len(self._sent)
        if self._pending is not None:
            clock["wake"] = self._pending.when
        else:
            clock["wake"] = self._last + max(self.settings.epoch, self.settings.floor) if self._held else math.inf

    def _plan(self, board: Simulation, know: Knowledge, now: float) -> None:
        self._last = now
        epoch = build_pairs(board, know, now, self._objective, self._held, self._sent)
        plan, seconds = self._solve(epoch)
        took = 0.0 if self.settings.freeze else self.settings.solve_seconds or seconds
        self._pending = _Pending(now + took, epoch, plan)
        if took == 0.0:
            self._apply(board)

    def _solve(self, epoch: PairEpoch) -> tuple[PairPlan, float]:
        """The solver's plan, or greedy insertion's where it fails; and the seconds that it took."""
        started = time.perf_counter()
        settings, problem = self.settings, epoch.problem
        try:
            if problem.calls == 1 or settings.solver == "greedy":
                plan = greedy_pairs(problem)
            elif settings.freeze and settings.solver == "annealing":
                plan = _checked(
                    problem, anneal_pairs(problem, time_limit=None, moves=int(settings.moves) * problem.calls)
                )
            else:
                plan = _checked(problem, solve_pairs(problem, solver=settings.solver, time_limit=settings.time_limit))
        except MissingExtraError:
            raise
        except Exception:
            _log.exception("solver %s failed on %d pairs: greedy insertion plans", settings.solver, problem.calls)
            self.tally.failed += 1
            plan = greedy_pairs(problem)
        seconds = time.perf_counter() - started
        self.tally.count(problem.calls, 0, seconds, settings.time_limit)
        return plan, seconds

    def _apply(self, board: Simulation) -> None:
        """Give the calls that are not handed over yet their pairs, and all that wait their places."""
        epoch, plan = self._pending.epoch, self._pending.plan
        self._pending = None
        waiting = set(self._held)
        for rank, k in enumerate(plan.order.tolist()):
            r = int(epoch.stages[k])
            stage = board.stage[r]
            j = NONE if plan.decode[k] == NONE else int(epoch.decodes[plan.decode[k]])
            if r in waiting:
                if plan.prefill[k] == NONE:
                    # It fits nowhere as far as is expected: where its context is long enough, it may fit after all.
                    self.tally.homeless += 1
                    rows = board.instance[epoch.prefills]
                    i = int(epoch.prefills[np.argmax(rows["max_len"] * (rows["state"] == OPEN))])
                else:
                    i = int(epoch.prefills[plan.prefill[k]])
                    stage["expected_new"] = epoch.new[k, plan.prefill[k]]
                self.tally.moved += r in self._pair and self._pair[r] != (i, j)
                self._pair[r] = i, j
            elif math.isnan(stage["handed"]):
                stage["decode_at"] = j
            stage["priority"] = rank
        _queue_anew(board)

    def _send(self, board: Simulation) -> None:
        """Dispatch what a prefill instance can take into its next step, in the plan's order."""
        planned = sorted((r for r in self._held if r in self._pair), key=lambda r: board.stage["priority"][r])
        if not planned:
            return
        m = board.instance.shape[0]
        tokens, blocks, seats = np.zeros(m), np.zeros(m, np.int64), np.zeros(m, np.int64)
        _room(board, tokens, blocks, seats)
        sent = set()
        for r in planned:
            i, j = self._pair[r]
            if board.instance["state"][i] != OPEN:
                continue
            new = float(board.stage["expected_new"][r])
            needed = int(new) // int(board.instance["block_size"][i]) + 1
            idle = board.instance["running"][i] + board.instance["waiting"][i] == 0
            fits = blocks[i] >= needed and seats[i] > 0 and (tokens[i] + new <= board.instance["max_batched"][i])
            if not (fits or idle or (tokens[i] == 0.0 and blocks[i] >= needed)):
                # Nothing passes it: a smaller one behind would keep it waiting for ever.
                seats[i], tokens[i] = 0, math.inf
                continue
            tokens[i] += new
            blocks[i] -= needed
            seats[i] -= 1
            board.stage["decode_at"][r] = j
            self._dispatch(board, r, i)
            sent.add(r)
        for r in sent:
            del self._pair[r]
        self._held = [r for r in self._held if r not in sent]
        self._sent += sorted(sent)


def _checked(problem: PairProblem, plan: PairPlan) -> PairPlan:
    """The plan; an error if it is none for the problem."""
    objective_of(problem, arrays_of(problem), plan)
    return plan


@kernel
def _decodes_or_ended(sim, r):
    """Whether nothing is left to decide for stage ``r``, which was sent."""
    stage = sim.stage[r]
    if not np.isnan(stage.finish):
        return True
    return sim.instance[stage.instance].role == DECODE and stage.held > 0


@kernel
def _room(sim, tokens, blocks, seats):
    """Write each instance's prompt tokens that the step now running leaves over, its free blocks and seats."""
    for i in range(tokens.shape[0]):
        inst = sim.instance[i]
        blocks[i] = inst.free
        seats[i] = inst.max_seqs - inst.running - inst.waiting
        other = inst.first_here
        while other != NONE:
            there = sim.stage[other]
            if there.held > 0:
                tokens[i] += max(there.prompt - there.computed - there.scheduled, 0)
            else:
                tokens[i] += there.expected_new
                blocks[i] -= int(there.expected_new) // inst.block_size + 1
            other = there.next_here


@kernel
def _queue_anew(sim):
    """Order every instance's waiting calls by their new priorities."""
    for i in range(sim.instance.shape[0]):
        if sim.instance[i].waiting > 0:
            requeue(sim, i)
