"""What the figures show, as data: drawn by Plotly for the page and by Matplotlib for papers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hexopt.research.comparison import Judgement
from hexopt.research.metrics import LEAST_FOR_REQ99, METRICS
from hexopt.research.results import Cell, Results, SustainedRates
from hexopt.research.statistics import bootstrap_mean

Kind = Literal["lines", "bars", "steps"]
CURVE_POINTS = 200
"""Points of a distribution's curve at most."""


@dataclass(frozen=True)
class Series:
    """One policy's points, with their 95% intervals where they have some."""

    name: str
    x: list[float] | list[str]
    y: list[float]
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """A figure: lines with markers, bars side by side, or the steps of a distribution."""

    key: str
    title: str
    x_title: str
    y_title: str
    kind: Kind
    series: list[Series]
    log_x: bool = False
    log_y: bool = False
    y_range: tuple[float, float | None] | None = None


@dataclass(frozen=True)
class _Against:
    key: str
    title: str
    y_title: str
    scale: float = 1.0
    log_y: bool = False
    y_range: tuple[float, float | None] | None = None


_AGAINST_RATE = (
    _Against("attainment", "SLO attainment against rate", "Workflows in time (%)", 100.0, y_range=(0.0, 101.0)),
    _Against("p95_s", "P95 latency against rate", "P95 latency (s)", log_y=True),
    _Against("goodput", "Goodput against rate", "Goodput (workflows/s)", y_range=(0.0, None)),
    _Against("utilisation", "Utilisation against rate", "Instances busy (%)", 100.0, y_range=(0.0, 101.0)),
    _Against("scheduler_us_per_call", "Scheduler time against rate", "Processor time a decision (µs)", log_y=True),
)


def against_rate(results: Results, cells: Sequence[Cell]) -> list[Chart]:
    """Figures over the rates of ``cells``, which share trace, cluster and deadline."""
    cells = sorted(cells, key=lambda cell: cell.rate)
    loads = all(cell.load is not None for cell in cells)
    x = [100.0 * cell.load if cell.load is not None else cell.rate for cell in cells]
    x_title = "Arrival rate (% of capacity)" if loads else "Arrival rate (workflows/s)"
    charts = []
    for what in _AGAINST_RATE:
        series = _over(results, cells, x, what)
        charts.append(
            Chart(what.key, what.title, x_title, what.y_title, "lines", series, False, what.log_y, what.y_range)
        )
    return charts


def against_deadline(results: Results, cells: Sequence[Cell], x: Sequence[float], x_title: str) -> Chart:
    """Attainment over the deadlines of ``cells``, which share trace, cluster and rate; each was simulated."""
    what = _AGAINST_RATE[0]
    series = _over(results, cells, list(x), what)
    return Chart(
        "deadline", "SLO attainment against the deadline", x_title, what.y_title, "lines", series, y_range=what.y_range
    )


def against_condition(results: Results, cells: Sequence[Cell], key: str) -> Chart:
    """A figure under each condition of ``cells``, which share everything else."""
    what = next(w for w in _AGAINST_RATE if w.key == key)
    names = [cell.condition or "nothing unusual" for cell in cells]
    series = []
    for policy in results.policies:
        found = [bootstrap_mean(what.scale * results.values(cell, policy, key)) for cell in cells]
        series.append(Series(policy, names, [i.mean for i in found], [i.low for i in found], [i.high for i in found]))
    title = f"{what.title.partition(' against')[0]} by condition"
    low = 1.0 if what.log_y else 0.0
    return Chart(f"condition-{key}", title, "", what.y_title, "bars", series, False, what.log_y, (low, None))


def _over(results: Results, cells: Sequence[Cell], x: list[float], what: _Against) -> list[Series]:
    series = []
    for policy in results.policies:
        found = [bootstrap_mean(what.scale * results.values(cell, policy, what.key)) for cell in cells]
        if any(math.isfinite(i.mean) for i in found):
            series.append(Series(policy, x, [i.mean for i in found], [i.low for i in found], [i.high for i in found]))
    return series


def sustained_bars(found: SustainedRates, judged: Sequence[Judgement]) -> Chart:
    """The rate that every policy sustains."""
    series = [
        Series(j.policy, [""], [j.value.mean], [j.value.low], [j.value.high])
        for j in judged
        if math.isfinite(j.value.mean)
    ]
    title = found.what[0].upper() + found.what[1:]
    return Chart(
        "sustained", f"{title}: higher is better", "", "Workflows a second", "bars", series, y_range=(0.0, None)
    )


def requirement_bars(results: Results, cell: Cell, workflows: int) -> Chart:
    """Req95, and Req99 where runs are long enough, of every policy."""
    keys = ["req95"] + (["req99"] if workflows >= LEAST_FOR_REQ99 else [])
    series = []
    for policy in results.policies:
        found = [bootstrap_mean(results.values(cell, policy, key)) for key in keys]
        series.append(
            Series(
                policy, [METRICS[k].title for k in keys],
                [i.mean for i in found], [i.low for i in found], [i.high for i in found],
            )
        )  # fmt: skip
    title = " and ".join(METRICS[k].title for k in keys)
    return Chart(
        "req",
        f"{title}: lower is better",
        "",
        "SLO scale (× stand-alone)",
        "bars",
        series,
        log_y=True,
        y_range=(1.0, None),
    )


def latency_distribution(results: Results, cell: Cell) -> Chart:
    """Share of the measured workflows of all seeds that took no longer than x."""
    series = [_steps(p, results.pooled(cell, p, "latency_s")) for p in results.policies]
    return Chart(
        "cdf", "Latency of a workflow", "End-to-end latency (s)", "Workflows no slower (%)", "steps", series,
        log_x=True, y_range=(0.0, 101.0),
    )  # fmt: skip


def scale_curve(results: Results, cell: Cell) -> Chart:
    """Share of the measured workflows of all seeds within x times their stand-alone latency."""
    series = [
        _steps(p, results.pooled(cell, p, "latency_s") / results.pooled(cell, p, "standalone_s"))
        for p in results.policies
    ]
    return Chart(
        "scale", "SLO attainment against SLO scale", "SLO scale (× stand-alone latency)", "Workflows within it (%)",
        "steps", series, log_x=True, y_range=(0.0, 101.0),
    )  # fmt: skip


def cell_charts(results: Results, cell: Cell, workflows: int) -> list[Chart]:
    """All figures of one cell."""
    return [
        requirement_bars(results, cell, workflows),
        scale_curve(results, cell),
        latency_distribution(results, cell),
    ]


def _steps(name: str, values: NDArray[np.float64]) -> Series:
    ordered = np.sort(values[np.isfinite(values)])
    share = 100.0 * np.arange(1, ordered.size + 1) / max(values.size, 1)
    keep = np.unique(np.linspace(0, ordered.size - 1, min(CURVE_POINTS, ordered.size)).round().astype(np.int64))
    return Series(name, ordered[keep].tolist(), share[keep].tolist())
