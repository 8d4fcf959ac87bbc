"""The live workflows: which call belongs to which, when they end, and whether in time."""

# mypy: ignore-errors
from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hexopt.service.calls import Call, FinishedStage, LiveWorkflow
from hexopt.service.context import CallContext, ContextError

RECENT = 1000
"""Workflows that have ended and are still told of."""


@dataclass(frozen=True, slots=True)
class EndedWorkflow:
    """What is kept of a workflow that has ended; times are unix seconds."""

    id: str
    tenant: str
    weight: float
    arrival: float
    deadline: float
    finish: float
    stages: int
    failed: int
    reason: str

    @property
    def met(self) -> bool:
        """Whether all of it was answered by its deadline."""
        return self.failed == 0 and self.finish <= self.deadline


class Workflows:
    """The workflows that are alive, and the last ones that are not.

    Parameters
    ----------
    default_slo
        Seconds that a workflow gets whose client names no deadline.
    idle
        Seconds without a call after which a workflow counts as ended.
    """

    def __init__(self, default_slo: float, idle: float) -> None:
        self.default_slo = default_slo
        self.idle = idle
        self.recent: deque[EndedWorkflow] = deque(maxlen=RECENT)
        self.ended_hook: Callable[[EndedWorkflow, list[FinishedStage]], None] = lambda ended, stages: None
        self.open_slot: Callable[[float, float, float, int], int] = lambda *_: 0
        self.close_slot: Callable[[int], None] = lambda slot: None
        self._alive: dict[tuple[str, str], LiveWorkflow] = {}
        self._tenants: dict[str, int] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._alive)

    def all(self) -> list[LiveWorkflow]:
        """Those that are alive."""
        return list(self._alive.values())

    def get(self, tenant: str, name: str) -> LiveWorkflow | None:
        """The live workflow of that id."""
        return self._alive.get((tenant, name))

    def find(self, name: str) -> list[LiveWorkflow]:
        """Live workflows of that id, whoever's."""
        return [w for (_, i), w in self._alive.items() if i == name]

    def tenant_number(self, tenant: str) -> int:
        """Number of a tenant on the board."""
        return self._tenants.setdefault(tenant, len(self._tenants))

    def of(self, context: CallContext, call_id: str, now: float) -> LiveWorkflow:
        """The workflow of a call, made if it is new."""
        own = context.workflow is None
        name = call_id if own else context.workflow
        found = self._alive.get((context.tenant, name))
        if found is None:
            found = self.announce(name, context.tenant, context.deadline, context.weight, now)
            found.own = own
        found.last = now
        return found

    def announce(
        self, name: str | None, tenant: str, deadline: float | None, weight: float, now: float
    ) -> LiveWorkflow:
        """A new workflow.

        Raises
        ------
        ContextError
            If there is one of that id.
        """
        name = name or f"wf-{next(self._numbers)}"
        if (tenant, name) in self._alive:
            raise ContextError(f"workflow {name!r} exists already")
        due = now + (deadline or self.default_slo)
        slot = self.open_slot(now, due, weight, self.tenant_number(tenant))
        found = LiveWorkflow(name, tenant, weight, now, due, slot, last=now)
        self._alive[tenant, name] = found
        return found

    def began(self, call: Call, now: float) -> None:
        """A call of it has come."""
        call.workflow.open.add(call)
        call.workflow.last = now

    def ended(self, call: Call, stage: FinishedStage, now: float) -> None:
        """A call of it has ended well."""
        workflow = call.workflow
        workflow.open.discard(call)
        workflow.done.append(stage)
        workflow.last = now
        workflow.final |= call.context.final or workflow.own

    def lost(self, call: Call, now: float) -> None:
        """A call of it was given up."""
        workflow = call.workflow
        workflow.open.discard(call)
        workflow.failed += 1
        workflow.last = now
        workflow.final |= workflow.own

    def settle(self, workflow: LiveWorkflow) -> None:
        """End the workflow if its client said so and nothing of it is left."""
        if workflow.final and not workflow.open:
            self.end(workflow, "final")

    def end_idle(self, now: float) -> None:
        """End those that nothing was heard of for long."""
        for workflow in self.all():
            if not workflow.open and now - workflow.last > self.idle:
                self.end(workflow, "idle")

    def end(self, workflow: LiveWorkflow, reason: str) -> EndedWorkflow | None:
        """End a workflow of which nothing runs; what it taught is passed on. None if it had ended already."""
        if self._alive.pop((workflow.tenant, workflow.id), None) is None:
            return None
        self.close_slot(workflow.slot)
        finish = workflow.finish
        ended = EndedWorkflow(
            workflow.id, workflow.tenant, workflow.weight, workflow.arrival, workflow.deadline,
            workflow.last if math.isnan(finish) else finish, len(workflow.done), workflow.failed, reason,
        )  # fmt: skip
        if workflow.done or workflow.failed:
            self.recent.append(ended)
            self.ended_hook(ended, workflow.done)
        return ended

    def attainment(self) -> float:
        """Share of the recent workflows that ended in time, NaN before any has."""
        if not self.recent:
            return math.nan
        return sum(w.met for w in self.recent) / len(self.recent)

    def snapshot(self, workflow: LiveWorkflow, now: float) -> dict[str, Any]:
        """For JSON."""
        return {
            "id": workflow.id,
            "tenant": workflow.tenant,
            "weight": workflow.weight,
            "arrival": workflow.arrival,
            "deadline": workflow.deadline,
            "remaining_seconds": workflow.deadline - now,
            "running": sum(call.instance >= 0 for call in workflow.open),
            "waiting": sum(call.instance < 0 for call in workflow.open),
            "finished": len(workflow.done),
            "failed": workflow.failed,
        }
