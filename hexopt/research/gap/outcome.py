"""What a gap in each epoch costs in the end: the same workload with plans of different quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hexopt.research.comparison import Judgement, judge
from hexopt.research.gap.sizes import Estimate
from hexopt.research.gap.table import SEVERAL, GapRow
from hexopt.research.metrics import METRICS, Metric
from hexopt.research.results import Cell, Results
from hexopt.research.statistics import Interval, bootstrap_mean

SHOWN = ("p95_s", "mean_s", "attainment")
"""Keys of the metrics that are looked at."""


@dataclass(frozen=True)
class Outcome:
    """An effort end to end in one cell.

    Parameters
    ----------
    load
        What tells the cells apart, for people.
    effort
        Solver and limit, or a policy without any.
    gap, gap_several
        Mean gap to the best known plan over all epochs, and over those of two stages or more; None of a policy that
        solves no epoch.
    judgements
        Its metrics by key, with how they compare with the baseline's at the same seeds.
    """

    load: str
    effort: str
    gap: Estimate | None
    gap_several: Estimate | None
    judgements: dict[str, Judgement]


@dataclass(frozen=True)
class Price:
    """What a gap costs in one cell, by all efforts together.

    Parameters
    ----------
    load
        What tells the cells apart.
    metric
        Which one.
    gap
        The mean gap that is priced.
    cost
        Ratio of the metric with that gap to without (latencies), or the difference (shares): mean over the seeds with
        its interval.
    reach
        Largest mean gap that was tried: beyond, the price is extrapolated.
    """

    load: str
    metric: Metric
    gap: float
    cost: Interval
    reach: float


def outcomes(results: Results, labels: dict[Cell, str], rows: Sequence[GapRow], baseline: str) -> list[Outcome]:
    """Every effort of every cell."""
    one_load = len(labels) == 1
    gaps = {(row.load, row.size, row.effort): row.above_best for row in rows}
    found = []
    for cell in results.cells:
        judged = {key: judge(results, cell, METRICS[key], baseline) for key in SHOWN}
        load = "" if one_load else labels[cell]
        for k, policy in enumerate(results.policies):
            all_epochs = gaps.get((load, "", policy))
            several = gaps.get((load, SEVERAL, policy), all_epochs)
            found.append(Outcome(labels[cell], policy, all_epochs, several, {key: j[k] for key, j in judged.items()}))
    return found


def prices(
    results: Results, labels: dict[Cell, str], found: Sequence[Outcome], baseline: str, gap: float = 0.05
) -> list[Price]:
    """What a mean gap of ``gap`` costs in each cell: the slope of a line through the baseline, a slope a seed.

    At each seed the line ``y = b (g - g_0)`` is fitted by least squares to the efforts' metrics against the baseline's
    (the logarithm of their ratio, or their difference) and mean gaps; the interval is of the mean b over the seeds.
    """
    made = []
    for cell in results.cells:
        own = [o for o in found if o.load == labels[cell] and o.gap is not None]
        base = next((o.gap.mean for o in own if o.effort == baseline and o.gap is not None), np.nan)
        x = np.array([o.gap.mean - base for o in own if o.gap is not None])
        if not (x.size and np.isfinite(x).all() and (x**2).sum() > 0.0):
            continue
        for key in SHOWN:
            metric = METRICS[key]
            y = np.array([_change(results, cell, metric, o.effort, baseline) for o in own])
            slope = x @ y / (x @ x)
            cost = bootstrap_mean(slope * gap)
            if metric.by_ratio:
                cost = Interval(*(float(np.exp(v)) for v in (cost.mean, cost.low, cost.high)))
            made.append(Price(labels[cell], metric, gap, cost, float(x.max() + base)))
    return made


def _change(results: Results, cell: Cell, metric: Metric, effort: str, baseline: str) -> np.ndarray:
    mine, base = (results.values(cell, policy, metric.key) for policy in (effort, baseline))
    return np.log(mine / base) if metric.by_ratio else mine - base
