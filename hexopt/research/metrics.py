"""Which figures of a run are compared, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

LEAST_FOR_REQ99 = 1000
"""Measured workflows that a run needs for its Req99: ten beyond the quantile."""


@dataclass(frozen=True)
class Metric:
    """A column of the results.

    Parameters
    ----------
    key
        Field of :class:`hexopt.simulation.metrics.Summary`.
    title, unit
        For people; the unit may be empty.
    smaller_is_better
        Which way it counts.
    by_ratio
        Whether two policies are compared by the ratio of their values, or by the difference.
    percent
        Whether it is a share, shown as a percentage.
    """

    key: str
    title: str
    unit: str = ""
    smaller_is_better: bool = True
    by_ratio: bool = True
    percent: bool = False

    @property
    def heading(self) -> str:
        """Title with the unit."""
        unit = "%" if self.percent else self.unit
        return f"{self.title} ({unit})" if unit else self.title

    def better(self, a: float, b: float) -> bool:
        """Whether ``a`` is better than ``b``."""
        return a < b if self.smaller_is_better else a > b


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.key: metric
        for metric in (
            Metric("attainment", "In time", smaller_is_better=False, by_ratio=False, percent=True),
            Metric("p95_s", "P95", "s"),
            Metric("req95", "Req95"),
            Metric("req99", "Req99"),
            Metric("mean_s", "Mean", "s"),
            Metric("goodput", "Goodput", "1/s", smaller_is_better=False, by_ratio=False),
            Metric("scheduler_us_per_call", "Deciding", "µs/call"),
        )
    }
)
"""What policies are compared by."""
SUSTAINED = Metric("sustained", "Sustained rate", "1/s", smaller_is_better=False)
"""The highest rate at which a share of the workflows are in time."""


def shown_metrics(workflows: int) -> list[Metric]:
    """The metrics that runs of that many measured workflows can tell."""
    return [m for m in METRICS.values() if m.key != "req99" or workflows >= LEAST_FOR_REQ99]
