"""The solver in a process of its own, so that solving never holds up a request.

One problem at a time. What does not answer in time is let go: the caller plans by itself, and the process is replaced
if it goes on hanging. A process that dies is replaced too, later each time it dies again.
"""

# mypy: ignore-errors
from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hexopt.solvers import EpochProblem, Plan

_log = logging.getLogger(__name__)

_OVERTIME, _GRACE = 1.1, 0.01
"""A solver may take this much longer than its limit, by a factor and in seconds, pipes and scheduling included."""
_HANGS = 5.0
"""Seconds after which an unanswered solver is killed."""
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class Task:
    """A problem and how to solve it."""

    problem: EpochProblem
    solver: str
    time_limit: float


@dataclass
class SolverTally:
    """What became of the problems handed over."""

    solved: int = 0
    failed: int = 0
    late: int = 0
    deaths: int = 0


def _serve(pipe: Any, solver: str) -> None:
    """The process: answers tasks until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from hexopt.scheduler import warm_up
    from hexopt.solvers import solve

    warm_up(solver)
    pipe.send(None)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task = pipe.recv()
            try:
                # Checked anew: what comes out of a pipe is writable, for which kernels would compile again.
                answer: Any = solve(replace(task.problem), solver=task.solver, time_limit=task.time_limit)
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"
            pipe.send(answer)


class SolverProcess:
    """Runs solvers beside the event loop.

    Parameters
    ----------
    solver
        The name to warm up.
    loop
        Where answers are delivered.
    """

    def __init__(self, solver: str, loop: asyncio.AbstractEventLoop) -> None:
        self.tally = SolverTally()
        self._solver = solver
        self._loop = loop
        self._busy = False
        self._ready = False
        self._closing = threading.Event()
        self._wanted = threading.Event()
        self._task: tuple[Task, Callable[[Plan | None, float], None]] | None = None
        self._process: Any = None
        self._pipe: Any = None
        self._thread = threading.Thread(target=self._run, name="hexopt-solver", daemon=True)
        self._thread.start()

    @property
    def free(self) -> bool:
        """Whether a problem would be taken now."""
        return self._ready and not self._busy and not self._closing.is_set()

    @property
    def pid(self) -> int | None:
        """Of the process, None while there is none."""
        return None if self._process is None else self._process.pid

    def submit(self, task: Task, then: Callable[[Plan | None, float], None]) -> None:
        """Solve; ``then`` gets the plan, or None where none came in time, and the seconds, in the loop's thread."""
        self._busy = True
        self._task = (task, then)
        self._wanted.set()

    def close(self) -> None:
        """End the process."""
        self._closing.set()
        self._wanted.set()
        if self._process is not None:
            self._process.kill()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        backoff = _FIRST_BACKOFF
        while not self._closing.is_set():
            started = time.monotonic()
            try:
                self._start()
                self._answer()
            except (EOFError, OSError) as error:
                if self._closing.is_set():
                    break
                self.tally.deaths += 1
                _log.warning("the solver process has ended (%s): greedy plans until it is back", error or "killed")
            finally:
                self._ready = False
                self._deliver(None, 0.0)
                self._process.kill()
                self._process.join()
                self._pipe.close()
            backoff = _FIRST_BACKOFF if time.monotonic() - started > 60.0 else min(2 * backoff, _LONGEST_BACKOFF)
            self._closing.wait(backoff)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._solver), name="hexopt-solver", daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()
        self._ready = True

    def _answer(self) -> None:
        """Hand problems over, until the process dies or is closed."""
        while True:
            # Looks after the process too while nothing is asked.
            while not self._wanted.wait(0.5):
                if not self._process.is_alive():
                    raise EOFError
            self._wanted.clear()
            if self._closing.is_set():
                return
            task, _ = self._task
            started = time.monotonic()
            self._pipe.send(task)
            if not self._pipe.poll(_OVERTIME * task.time_limit + _GRACE):
                self.tally.late += 1
                self._ready = False
                self._deliver(None, time.monotonic() - started)
                if not self._pipe.poll(_HANGS):
                    raise EOFError("it hung")
                self._pipe.recv()
                self._ready = True
                continue
            answer = self._pipe.recv()
            if isinstance(answer, Plan):
                self.tally.solved += 1
                self._deliver(answer, time.monotonic() - started)
            else:
                self.tally.failed += 1
                _log.warning("solver %s failed: %s", task.solver, answer)
                self._deliver(None, time.monotonic() - started)

    def _deliver(self, plan: Plan | None, seconds: float) -> None:
        if self._task is None:
            return
        (_, then), self._task = self._task, None

        def give() -> None:
            self._busy = False
            then(plan, seconds)

        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(give)
