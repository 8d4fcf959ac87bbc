"""Does a fleet keep the promise? Simulated with the real scheduler, over as many seeds as it takes to tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hexopt.planning.demand import Demand
from hexopt.planning.fleet import Fleet, Option, cluster_of
from hexopt.policies.policy import Policy, Training
from hexopt.simulation.experiment import train
from hexopt.simulation.simulator import Run, longest_context, simulate

WARM_UP, COOL_DOWN = 2.0, 1.0
"""Deadlines at the start of a run, before queues have filled, and at its end, that are not measured."""
DEADLINES, WORKFLOWS, MOST = 20.0, 600, 20_000
"""Deadlines and workflows that a run measures at least, and workflows that it has at most."""


@dataclass(frozen=True)
class Setting:
    """What fleets are simulated with.

    Parameters
    ----------
    demand, options, policy
        What arrives, what fleets are made of, who schedules.
    seconds
        Length of a run.
    """

    demand: Demand
    options: tuple[Option, ...]
    policy: Policy
    seconds: float

    @classmethod
    def of(cls, demand: Demand, options: Sequence[Option], policy: Policy, seconds: float | None = None) -> Setting:
        """With runs long enough to measure :data:`DEADLINES` and :data:`WORKFLOWS`, unless told otherwise."""
        if seconds is None:
            measured = max(DEADLINES * demand.slowest, WORKFLOWS / demand.rate)
            seconds = min(measured + (WARM_UP + COOL_DOWN) * demand.slowest, MOST / demand.rate)
        return cls(demand, tuple(options), policy, seconds)

    @property
    def window(self) -> tuple[float, float]:
        """First and last arrival that is measured, seconds."""
        edge = min(self.demand.slowest, self.seconds / 6.0)
        return WARM_UP * edge, self.seconds - COOL_DOWN * edge


@dataclass(frozen=True)
class Sample:
    """One run of a fleet.

    Parameters
    ----------
    attainment
        Share of each service's measured workflows that were in time, shape (services,).
    p95
        95% of the measured workflows that ended took no longer, seconds.
    utilisation
        Share of the time that the instances were busy.
    """

    attainment: tuple[float, ...]
    p95: float
    utilisation: float


def sample(setting: Setting, job: tuple[Fleet, int, float]) -> Sample:
    """Simulate ``job``: a fleet, a seed, and a factor on the rate."""
    fleet, seed, factor = job
    demand = setting.demand.at(factor)
    services = len(demand.services)
    if sum(fleet) == 0 or demand.longest > longest_context(cluster_of(setting.options, fleet)):
        return Sample((0.0,) * services, math.nan, 0.0)
    run, picks = run_of(setting, fleet, seed, factor)
    first, last = setting.window
    arrival = run.workflow["arrival"]
    measured = (arrival >= first) & (arrival <= last)
    if not measured.any():
        measured[:] = True
    in_time = run.workflow["finish"] <= run.workflow["deadline"]
    service = demand.service[picks]
    shares = [in_time[measured & (service == s)] for s in range(services)]
    took = (run.workflow["finish"] - arrival)[measured]
    took = took[np.isfinite(took)]
    busy = run.instance["busy_seconds"].sum() / (max(run.end, 1e-9) * len(run.instance))
    return Sample(
        tuple(float(share.mean()) if share.size else 1.0 for share in shares),
        float(np.quantile(took, 0.95)) if took.size else math.nan,
        float(busy),
    )


def run_of(setting: Setting, fleet: Fleet, seed: int, factor: float = 1.0) -> tuple[Run, NDArray[np.int64]]:
    """The run itself, and the template of each of its workflows."""
    demand = setting.demand.at(factor)
    cluster = cluster_of(setting.options, fleet)
    picks, arrivals = demand.sample(setting.seconds, seed)
    jobs = demand.workload.draw(picks, arrivals, demand.deadline[picks])
    training = _training(_Key(setting), fleet)
    kinds = demand.workload.kinds
    return simulate(jobs, kinds, cluster, setting.policy, training, until=setting.seconds), picks


class _Key:
    """A setting as a key: what it is made of is large, and it itself does not change."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def __hash__(self) -> int:
        return id(self.setting.demand.workload)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.setting.demand.workload is other.setting.demand.workload


