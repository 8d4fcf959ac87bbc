"""The live fleet: the servers behind the instances, whether they are up, and what they say of themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from hexopt.cluster import Instance


class State(StrEnum):
    """Of a live instance."""

    STARTING = "starting"
    """Not heard of yet."""
    UP = "up"
    DOWN = "down"
    """Its circuit is open: nothing is sent there until its health answers again."""
    DRAINING = "draining"
    """It finishes what it has and gets nothing more."""


@dataclass(slots=True, eq=False)
class Server:
    """One instance with its server.

    Parameters
    ----------
    instance
        What the latency model knows of it.
    url
        Base URL without a slash at its end.
    api_key
        Sent as a bearer token, empty for none.
    """

    instance: Instance
    url: str
    api_key: str = ""
    state: State = State.STARTING
    failures: int = 0
    """In a row, of health checks and of calls."""
    reason: str = ""
    """Why it is not up."""
    checked: float = math.nan
    opened: float = math.nan
    """When its circuit opened last, monotonic seconds."""
    backoff: float = 0.0
    """Seconds that the circuit stays open at least."""
    takes_priority: bool = True
    """Whether its queue obeys priorities; servers that do not, refuse them."""
    reported: dict[str, float] = field(default_factory=dict)
    """Its own figures: running, waiting, kv_usage, prefix_queries, prefix_hits, preemptions."""
    models: tuple[str, ...] = ()
    sent: int = 0
    ended: int = 0
    errors: int = 0

    @property
    def name(self) -> str:
        return self.instance.name

    @property
    def takes_calls(self) -> bool:
        """Whether calls may be sent there."""
        return self.state is State.UP


FAILURES = 3
"""Failures in a row that open the circuit; a refused connection opens it at once."""
_FIRST_BACKOFF, _LONGEST_BACKOFF = 1.0, 30.0


def failed(server: Server, reason: str, now: float, at_once: bool = False) -> bool:
    """Count a failure of ``server``; True if its circuit opens with it.

    Parameters
    ----------
    now
        Monotonic seconds.
    at_once
        Whether one such failure is enough.
    """
    server.failures += 1
    if server.state not in (State.UP, State.STARTING) or (server.failures < FAILURES and not at_once):
        return False
    server.backoff = min(2.0 * server.backoff, _LONGEST_BACKOFF) if server.backoff else _FIRST_BACKOFF
    server.state, server.reason, server.opened = State.DOWN, reason, now
    return True


def answered(server: Server) -> None:
    """A call to ``server`` has ended well."""
    server.failures = 0
    server.backoff = 0.0


def healthy(server: Server, now: float) -> bool:
    """The health check of ``server`` answered; True if its circuit closes with it.

    It closes on probation: the next failure opens it again, for longer.
    """
    if server.state is State.STARTING:
        server.state, server.reason, server.failures = State.UP, "", 0
        return True
    if server.state is State.DOWN and now - server.opened >= server.backoff:
        server.state, server.reason, server.failures = State.UP, "", FAILURES - 1
        return True
    return False
