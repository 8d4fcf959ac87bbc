"""The figures drawn: Plotly for the page, Matplotlib as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from hexopt.atomic import atomic_write
from hexopt.research.charts import Chart, Series

NEEDS_MATPLOTLIB = "figures/*.svg are left out, they need matplotlib: pip install 'hexopt[research]'"
Styles = Mapping[str, tuple[str, str]]
"""Colour and dash of each policy."""

_MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
_MATPLOTLIB_MARKERS = ("o", "s", "D", "^", "P", "X", "*", "v")
_MATPLOTLIB_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}


def plotly_figure(chart: Chart, styles: Styles) -> go.Figure:
    """The chart without colours for text and grid: the page sets those for its light or dark theme."""
    figure = go.Figure()
    figure.update_layout(
        template=None, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", showlegend=False, height=340,
        margin={"l": 8, "r": 12, "t": 12, "b": 8}, hoverlabel={"namelength": -1}, barmode="group",
    )  # fmt: skip
    figure.update_xaxes(title={"text": chart.x_title, "standoff": 8}, automargin=True, zeroline=False)
    figure.update_yaxes(title={"text": chart.y_title, "standoff": 8}, automargin=True, zeroline=False)
    for number, series in enumerate(chart.series):
        figure.add_trace(_trace(chart, series, styles[series.name], number))
    if chart.log_x:
        figure.update_xaxes(type="log", **_ticks(chart, "x"))
    if chart.log_y:
        figure.update_yaxes(type="log", **_ticks(chart, "y"))
    if chart.y_range is not None:
        bounds = _bounds(chart)
        figure.update_yaxes(range=[math.log10(bound) for bound in bounds] if chart.log_y else list(bounds))
    return figure


def _trace(chart: Chart, series: Series, style: tuple[str, str], number: int) -> Any:
    colour, dash = style
    hover = f"{series.name}<br>%{{x}}: %{{y:.3g}}<extra></extra>"
    errors = None
    if series.low:
        errors = {
            "type": "data", "symmetric": False, "thickness": 1, "width": 3,
            "array": [_gap(h, y) for h, y in zip(series.high, series.y, strict=True)],
            "arrayminus": [_gap(y, low) for y, low in zip(series.y, series.low, strict=True)],
        }  # fmt: skip
    if chart.kind == "bars":
        return go.Bar(
            x=series.x, y=series.y, name=series.name, marker={"color": colour, "pattern": {"shape": _pattern(dash)}},
            error_y=errors, hovertemplate=hover,
        )  # fmt: skip
    line = {"color": colour, "dash": dash, "width": 2}
    if chart.kind == "steps":
        hover = f"{series.name}<br>within %{{x:.3g}}: %{{y:.1f}}%<extra></extra>"
        # Numbers with all their digits would be most of the page.
        x, y = ([float(f"{v:.5g}") for v in values] for values in (series.x, series.y))
        return go.Scatter(x=x, y=y, name=series.name, mode="lines", line=line | {"shape": "hv"}, hovertemplate=hover)
    marker = {"symbol": _MARKERS[number % len(_MARKERS)], "size": 7}
    return go.Scatter(
        x=series.x, y=series.y, name=series.name, mode="lines+markers", line=line, marker=marker, error_y=errors,
        hovertemplate=hover,
    )  # fmt: skip


def _pattern(dash: str) -> str:
    return {"solid": "", "dash": "/", "dot": ".", "dashdot": "x"}[dash]


def _gap(above: float, below: float) -> float:
    return above - below if math.isfinite(above - below) else 0.0


def _ticks(chart: Chart, axis: str) -> dict[str, Any]:
    """Where a logarithmic axis has its numbers, written out."""
    values = [v for s in chart.series for v in getattr(s, axis) if isinstance(v, float) and 0 < v < math.inf]
    decades = math.log10(max(values) / min(values)) if values else 0.0
    ticks = [digit * 10.0**power for power in range(-4, 8) for digit in ((1, 2, 5) if decades < 2.5 else (1,))]
    return {"tickvals": ticks, "ticktext": [f"{tick:,g}" for tick in ticks]}


def _bounds(chart: Chart) -> tuple[float, float]:
    """Ends of the y axis; the upper one a little above all that is drawn where the chart leaves it open."""
    low, high = chart.y_range or (0.0, None)
    if high is not None:
        return low, high
    most = max((v for s in chart.series for v in (*s.y, *s.high) if math.isfinite(v)), default=1.0)
    return low, max(most * (1.3 if chart.log_y else 1.06), low + 1e-9)


def write_svg(path: Path, chart: Chart, styles: Styles) -> None:
    """The chart as an SVG file with its own legend, text as text.

    Raises
    ------
    ImportError
        Without Matplotlib.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": chart.key, "font.size": 9}):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / max(len(chart.series), 1)
        for number, series in enumerate(chart.series):
            colour, dash = styles[series.name]
            errors = None
            if series.low:
                errors = [
                    [_gap(y, low) for y, low in zip(series.y, series.low, strict=True)],
                    [_gap(h, y) for h, y in zip(series.high, series.y, strict=True)],
                ]
            if chart.kind == "bars":
                places = [k + (number + 0.5) * width - 0.4 for k in range(len(series.x))]
                hatch = {"": "", "/": "//", ".": "..", "x": "xx"}[_pattern(dash)]
                axes.bar(
                    places, series.y, width, label=series.name, color=colour, yerr=errors, hatch=hatch,
                    error_kw={"elinewidth": 0.7, "capsize": 1.5},
                )  # fmt: skip
                axes.set_xticks(range(len(series.x)), [str(x) for x in series.x])
            elif chart.kind == "steps":
                axes.step(
                    series.x, series.y, where="post", label=series.name, color=colour,
                    linestyle=_MATPLOTLIB_DASHES[dash], linewidth=1.3,
                )  # fmt: skip
            else:
                axes.errorbar(
                    series.x, series.y, yerr=errors, label=series.name, color=colour,
                    linestyle=_MATPLOTLIB_DASHES[dash], linewidth=1.3, elinewidth=0.7, capsize=2, markersize=4,
                    marker=_MATPLOTLIB_MARKERS[number % len(_MATPLOTLIB_MARKERS)],
                )  # fmt: skip
        axes.set_xlabel(chart.x_title)
        axes.set_ylabel(chart.y_title)
        axes.grid(alpha=0.25, linewidth=0.5)
        for log, scale in ((chart.log_x, axes.set_xscale), (chart.log_y, axes.set_yscale)):
            if log:
                scale("log")
        for log, axis, name in ((chart.log_x, axes.xaxis, "x"), (chart.log_y, axes.yaxis, "y")):
            if log:
                ticks = _ticks(chart, name)
                low, high = axis.get_view_interval()
                shown = [(v, t) for v, t in zip(*ticks.values(), strict=True) if low <= v <= high]
                axis.set_ticks([v for v, _ in shown], [t for _, t in shown])
                axis.set_minor_locator(NullLocator())
        if chart.y_range is not None:
            axes.set_ylim(*_bounds(chart))
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=7)
        with atomic_write(path, "wb") as stream:
            figure.savefig(stream, format="svg", metadata={"Date": None})
