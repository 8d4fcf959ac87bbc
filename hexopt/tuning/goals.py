"""What weights are judged by, and how much better one run is than another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hexopt.simulation.metrics import latencies
from hexopt.simulation.simulator import Run


@dataclass(frozen=True, slots=True)
class Figures:
    """One run's figures.

    Parameters
    ----------
    p95
        Seconds within which 95% of the workflows ended.
    attainment
        Share of the workflows in time.
    cost
        Money a workflow: seconds in which instances computed, at their price an hour.
    """

    p95: float
    attainment: float
    cost: float

    @classmethod
    def of(cls, run: Run) -> Figures:
        """The figures of a run."""
        latency = latencies(run)
        allowed = run.workflow["deadline"] - run.workflow["arrival"]
        price = np.array([instance.price for instance in run.cluster.instances])
        cost = float(price @ run.instance["busy_seconds"]) / 3600.0 / latency.shape[0]
        return cls(float(np.quantile(latency, 0.95)), float((latency <= allowed).mean()), cost)


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that weights may be tuned for."""

    name: str
    direction: Literal["minimize", "maximize"]
    words: str

    def gains(self, found: Sequence[Figures], present: Sequence[Figures]) -> NDArray[np.float64]:
        """How much better ``found`` is in each of the same runs: ln of the ratio, or difference of the shares."""
        new, old = (np.array([getattr(figures, self.name) for figures in side]) for side in (found, present))
        if self.direction == "maximize":
            return np.asarray(new - old)
        with np.errstate(divide="ignore", invalid="ignore"):
            gains = np.where(new == old, 0.0, np.log(old / new))
        return np.clip(gains, -10.0, 10.0)

    def said(self, gain: float) -> str:
        """A gain for people."""
        if self.direction == "maximize":
            return f"{100.0 * gain:+.2f} points"
        return f"{100.0 * (math.exp(-gain) - 1.0):+.2f}%"


GOALS = {
    goal.name: goal
    for goal in (
        Goal("attainment", "maximize", "in time"),
        Goal("p95", "minimize", "P95 latency"),
        Goal("cost", "minimize", "cost a workflow"),
    )
}
"""Every goal by its name. A point of attainment counts like a percent of latency or cost."""
