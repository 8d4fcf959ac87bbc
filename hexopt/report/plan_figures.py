"""Figures of a plan's document: pure functions from its plain values to Plotly figures, in the pages' style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go

from hexopt.report.figures import COLOURS, GREY, empty, mark
from hexopt.report.plan_words import Document, fleet, measured, money, plain, rate, seconds, share
from hexopt.report.shell import number

BLUE, ORANGE, GREEN, PINK = COLOURS[:4]
CLASSES = 20
"""Work classes in a figure at most; the table beside it has them all."""
_BLUES = ("#b5d3ea", "#0b4a80")
"""From the lightest to the darkest cell, both to be told from a light and a dark page."""


def fleet_bars(document: Document) -> go.Figure:
    """What each row of the fleet costs an hour, dearest first."""
    rows = sorted(document["fleet"], key=row_cost)
    figure = empty(_cost(document), "")
    figure.add_trace(
        go.Bar(
            orientation="h",
            x=[row_cost(row) for row in rows],
            y=list(range(len(rows))),
            text=[money(row_cost(row)) for row in rows],
            textposition="auto",
            hovertext=[f"{row['count']} × {plain(row['name'])}" for row in rows],
            hovertemplate="%{hovertext}: %{x:,.2f}<extra></extra>",
            marker={"color": BLUE},
        )
    )
    return _rows(figure, [f"{row['count']} × {row['name']}" for row in rows], 34)


def row_cost(row: Document) -> float:
    """Money an hour of a row of the fleet, but for what whole nodes add: what is there already costs nothing."""
    saved = row["price"] - row["spot_price"] if row["spot"] and row["spot_price"] is not None else 0.0
    return float((row["count"] - row["there"]) * row["price"] - row["spot"] * saved)


def front(document: Document) -> go.Figure:
    """The cheapest fleet for each target, as steps: what lies between two targets takes the dearer fleet."""
    points = [point for point in document["front"] if point["cost_per_hour"] is not None]
    figure = empty("Promised share in time", _cost(document))
    x = [_nines(point["target"]) for point in points]
    _bound(figure, x, [point["bound"] for point in points], "vh")
    _points(figure, x, points, [f"for {share(point['target'])} in time" for point in points], "vh")
    here = _nines(document["target"])
    _chosen(figure, here, document["cost_per_hour"], f"for {share(document['target'])} in time")
    ticks = sorted({round(target, 9) for target in [document["target"], *(point["target"] for point in points)]})
    figure.update_xaxes(tickvals=[_nines(t) for t in ticks], ticktext=[share(t) for t in ticks])
    return _from_zero(figure, [document["cost_per_hour"], *(point["cost_per_hour"] for point in points)])


def sweep(document: Document) -> go.Figure:
    """The cheapest fleet at each rate, over the lower bound."""
    points = [point for point in document["sweep"] if point["cost_per_hour"] is not None]
    figure = empty("Workflows a second", _cost(document))
    x = [point["rate_factor"] * document["rate"] for point in points]
    _bound(figure, x, [point["bound"] for point in points], "linear")
    _points(figure, x, points, [f"at {rate(value)}" for value in x], "linear")
    _chosen(figure, document["rate"], document["cost_per_hour"], f"at {rate(document['rate'])}")
    figure.update_xaxes(rangemode="tozero")
    return _from_zero(figure, [document["cost_per_hour"], *(point["cost_per_hour"] for point in points)])


def curve(document: Document) -> go.Figure:
    """Attainment of the fleet at other rates, with its interval, the target, and the rate planned for."""
    points = document["curve"]
    figure = empty("Workflows a second", "Workflows in time (%)")
    x = [point["rate"] for point in points]
    low, high = ([100.0 * point["interval"][side] for point in points] for side in (0, 1))
    figure.add_trace(
        go.Scatter(
            x=x + x[::-1], y=high + low[::-1], mode="lines", line={"width": 0}, fill="toself",
            fillcolor="rgba(0,114,178,0.22)", hoverinfo="skip", name="95% interval",
        )
    )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=x,
            y=[100.0 * point["attainment"] for point in points],
            mode="lines+markers",
            line={"color": BLUE, "width": 2},
            marker={"size": 7},
            hovertext=[
                f"{rate(p['rate'])}: {measured(p)} in time<br>P95 {seconds(p['p95_s'])}" for p in points
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            name="in time",
        )
    )  # fmt: skip
    mark(figure, f"promise {share(document['target'])}", y=100.0 * document["target"])
    mark(figure, "planned for", x=document["rate"])
    figure.update_yaxes(range=[min(100.0 * document["target"] - 5.0, *low) - 1.0 if low else 0.0, 101.0])
    return figure


def sensitivity(document: Document) -> go.Figure:
    """Attainment with slower and faster GPUs than learned, a row a GPU type."""
    points = document["sensitivity"]
    kinds = list(dict.fromkeys(point["gpu"] for point in points))[::-1]
    figure = empty("Workflows in time (%)", "")
    for faster, colour, symbol in ((False, ORANGE, "triangle-left"), (True, GREEN, "triangle-right")):
        own = [point for point in points if (point["speed"] > 1.0) is faster]
        figure.add_trace(
            go.Scatter(
                x=[100.0 * point["attainment"] for point in own],
                y=[kinds.index(point["gpu"]) for point in own],
                error_x={
                    "array": [100.0 * (p["interval"][1] - p["attainment"]) for p in own],
                    "arrayminus": [100.0 * (p["attainment"] - p["interval"][0]) for p in own],
                    "thickness": 1.5,
                },
                mode="markers+text",
                text=[f"{point['speed'] - 1.0:+.0%}" for point in own],
                textposition="top center" if faster else "bottom center",
                marker={"color": colour, "size": 12, "symbol": symbol},
                hovertext=[
                    f"{_all_gpus(p['gpu'])} at {p['speed']:.0%} of the speed: {measured(p)} in time<br>"
                    f"P95 {seconds(p['p95_s'])}"
                    for p in own
                ],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    mark(figure, f"promise {share(document['target'])}", x=100.0 * document["target"])
    figure.update_xaxes(range=[min([95.0, *(100.0 * p["interval"][0] for p in points)]) - 3.0, 104.0])
    return _rows(figure, ["all GPUs" if kind == "all" else kind for kind in kinds], 90)


def one_more(document: Document) -> go.Figure:
    """The rate sustained with one more of each option, over that of the fleet as it is."""
    more = document["one_more"]
    base, currency = more["sustained"] * document["rate"], plain(document["currency"])
    rows = sorted(more["options"], key=lambda row: row["sustained"])
    gain = [row["sustained"] * document["rate"] - base for row in rows]
    figure = empty("Workflows a second more", "")
    figure.add_trace(
        go.Bar(
            orientation="h",
            x=gain,
            y=list(range(len(rows))),
            hovertext=[
                f"{plain(row['name'])}: {rate(base + g)} for {money(row['price'])} {currency} an hour"
                for row, g in zip(rows, gain, strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            marker={"color": GREEN},
        )
    )
    return _rows(figure, [row["name"] for row in rows], 24)


def growth(document: Document) -> go.Figure:
    """Cost of each period's fleet as steps, beside what the period would cost by itself."""
    periods = document["growth"]["periods"]
    edges = [0.0]
    for period in periods:
        edges.append(edges[-1] + period["weight"])
    figure = empty("", _cost(document))
    hover = [
        f"{plain(p['name'])}: {rate(p['rate_factor'] * document['rate'])}<br>{plain(fleet(p['fleet']))}<br>"
        f"{money(p['cost_per_hour'])}, alone {money(p['alone'])}"
        for p in periods
    ]
    for key, name, colour, dash in (
        ("alone", "each period by itself", GREY, "dot"),
        ("cost_per_hour", "a fleet that only grows with the rate", BLUE, "solid"),
    ):
        values = [period[key] for period in periods]
        figure.add_trace(
            go.Scatter(
                x=edges, y=[*values, values[-1]], name=name, mode="lines",
                line={"color": colour, "dash": dash, "width": 2, "shape": "hv"},
                hovertext=[*hover, hover[-1]], hovertemplate="%{hovertext}<extra></extra>",
            )
        )  # fmt: skip
    every = math.ceil(len(periods) / 8)
    figure.update_xaxes(
        tickvals=[(a + b) / 2.0 for a, b in pairwise(edges)][::every],
        ticktext=[plain(period["name"]) for period in periods][::every],
        showgrid=False,
    )
    _legend(figure)
    return _from_zero(figure, [period["cost_per_hour"] for period in periods])


