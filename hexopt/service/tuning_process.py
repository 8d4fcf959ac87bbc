"""The search of weights in a process of its own, behind everything else that the machine has to do."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from dataclasses import dataclass, replace
from typing import Any

from hexopt.cluster import Cluster
from hexopt.parallel.payload import leave_with_parent
from hexopt.policies.rolling_horizon import RollingHorizon
from hexopt.tuning import Settings

_LONGEST = 4 * 3600.0
"""Seconds after which a search is given up."""


@dataclass(frozen=True)
class SearchTask:
    """What to search with: traffic between two unix seconds, the fleet, the present policy."""

    store: str
    since: float
    until: float
    cluster: Cluster
    policy: RollingHorizon
    settings: Settings


def _search(pipe: Any, task: SearchTask) -> None:
    """The process: sends the report as a mapping, or what went wrong as text."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    leave_with_parent()
    os.nice(10)
    answer: Any
    try:
        answer = _found(task)
    except Exception as error:
        answer = f"{'' if isinstance(error, ValueError) else f'{type(error).__name__}: '}{error}"
    pipe.send(answer)


def _found(task: SearchTask) -> dict[str, Any]:
    from hexopt.parallel import Runner
    from hexopt.service.database import Database
    from hexopt.service.traffic import Traffic
    from hexopt.simulation.experiment import that_fit
    from hexopt.tuning import Scenario, tune

    traffic = list(Traffic(Database(task.store), task.since, task.until).workflows())
    scenario = Scenario.of(that_fit(traffic, task.cluster), task.cluster)
    with Runner(1) as runner:
        report = tune(runner, scenario, replace(task.policy, freeze=True), task.settings)
    return report.row() | {"workflows": len(traffic)}


class TuningProcess:
    """Runs one search."""

    def __init__(self) -> None:
        self._process: Any = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the process, None while there is none."""
        return None if self._process is None else self._process.pid

    async def search(self, task: SearchTask) -> dict[str, Any]:
        """The report, as :meth:`hexopt.tuning.TuningReport.row` has it.

        Raises
        ------
        ValueError
            Saying why there is none.
        """
        pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_search, args=(theirs, task), name="hexopt-tuning", daemon=True
        )

        def begin() -> None:
            process.start()
            self._process = process
            if self._closed:  # meanwhile
                self._kill()

        try:
            await asyncio.to_thread(begin)
            theirs.close()
            if not await asyncio.to_thread(pipe.poll, _LONGEST):
                raise ValueError(f"the search took more than {_LONGEST / 3600.0:g} hours")
            answer = pipe.recv()
        except EOFError:
            raise ValueError("the search's process died") from None
        finally:
            self._kill()
            pipe.close()
        if isinstance(answer, str):
            raise ValueError(answer)
        found: dict[str, Any] = answer
        return found

    def close(self) -> None:
        """End the process, for good."""
        self._closed = True
        self._kill()

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
