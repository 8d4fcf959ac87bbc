"""What a fleet is planned for: workloads with their rates and deadlines, drawn as one stream of arrivals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hexopt.simulation.workload import Workload
from hexopt.traces.arrivals import gamma, poisson
from hexopt.traces.workflow import Workflow

Arrivals = Literal["poisson", "gamma", "trace"]


class DemandError(ValueError):
    """A demand that cannot be planned for; the message names the part and what was expected."""


@dataclass(frozen=True)
class Service:
    """Workflows of one kind of application with one promise.

    Parameters
    ----------
    name
        Unique in its demand.
    workflows
        What to draw from.
    rate
        Workflows a second.
    slo
        Deadline of each workflow, seconds; where it is None every workflow must bring its own.
    """

    name: str
    workflows: tuple[Workflow, ...]
    rate: float
    slo: float | None = None

    def __post_init__(self) -> None:
        where = f"workload {self.name!r}"
        if not self.workflows:
            raise DemandError(f"{where}: the trace has no workflows")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise DemandError(f"{where}: rate is {self.rate}, expected workflows a second, more than 0")
        if self.slo is not None and not (math.isfinite(self.slo) and self.slo > 0):
            raise DemandError(f"{where}: slo is {self.slo}, expected seconds, more than 0")
        if self.slo is None and any(w.deadline is None for w in self.workflows):
            raise DemandError(f"{where}: has no deadlines of its own, give --slo")

    @property
    def deadlines(self) -> NDArray[np.float64]:
        """Seconds that each workflow is given, shape (workflows,)."""
        return np.array([self.slo if self.slo is not None else w.deadline for w in self.workflows], dtype=np.float64)


@dataclass(frozen=True)
class Demand:
    """Services that share a fleet.

    Parameters
    ----------
    services
        At least one, with different names.
    arrivals
        ``poisson``; ``gamma``, whose gaps vary by ``burstiness``; or ``trace``, the traces' own times made as fast as
        the rate asks for.
    burstiness
        Coefficient of variation of the gaps of ``gamma``.
    """

    services: tuple[Service, ...]
    arrivals: Arrivals = "poisson"
    burstiness: float = 2.0
    _first: tuple[int, ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        names = [service.name for service in self.services]
        if not names:
            raise DemandError("a demand needs at least one workload")
        if len(set(names)) < len(names):
            raise DemandError(f"workload: two are named {max(names, key=names.count)!r}")
        if self.arrivals == "trace":
            for service in self.services:
                times = [w.arrival for w in service.workflows]
                if not max(times) > min(times):
                    raise DemandError(f"workload {service.name!r}: the trace has no arrival times, use poisson")
        sizes = [len(service.workflows) for service in self.services]
        object.__setattr__(self, "_first", tuple(np.cumsum([0, *sizes[:-1]]).tolist()))

    @property
    def rate(self) -> float:
        """Workflows a second over all services."""
        return sum(service.rate for service in self.services)

    @property
    def slowest(self) -> float:
        """The longest deadline, seconds."""
        return max(float(service.deadlines.max()) for service in self.services)

    def at(self, factor: float) -> Demand:
        """The same demand at ``factor`` times the rate; what was compiled is kept."""
        if factor == 1.0:
            return self
        services = tuple(Service(s.name, s.workflows, s.rate * factor, s.slo) for s in self.services)
        other = Demand(services, self.arrivals, self.burstiness)
        other.__dict__["workload"] = self.workload
        return other

    @cached_property
    def workload(self) -> Workload:
        """All services' workflows, compiled."""
        return Workload([w for service in self.services for w in service.workflows])

    @property
    def longest(self) -> int:
        """Prompt and output tokens of the longest call."""
        stage = self.workload.template_stages()
        return int((stage["prompt"].astype(np.int64) + stage["output"]).max())

    @property
    def deadline(self) -> NDArray[np.float64]:
        """Seconds that each template is given, shape (templates,)."""
        return np.concatenate([service.deadlines for service in self.services])

    @property
    def service(self) -> NDArray[np.int64]:
        """Service of each template, shape (templates,)."""
        return np.repeat(np.arange(len(self.services)), [len(s.workflows) for s in self.services])

    @property
    def template_rate(self) -> NDArray[np.float64]:
        """Workflows a second of each template, shape (templates,)."""
        return np.concatenate([np.full(len(s.workflows), s.rate / len(s.workflows)) for s in self.services])

    def pilot(self) -> list[Workflow]:
        """Workflows that predictors start from: every fifth of each service, at least 20 or all."""
        return [w for s in self.services for w in s.workflows[:: max(min(5, len(s.workflows) // 20), 1)]]

    def sample(self, seconds: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Templates that arrive within ``seconds``, and when; each service goes through its workflows in random order.

        Returns
        -------
        picks, arrivals
            Both shape (w,); arrivals in seconds, ascending. At least one workflow of each service.
        """
        picks, times = [], []
        for k, (service, first) in enumerate(zip(self.services, self._first, strict=True)):
            rng = np.random.default_rng((seed, k))
            count = max(round(service.rate * seconds), 1)
            if self.arrivals == "trace":
                own, when = _replayed(service, count, rng)
            else:
                rounds = -(-count // len(service.workflows))
                own = np.concatenate([rng.permutation(len(service.workflows)) for _ in range(rounds)])[:count]
                bursty = self.arrivals == "gamma"
                when = gamma(service.rate, count, rng, self.burstiness) if bursty else poisson(service.rate, count, rng)
            picks.append(first + own)
            times.append(when)
        together = np.concatenate(times)
        order = np.argsort(together, kind="stable")
        return np.concatenate(picks)[order], together[order]


def _replayed(service: Service, count: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The trace from a random place on, round and round, as fast as the rate asks for."""
    arrival = np.array([w.arrival for w in service.workflows])
    order = np.argsort(arrival, kind="stable")
    gaps = np.diff(arrival[order])
    gaps = np.append(gaps, gaps.mean())
    turn = (int(rng.integers(len(order))) + np.arange(count)) % len(order)
    return order[turn], np.cumsum(gaps[turn - 1]) / (gaps.mean() * service.rate)


def single(workflows: Sequence[Workflow], rate: float | None, slo: float | None, name: str = "trace") -> Demand:
    """The demand of one trace; without a rate, the trace's own mean."""
    if not workflows:
        raise DemandError(f"workload {name!r}: the trace has no workflows")
    return Demand((Service(name, tuple(workflows), own_rate(workflows, name) if rate is None else rate, slo),))


def own_rate(workflows: Sequence[Workflow], name: str) -> float:
    """Workflows a second at which a trace's own arrive.

    Raises
    ------
    DemandError
        If they have no arrival times.
    """
    times = [w.arrival for w in workflows]
    if not max(times) > min(times):
        raise DemandError(f"workload {name!r}: the trace has no arrival times, give --rate")
    return (len(times) - 1) / (max(times) - min(times))
