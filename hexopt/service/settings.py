"""The service's own settings, checked before anything starts."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hexopt.tuning import Settings

_SECONDS = (
    "default_slo",
    "workflow_idle",
    "queue_timeout",
    "connect_timeout",
    "stall_timeout",
    "call_timeout",
    "drain_timeout",
    "health_every",
    "health_patience",
    "tune_every",
    "tune_window",
)


class SettingsError(ValueError):
    """A setting that cannot be; the message names its flag."""


@dataclass(frozen=True)
class ServiceSettings:
    """How the service runs; times in seconds.

    Parameters
    ----------
    host, port
        Where it listens.
    api_key
        What clients must send as a bearer token; empty for none, on loopback only.
    default_slo
        What a workflow gets whose client names no deadline.
    workflow_idle
        Without a call for so long, a workflow counts as ended.
    max_queue
        Calls that may wait; further ones are turned away with 429.
    max_body
        Bytes of the longest request.
    retries
        Further attempts of a call that has not begun to be answered.
    queue_timeout
        Longest wait for an instance.
    connect_timeout, stall_timeout, call_timeout
        Of the connection to a server; between two pieces of its answer; for the whole call.
    drain_timeout
        What running calls get to end at shutdown.
    health_every, health_patience
        Between health checks, and until one counts as failed.
    store
        Database URL of finished stages and decisions; empty for none.
    otel_endpoint
        Base URL of an OpenTelemetry collector (OTLP over HTTP); empty for none.
    tune
        What becomes of weights that would have done better: ``"off"`` searches none, ``"propose"`` shows them,
        ``"apply"`` applies them.
    tune_every, tune_window
        Between searches, and of traffic searched.
    tune_objective
        What is improved: names of :data:`hexopt.tuning.GOALS` with commas.
    tuning
        How long to search; None for the usual.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str = ""
    default_slo: float = 60.0
    workflow_idle: float = 300.0
    max_queue: int = 10_000
    max_body: int = 32 * 1024 * 1024
    retries: int = 2
    queue_timeout: float = 600.0
    connect_timeout: float = 3.0
    stall_timeout: float = 300.0
    call_timeout: float = 3600.0
    drain_timeout: float = 60.0
    health_every: float = 1.0
    health_patience: float = 2.0
    store: str = "sqlite:///hexopt.db"
    otel_endpoint: str = ""
    tune: str = "off"
    tune_every: float = 3600.0
    tune_window: float = 86_400.0
    tune_objective: str = "attainment,p95"
    tuning: Settings | None = None

    def __post_init__(self) -> None:
        for name in _SECONDS:
            value = getattr(self, name)
            if not (0.0 < value < math.inf):
                raise SettingsError(f"--{name.replace('_', '-')} is {value}, expected more than 0 seconds")
        for name, least in (("max_queue", 1), ("max_body", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise SettingsError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected at least {least}")
        if self.tune not in ("off", "propose", "apply"):
            raise SettingsError(f"--tune {self.tune}: expected off, propose or apply")
        if self.tune != "off" and not self.store:
            raise SettingsError(f"--tune {self.tune} searches the traffic in the store: give --store")
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"--port is {self.port}, expected 0 to 65535")
        if not self.api_key and not is_loopback(self.host):
            raise SettingsError(f"--host {self.host} is not loopback: set a key with --api-key or HEXOPT_API_KEY")
        if not all(32 < ord(c) < 127 for c in self.api_key):
            raise SettingsError("--api-key holds a space or a character that is not ASCII")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