@lru_cache(maxsize=32)
def _training(key: _Key, fleet: Fleet) -> Training:
    demand = key.setting.demand
    return train(demand.pilot(), demand.workload.kinds, cluster_of(key.setting.options, fleet))


@dataclass(frozen=True)
class Verdict:
    """What the simulator says of a fleet.

    Parameters
    ----------
    fleet
        Of which.
    attainment
        Mean over the runs of the worst service's attainment.
    low, high
        Its 95% t-interval over the runs, within 0 and 1.
    runs
        How many.
    p95
        Mean of the runs' P95, seconds.
    utilisation
        Mean of the runs' utilisation.
    """

    fleet: Fleet
    attainment: float
    low: float
    high: float
    runs: int
    p95: float
    utilisation: float


Map = Callable[..., list[Any]]
"""``map(function, items, shared)``: ``[function(shared, item) for item in items]``, in this process or in others."""


def here(function: Callable[..., Any], items: Sequence[Any], shared: Any) -> list[Any]:
    """One after the other, in this process."""
    return [function(shared, item) for item in items]


@dataclass
class Prover:
    """Judges fleets; what was simulated once is not simulated again.

    Parameters
    ----------
    setting
        What fleets are simulated with.
    seeds, most_seeds
        Runs of every fleet that is not hopeless, and of one whose interval holds the target.
    run
        Where simulations run.
    """

    setting: Setting
    seeds: int = 5
    most_seeds: int = 15
    run: Map = here
    factors: dict[int, NDArray[np.float64]] = field(default_factory=dict, init=False, repr=False)
    """Measured by :mod:`hexopt.planning.calibration`, by the number of classes."""
    _known: dict[tuple[Fleet, float], list[Sample]] = field(default_factory=dict, init=False, repr=False)
    simulations: int = field(default=0, init=False)

    def verdict(self, fleet: Fleet, target: float, factor: float = 1.0) -> Verdict:
        """Judge ``fleet`` at ``factor`` times the rate: enough runs to tell whether it reaches ``target``."""
        known = self._samples(fleet, 1, factor)
        found = _verdict(fleet, known)
        # Far below: one run tells. Workflows of a run succeed and fail together, some ten at a time.
        workflows = self.setting.demand.rate * factor * self.setting.seconds
        if found.attainment < target - 4.0 * math.sqrt(target * (1.0 - target) * 10.0 / workflows) - 0.02:
            return found
        runs = self.seeds
        while True:
            found = _verdict(fleet, self._samples(fleet, runs, factor))
            if runs >= self.most_seeds or not found.low < target <= found.high:
                return found
            runs = min(2 * runs, self.most_seeds)

    def exactly(self, fleet: Fleet, runs: int, factor: float = 1.0) -> Verdict:
        """Judge ``fleet`` by ``runs`` runs at least."""
        return _verdict(fleet, self._samples(fleet, runs, factor))

    def _samples(self, fleet: Fleet, runs: int, factor: float) -> list[Sample]:
        known = self._known.setdefault((fleet, factor), [])
        if len(known) < runs:
            jobs = [(fleet, seed, factor) for seed in range(len(known), runs)]
            self.simulations += len(jobs)
            known += self.run(sample, jobs, self.setting)
        return known


def _verdict(fleet: Fleet, samples: Sequence[Sample]) -> Verdict:
    shares = np.array([s.attainment for s in samples])
    worst = shares[:, int(shares.mean(axis=0).argmin())]
    mean, n = float(worst.mean()), len(worst)
    half = float(stats.t.ppf(0.975, n - 1) * worst.std(ddof=1) / math.sqrt(n)) if n > 1 else math.inf
    p95 = [s.p95 for s in samples if math.isfinite(s.p95)]
    return Verdict(
        fleet,
        mean,
        max(mean - half, 0.0),
        min(mean + half, 1.0),
        n,
        float(np.mean(p95)) if p95 else math.inf,
        float(np.mean([s.utilisation for s in samples])),
    )
