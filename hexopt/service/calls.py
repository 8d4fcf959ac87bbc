"""Calls and workflows of the live service."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

from hexopt.service.context import CallContext
from hexopt.service.prompts import Prompt


@dataclass(slots=True, eq=False)
class LiveWorkflow:
    """A workflow that was seen or announced. Times are unix seconds.

    Parameters
    ----------
    id, tenant, weight, arrival, deadline
        As the client gave them, or the defaults; ``deadline`` is absolute.
    slot
        Its index on the board.
    own
        Whether it is one call's own, which named no workflow.
    """

    id: str
    tenant: str
    weight: float
    arrival: float
    deadline: float
    slot: int
    own: bool = False
    open: set[Call] = field(default_factory=set)
    done: list[FinishedStage] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    last: float = 0.0
    """When its last call came or ended."""
    final: bool = False
    """Whether its client said that nothing follows."""
    failed: int = 0
    """Calls that ended in an error."""

    @property
    def finish(self) -> float:
        """When its last stage ended, NaN before any has."""
        return max((stage.finish for stage in self.done), default=math.nan)


@dataclass(frozen=True, slots=True)
class FinishedStage:
    """What is kept of a stage until its workflow ends."""

    id: str
    kind: int
    occurrence: int
    parents: tuple[str, ...]
    prompt: int
    cached: int
    output: int
    ready: float
    finish: float
    instance: str


@dataclass(slots=True, eq=False)
class Call:
    """One request, from its arrival to its end."""

    id: str
    context: CallContext
    workflow: LiveWorkflow
    prompt: Prompt
    kind: int
    occurrence: int
    prompt_tokens: int
    max_tokens: int
    ready: float
    stream: bool
    model: str
    path: str
    traceparent: str
    placed: asyncio.Future[int]
    """Resolves to the instance that it may be sent to."""
    row: int = -1
    """Its stage on the board, -1 for none."""
    instance: int = -1
    queued: int = -1
    """Its number in an instance's queue, -1 while it is in none."""
    dispatched: float = math.nan
    first_token: float = math.nan
    finish: float = math.nan
    company: float = 1.0
    """Calls running beside it when it was sent, itself included."""
    attempts: int = 0
    excluded: set[str] = field(default_factory=set)
    """Names of the instances that failed it."""
    priority: int | None = None
    """What is passed on to the server's queue."""
    doubted: Any = None
    """The server that seems not to take priorities, so that the call goes without."""
    receipt: Any = None
    reason: str = ""
    """Who decided where it goes."""