def placement(document: Document) -> go.Figure:
    """Share of each stage kind's calls on each option, as a heat map; empty where none ran."""
    placed = document["placement"]
    kinds, options = placed["kinds"][::-1], placed["options"]
    shares = [[100.0 * value if value else None for value in row["share"]] for row in kinds]
    hover = [
        [
            f"<b>{plain(row['kind'])}</b> on {plain(option)}: {number(row['share'][j], percent=True)} of its calls<br>"
            f"{seconds(row['seconds'][j])} a call, {seconds(row['wait'][j])} of them waiting"
            for j, option in enumerate(options)
        ]
        for row in kinds
    ]
    figure = empty("", "")
    figure.add_trace(
        go.Heatmap(
            x=list(range(len(options))), y=list(range(len(kinds))), z=shares, hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>", texttemplate="%{z:.0f}%", colorscale=list(_BLUES),
            zmin=0.0, zmax=100.0, showscale=False, xgap=2, ygap=2, hoverongaps=False,
        )
    )  # fmt: skip
    figure.update_xaxes(tickvals=list(range(len(options))), ticktext=[_short(name) for name in options], side="top")
    figure.update_xaxes(showgrid=False, ticks="")
    return _rows(figure, [row["kind"] for row in kinds], 32)


def split(document: Document) -> go.Figure:
    """Seconds that the model gives a call of each class, those in which most of the load waits first."""
    rows = shown_classes(document)[:CLASSES][::-1]
    figure = empty("Seconds for one call", "")
    figure.add_trace(
        go.Bar(
            orientation="h",
            x=[row["seconds"] for row in rows],
            y=list(range(len(rows))),
            hovertext=[
                f"{plain(row['name'])}<br>{rate(row['calls_per_second'])} calls, {seconds(row['seconds'])} each"
                for row in rows
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            marker={"color": PINK},
        )
    )
    return _rows(figure, [row["name"] for row in rows], 22)


def shown_classes(document: Document) -> list[Document]:
    """The model's classes that it gives time, by calls under way at once."""
    rows = [row for row in document["model"]["classes"] if row["seconds"] is not None]
    return sorted(rows, key=lambda row: -row["calls_per_second"] * row["seconds"])


def rounds(document: Document) -> go.Figure:
    """Every fleet that was simulated: cost against attainment, with the one chosen and the bound."""
    tried = document["proof"]["rounds"]
    figure = empty(_cost(document), "Workflows in time (%)")
    for passed, name, colour, symbol in ((False, "too many late", ORANGE, "x"), (True, "enough", BLUE, "circle")):
        own = [(k, r) for k, r in enumerate(tried) if r["passed"] is passed]
        figure.add_trace(
            go.Scatter(
                x=[r["cost"] for _, r in own],
                y=[100.0 * r["attainment"] for _, r in own],
                name=name,
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 8, "opacity": 0.85},
                hovertext=[
                    f"<b>{k + 1}: {plain(r['why'])}</b><br>{plain(fleet(r['fleet']))}<br>"
                    f"{money(r['cost'])} an hour, {number(r['attainment'], percent=True)} in time"
                    for k, r in own
                ],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    _chosen(figure, document["cost_per_hour"], 100.0 * document["attainment"], "chosen")
    mark(figure, f"bound {money(document['bound'])}", x=document["bound"])
    mark(figure, f"promise {share(document['target'])}", y=100.0 * document["target"])
    figure.update_yaxes(range=[-4.0, 104.0])
    _legend(figure)
    return figure


def _cost(document: Document) -> str:
    return f"Cost ({plain(document['currency'])} an hour)"


def _all_gpus(gpu: str) -> str:
    return "all GPUs" if gpu == "all" else plain(gpu)


def _nines(target: float) -> float:
    """Place of a share on an axis on which each tenth of what may be late is as wide: 90%, 99%, 99.9%."""
    return -math.log10(max(1.0 - target, 1e-5))


def _short(name: str) -> str:
    """An option's name over a column: in two lines."""
    return plain(name).replace(" ", "<br>", 1)


def _points(figure: go.Figure, x: Sequence[float], points: Sequence[Document], heads: Sequence[str], way: str) -> None:
    figure.add_trace(
        go.Scatter(
            x=list(x),
            y=[point["cost_per_hour"] for point in points],
            name="cheapest fleet found",
            mode="lines+markers",
            line={"color": BLUE, "width": 2, "shape": way},
            marker={"size": 8},
            hovertext=[
                f"<b>{head}: {money(point['cost_per_hour'])}</b><br>{plain(fleet(point['fleet']))}<br>"
                f"{measured(point)} in time; at least {money(point['bound'])}"
                for head, point in zip(heads, points, strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )
    _legend(figure)


def _bound(figure: go.Figure, x: Sequence[float], y: Sequence[float], way: str) -> None:
    figure.add_trace(
        go.Scatter(
            x=list(x), y=list(y), name="no fleet costs less", mode="lines", hoverinfo="skip",
            line={"color": GREY, "width": 1.5, "dash": "dot", "shape": way},
        )
    )  # fmt: skip


def _chosen(figure: go.Figure, x: float, y: float, head: str) -> None:
    figure.add_trace(
        go.Scatter(
            x=[x], y=[y], name="this plan", mode="markers", hovertext=[f"this plan, {head}"],
            hovertemplate="%{hovertext}<extra></extra>",
            marker={"color": GREEN, "size": 15, "symbol": "star", "line": {"color": "#ffffff", "width": 1}},
        )
    )  # fmt: skip


def _legend(figure: go.Figure) -> None:
    figure.update_layout(
        showlegend=True, legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    )


def _from_zero(figure: go.Figure, costs: Sequence[float]) -> go.Figure:
    figure.update_yaxes(range=[0.0, 1.12 * max([*costs, 1e-9])])
    return figure


def _rows(figure: go.Figure, names: Sequence[str], height: int) -> go.Figure:
    """A figure of which each row has a name, from the bottom up."""
    places: list[Any] = list(range(len(names)))
    figure.update_yaxes(
        tickvals=places, ticktext=[plain(name) for name in names], range=[-0.6, len(names) - 0.4], showgrid=False,
        ticks="",
    )  # fmt: skip
    figure.update_layout(height=max(72 + height * len(names), 130), bargap=0.25)
    return figure
