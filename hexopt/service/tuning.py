"""Weights that follow the traffic: searched in the background, proposed or applied, taken back if reality disagrees."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from hexopt.cluster import Cluster
from hexopt.policies.policy import Policy
from hexopt.policies.rolling_horizon import RollingHorizon
from hexopt.service.settings import ServiceSettings
from hexopt.service.tuning_process import SearchTask, TuningProcess
from hexopt.service.watch import Ended, Outcome, Watch
from hexopt.service.workflows import EndedWorkflow, Workflows
from hexopt.tuning import Settings

_log = logging.getLogger(__name__)

_REMEMBERED = 2000
"""Ended workflows that a change is judged by."""


class TuningConflict(ValueError):
    """What was asked for cannot be done as things are."""


@dataclass
class Proposal:
    """Weights that won on held-out traffic; times are unix seconds.

    ``state`` is proposed, applied (and watched), kept, rolled back, dismissed or superseded.
    """

    id: str
    objective: str
    replaces: str
    verdict: str
    gains: list[dict[str, Any]]
    created: float
    state: str = "proposed"
    changed: float | None = None
    watched: dict[str, Any] | None = None


class Tuner:
    """Tunes the weights of the rolling horizon that is active.

    Parameters
    ----------
    settings
        Of the service: the mode, the interval, the window, the store.
    policy, use
        The active policy, and what switches it.
    cluster
        The fleet of the moment.
    workflows
        Those alive.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        policy: Callable[[], Policy],
        use: Callable[[Policy], None],
        cluster: Callable[[], Cluster],
        workflows: Workflows,
    ) -> None:
        self._settings = settings
        self._how = settings.tuning or Settings(goals=tuple(settings.tune_objective.split(",")))
        self._policy = policy
        self._use = use
        self._cluster = cluster
        self._workflows = workflows
        self._process = TuningProcess()
        self._ended: deque[Ended] = deque(maxlen=_REMEMBERED)
        self._watch: Watch | None = None
        self._refuted: set[str] = set()
        self._searching = False
        self._searched: float | None = None
        self._said = ""
        self._searches = 0
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self.proposal: Proposal | None = None
        self.outcomes: Counter[str] = Counter()
        """How many proposals came to each state."""

    def start(self) -> None:
        """Search every so often."""
        self._task = asyncio.create_task(self._run(), name="tuning")

    def close(self) -> None:
        """End, and the search with it."""
        if self._task is not None:
            self._task.cancel()
        self._process.close()

    @property
    def pid(self) -> int | None:
        """Of the process that searches, None while there is none."""
        return self._process.pid

    def status(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "mode": self._settings.tune,
            "searching": self._searching,
            "searches": self._searches,
            "last_search": self._searched,
            "last_result": self._said,
            "proposal": None if self.proposal is None else asdict(self.proposal),
        }

    # What an operator does.

    def search_now(self) -> None:
        """Search without waiting for the next time.

        Raises
        ------
        TuningConflict
            If a search runs already, new weights are still watched, or there are none to tune.
        """
        if self._searching or self._wanted.is_set():
            raise TuningConflict("a search is running already")
        if reason := self._hindrance():
            raise TuningConflict(reason)
        self._wanted.set()

    def accept(self, name: str) -> None:
        """Apply a proposal, and watch what comes of it.

        Raises
        ------
        TuningConflict
            If it is not the one that is proposed, or the weights have changed since.
        """
        proposal = self._proposed(name)
        if self._present() != proposal.replaces:
            self._settle("superseded")
            raise TuningConflict(f"proposal {name!r} was for other weights than the present ones")
        self._apply(proposal)

    def dismiss(self, name: str) -> None:
        """Refuse a proposal; its weights are not proposed again.

        Raises
        ------
        TuningConflict
            If it is not the one that is proposed.
        """
        self._refuted.add(self._proposed(name).objective)
        self._settle("dismissed")

    def _proposed(self, name: str) -> Proposal:
        if self.proposal is None or self.proposal.id != name or self.proposal.state != "proposed":
            raise TuningConflict(f"there is no proposal {name!r} to decide on")
        return self.proposal

    # What happens.

    def workflow_ended(self, ended: EndedWorkflow) -> None:
        """Take in how a workflow ended."""
        self._ended.append(Ended(ended.arrival, ended.met))

    def tick(self, now: float) -> None:
        """Look at what came of the weights that were applied last."""
        proposal = self.proposal
        if self._watch is None or proposal is None:
            return
        if self._present() != proposal.objective:
            self._settle("superseded")
            return
        changed = self._watch.changed
        after = [e for e in self._ended if e.arrival >= changed]
        # Who is late counts at once, so that the first to end are not the only ones to count.
        after += [Ended(w.arrival, False) for w in self._workflows.all() if w.arrival >= changed and w.deadline < now]
        outcome = self._watch.judge(after, now)
        proposal.watched = dict(self._watch.found)
        if outcome is Outcome.ROLL_BACK:
            _log.warning("weights %s are taken back: %s", proposal.objective, proposal.watched)
            self._refuted.add(proposal.objective)
            self._switch(proposal.replaces)
            self._settle("rolled back")
        elif outcome is Outcome.KEEP:
            self._settle("kept")

    def _present(self) -> str | None:
        policy = self._policy()
        return policy.objective if isinstance(policy, RollingHorizon) else None

    def _switch(self, objective: str) -> None:
        policy = self._policy()
        assert isinstance(policy, RollingHorizon)
        self._use(replace(policy, objective=objective))

    def _settle(self, state: str) -> None:
        assert self.proposal is not None
        self.proposal.state = state
        self.outcomes[state] += 1
        self._watch = None

    def _apply(self, proposal: Proposal) -> None:
        now = time.time()
        self._switch(proposal.objective)
        proposal.changed = now
        proposal.state = "applied"
        self.outcomes["applied"] += 1
        self._watch = Watch(list(self._ended), now)
        _log.info("weights %s are applied: %s", proposal.objective, proposal.verdict)

    def _hindrance(self) -> str:
        """Why there is nothing to search for, or an empty string."""
        if self._present() is None:
            return f"policy {self._policy().name} has no weights to tune"
        if self._watch is not None:
            return "weights that were applied are still watched"
        return ""

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self._wanted.wait(), self._settings.tune_every)
            except TimeoutError:
                if self._hindrance():
                    continue
            self._searching = True
            try:
                await self._search()
            except ValueError as error:
                self._said = str(error)
                _log.info("tuning: %s", error)
            except Exception:
                self._said = "the search failed; the log says why"
                _log.exception("tuning failed")
            finally:
                self._wanted.clear()
                self._searching = False
                self._searches += 1
                self._searched = time.time()

    async def _search(self) -> None:
        now = time.time()
        policy = self._policy()
        assert isinstance(policy, RollingHorizon)
        task = SearchTask(
            self._settings.store, now - self._settings.tune_window, now, self._cluster(), policy,
            replace(self._how, seed=self._searches),
        )  # fmt: skip
        report = await self._process.search(task)
        self._said = f"{report['verdict']} ({report['workflows']} workflows, {report['simulations']} simulations)"
        if not report["wins"] or report["found"] in self._refuted or self._present() != policy.objective:
            return
        gains = [gain for gain in report["gains"] if gain["against"] == "present"]
        if self.proposal is not None and self.proposal.state == "proposed":
            self._settle("superseded")
        name = f"tuning-{self._searches + 1}-{int(now)}"
        self.proposal = Proposal(name, report["found"], policy.objective, report["verdict"], gains, time.time())
        self.outcomes["proposed"] += 1
        if self._settings.tune == "apply":
            self._apply(self.proposal)
