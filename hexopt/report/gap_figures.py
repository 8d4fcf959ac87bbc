"""Figures of the gap's document: pure functions from its plain values to Plotly figures, in the pages' style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from hexopt.report.figures import GREY, empty, mark, policy_styles

Document = dict[str, Any]
ALL, SEVERAL = "", "2 or more"
"""Sizes of the groups of all epochs, and of those with something to plan together."""
_FLOOR = 1e-5
"""Gap that stands for 0 on a logarithmic axis."""
_TICKS = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")


def gap_against_time(rows: Sequence[Document], key: str) -> go.Figure:
    """Mean gap against the median time of a solve, a line a solver through its limits.

    Parameters
    ----------
    rows
        One group of the race.
    key
        ``above_best`` or ``above_bound``.
    """
    figure = empty("Median time of a solve (ms)", "Mean gap")
    solvers = list(dict.fromkeys(_solver(row) for row in rows))
    styles = policy_styles(solvers)
    for k, solver in enumerate(solvers):
        own = sorted(
            (row for row in rows if _solver(row) == solver and row[key]["mean"] is not None),
            key=lambda row: row["seconds"],
        )
        colour, dash = styles[solver]
        figure.add_trace(
            go.Scatter(
                x=[1e3 * row["seconds"] for row in own],
                y=[max(row[key]["mean"], _FLOOR) for row in own],
                name=solver,
                mode="lines+markers",
                line={"color": colour, "dash": dash, "width": 2},
                marker={"size": 8, "symbol": _SYMBOLS[k % len(_SYMBOLS)]},
                hovertext=[f"{row['effort']}: {1e3 * row['seconds']:.3g} ms, {row[key]['mean']:.3%}" for row in own],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="log", **_gap_ticks())
    return _with_legend(figure)


def by_size(rows: Sequence[Document]) -> go.Figure:
    """Mean gap to the best known over the size, a line a solver at its longest limit, or an effort in moves."""
    figure = empty("Stages of the epoch", "Mean gap")
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    shown = _longest(rows)
    styles = policy_styles(shown)
    for k, effort in enumerate(shown):
        gaps = {row["size"]: row["above_best"]["mean"] for row in rows if row["effort"] == effort}
        own = [size for size in sizes if gaps.get(size) is not None]
        colour, dash = styles[effort]
        figure.add_trace(
            go.Scatter(
                x=own,
                y=[max(gaps[size], _FLOOR) for size in own],
                name=effort,
                mode="lines+markers",
                line={"color": colour, "dash": dash, "width": 2},
                marker={"size": 8, "symbol": _SYMBOLS[k % len(_SYMBOLS)]},
                hovertext=[f"{effort}, {size} stages: {gaps[size]:.3%}" for size in own],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=sizes)
    figure.update_yaxes(type="log", **_gap_ticks())
    return _with_legend(figure)


def end_to_end(rows: Sequence[Document], metric: str, baseline: str) -> go.Figure:
    """A metric against the baseline's over the mean gap of all epochs, a series a load."""
    ratio = metric != "attainment"
    figure = empty("Mean gap of an epoch (%)", "Ratio" if ratio else "Points more in time")
    loads = list(dict.fromkeys(row["load"] for row in rows))
    styles = policy_styles(loads)
    for k, load in enumerate(loads):
        own = [row for row in rows if row["load"] == load and row["gap"] is not None and row["gap"]["mean"] is not None]
        own.sort(key=lambda row: row["gap"]["mean"])
        values = [_versus(row[f"{metric}_versus"], ratio) for row in own]
        colour, dash = styles[load]
        figure.add_trace(
            go.Scatter(
                x=[100.0 * row["gap"]["mean"] for row in own],
                y=[mean for mean, _, _ in values],
                error_y={
                    "type": "data", "symmetric": False, "thickness": 1, "width": 3,
                    "array": [high - mean for mean, _, high in values],
                    "arrayminus": [mean - low for mean, low, _ in values],
                },
                name=load,
                mode="lines+markers",
                line={"color": colour, "dash": dash, "width": 2},
                marker={"size": 8, "symbol": _SYMBOLS[k % len(_SYMBOLS)]},
                hovertext=[f"{row['effort']}, {load}" for row in own],
                hovertemplate="%{hovertext}<br>gap %{x:.2f}%: %{y:.3f}<extra></extra>",
            )
        )  # fmt: skip
    mark(figure, baseline, y=1.0 if ratio else 0.0)
    return _with_legend(figure)


def _versus(versus: Document | None, ratio: bool) -> tuple[float, float, float]:
    """Mean and ends of the interval, the effort's over the baseline's or the points more."""
    if versus is None or versus["mean"] is None:
        return (1.0,) * 3 if ratio else (0.0,) * 3
    mean = versus["mean"]
    low, high = (mean if end is None else end for end in versus["interval"])
    return (1.0 / mean, 1.0 / high, 1.0 / low) if ratio else (100.0 * mean, 100.0 * low, 100.0 * high)


def _solver(row: Document) -> str:
    name, _, limit = row["effort"].partition(":")
    return f"{name}, moves" if limit.isdigit() else str(name)


def _longest(rows: Sequence[Document]) -> list[str]:
    """Of each solver in time the effort that took longest; all others."""
    efforts: dict[str, str] = {}
    for row in rows:
        solver = _solver(row)
        timed = row["effort"].endswith("s") and ":" in row["effort"]
        efforts[solver if timed else row["effort"]] = row["effort"]
    return list(dict.fromkeys(efforts.values()))


def _gap_ticks() -> dict[str, Any]:
    return {
        "tickvals": list(_TICKS),
        "ticktext": ["0" if tick == _FLOOR else f"{100 * tick:g}%" for tick in _TICKS],
        "range": [math.log10(_FLOOR) - 0.1, 0.1],
    }


def _with_legend(figure: go.Figure) -> go.Figure:
    figure.update_layout(
        showlegend=True, height=400, legend={"orientation": "h", "y": -0.25, "yanchor": "top", "font": {"size": 11}}
    )
    figure.update_xaxes(linecolor=GREY)
    return figure
