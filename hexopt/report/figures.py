"""Figures of runs: pure functions from data to Plotly figures, without colours for text and grid.

A page that shows them sets those for its light or dark theme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from colorsys import hls_to_rgb

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from hexopt.simulation.lanes import pack_lanes
from hexopt.simulation.metrics import latencies, scale_at
from hexopt.simulation.simulator import Run

BASELINE = "round-robin"
"""Label of the policy that others are compared with."""
GREY = "#8a8f98"
BASELINE_COLOUR = GREY
# Okabe and Ito's palette for all kinds of colour vision (https://jfly.uni-koeln.de/color/), without its black and
# yellow, which vanish on a dark or a light page.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("solid", "dash", "dot", "dashdot")

CURVE_POINTS = 400
"""Points of a curve at most: more cannot be seen."""
WORKFLOW_HUES = 24
"""Colours that workflows share in a Gantt chart."""

_LOG_FROM = 20.0  # ratio of the largest to the smallest latency from which an axis is logarithmic


def policy_styles(policies: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and dash of each policy, in order of appearance; grey and dashed for round-robin."""
    styles = {}
    others = [p for p in dict.fromkeys(policies) if p != BASELINE]
    for k, policy in enumerate(others):
        styles[policy] = (COLOURS[k % len(COLOURS)], DASHES[k // len(COLOURS) % len(DASHES)])
    if BASELINE in policies:
        styles[BASELINE] = (BASELINE_COLOUR, "dash")
    return styles


def latency_tail(runs: Sequence[Run], styles: dict[str, tuple[str, str]]) -> go.Figure:
    """Share of workflows that took longer than x seconds, a curve per run, on logarithmic shares.

    The empirical distribution turned over, so that the slowest one in twenty and one in a hundred, which a linear
    one squeezes under its top edge, take two thirds of the height. Workflows that have not ended count as longer than
    any x.
    """
    figure = empty("End-to-end latency of a workflow, x (s)", "Workflows slower than x (%)")
    for run in runs:
        latency, share = _ecdf(run)
        slower = 100.0 * (1.0 - share)
        drawn = slower > 0.0
        _curve(
            figure, run.policy, styles[run.policy], latency[drawn], slower[drawn], "slower than %{x:.3g} s: %{y:.3g}%"
        )
    smallest = 100.0 / max(run.workflow.shape[0] for run in runs)
    figure.update_yaxes(type="log", range=[math.log10(smallest), 2.0], tickvals=[100, 50, 10, 5, 1, 0.1, 0.01])
    for level, text in ((5.0, "P95"), (1.0, "P99")):
        if level >= smallest:
            mark(figure, text, y=level)
    spread = _spread(runs)
    if spread > _LOG_FROM:
        digits = (1, 2, 5) if spread < 100.0 else (1,)
        ticks = [digit * 10.0**power for power in range(-3, 8) for digit in digits]
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:,g}" for tick in ticks])
    return figure


def attainment(runs: Sequence[Run], styles: dict[str, tuple[str, str]]) -> go.Figure:
    """Share of workflows that finished within x seconds of their arrival, a curve per run.

    Read it as the SLO attainment if every workflow were given x seconds. A line marks the deadline of the runs, their
    median where workflows have different ones.
    """
    figure = empty("Deadline, counted from arrival (s)", "Workflows in time (%)")
    # Up to where the slowest has 99%, or thrice where the best has: beyond, only stragglers of slow policies remain.
    reach = [quantile for run in runs if math.isfinite(quantile := scale_at(latencies(run), 0.99))]
    given = runs[0].workflow["deadline"] - runs[0].workflow["arrival"]
    given = given[np.isfinite(given)]
    middle = float(np.median(given)) if given.size else 1.0
    right = 1.05 * max(middle, min(max(reach), 3.0 * min(reach)) if reach else 0.0)
    for run in runs:
        latency, share = _ecdf(run)
        latency = np.append(latency, max(right, latency.max(initial=0.0)))
        share = np.append(share, share.max(initial=0.0))
        _curve(figure, run.policy, styles[run.policy], latency, 100.0 * share, "within %{x:.3g} s: %{y:.1f}%")
    if given.size:
        same = float(np.ptp(given)) <= 1e-6 * float(given.max())
        mark(figure, "deadline" if same else "median deadline", x=middle)
    figure.update_xaxes(range=[0.0, right])
    figure.update_yaxes(range=[0.0, 101.0])
    return figure


def loaded_window(runs: Sequence[Run], bars: int) -> tuple[float, float]:
    """Longest window about the busiest moment in which no run has more than ``bars`` stages on its instances.

    The busiest moment is when most stages are ready and not finished in the run that ended first, and the window ends
    with that run: then the others are loaded too. It is the same for all runs, so that their charts can be compared.
    Where more than ``bars`` stages run at once, it is a thousandth of the run, which holds more.

    Returns
    -------
    tuple of float
        Start and end, absolute seconds.
    """
    first = min(runs, key=lambda run: run.end)
    begin, end = float(first.workflow["arrival"].min()), first.end
    stage = first.stage[~np.isnan(first.stage["ready"])]
    if not stage.size:
        return begin, end
    moments = np.concatenate([stage["ready"], np.where(np.isnan(stage["finish"]), end, stage["finish"])])
    order = np.argsort(moments, kind="stable")
    inside = np.cumsum(np.repeat([1, -1], stage.size)[order])
    busiest = float(moments[order[int(inside.argmax())]])
    intervals = [_intervals(run) for run in runs]
    sorted_ends = [(np.sort(a), np.sort(b)) for _, a, b in intervals]

    def most(half: float) -> int:
        t0, t1 = max(begin, busiest - half), min(end, busiest + half)
        return max(
            int(np.searchsorted(a, t1, side="left") - np.searchsorted(b, t0, side="right")) for a, b in sorted_ends
        )

    low, high = 0.0, end - begin
    if most(high) <= bars:
        low = high
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if most(middle) <= bars else (low, middle)
    low = max(low, 1e-3 * (end - begin))
    return max(begin, busiest - low), min(end, busiest + low)


def gantt(run: Run, window: tuple[float, float], bars: int) -> go.Figure:
    """What every instance did in ``window``: a bar a stage, from its first to its last token, coloured by workflow.

    Stages that an instance batches lie in lanes above each other. At most ``bars`` are drawn, evenly over the window;
    what is left out then is said in the figure's ``meta``.
    """
    rows, start, end = _intervals(run)
    seen = np.flatnonzero((start < window[1]) & (end > window[0]))
    seen = seen[np.argsort(start[seen], kind="stable")]
    total = seen.size
    if total > bars:
        seen = seen[np.linspace(0, total - 1, bars).round().astype(np.int64)]
    stage, start, end = run.stage[rows[seen]], start[seen], end[seen]

    lane = np.zeros(seen.size, dtype=np.int32)
    bottoms, depth = [], 0
    for i in range(len(run.cluster.instances)):
        here = stage["instance"] == i
        packed = pack_lanes(start[here], end[here])
        lane[here] = packed + depth
        bottoms.append(depth)
        # An empty lane apart from the next instance; at least three, so that names keep apart.
        depth += int(packed.max(initial=2)) + 2
    middles = [0.5 * (a + b - 2) for a, b in zip(bottoms, [*bottoms[1:], depth], strict=True)]

    workflow = run.workflow[stage["workflow"]]
    ended = np.where(np.isnan(workflow["finish"]), run.end, workflow["finish"])
    names = np.array(run.kinds, dtype=object)[stage["kind"]]
    # Numbers as arrays and only the kind as text: a third of the bytes.
    figures = (
        stage["workflow"],
        stage["prompt"],
        stage["cached"],
        stage["output"],
        start - stage["ready"],
        stage["first_token"] - start,
        ended - workflow["deadline"],
    )
    figure = empty("Simulated time (s)", "")
    figure.add_trace(
        go.Bar(
            orientation="h",
            base=start,
            x=end - start,
            y=lane,
            width=0.86,
            hovertext=names,
            customdata=np.stack(figures, axis=1).astype(np.float32),
            hovertemplate=(
                "<b>%{hovertext}</b>, workflow %{customdata[0]:d}"
                "<br>prompt %{customdata[1]:,d} tokens, %{customdata[2]:,d} of them cached"
                "<br>output %{customdata[3]:,d} tokens"
                "<br>queued %{customdata[4]:.2f} s, then %{customdata[5]:.2f} s to the first token"
                "<br>workflow ended %{customdata[6]:+.1f} s from its deadline<extra></extra>"
            ),
            marker={"color": _workflow_colours()[stage["workflow"] % WORKFLOW_HUES], "line": {"width": 0}},
        )
    )
    for bottom in bottoms[1:]:
        figure.add_shape(
            type="line", xref="paper", x0=0, x1=1, y0=bottom - 1, y1=bottom - 1, line={"color": GREY, "width": 0.5}
        )
    figure.update_xaxes(range=list(window))
    figure.update_yaxes(
        range=[depth - 1, -1],
        tickvals=middles,
        ticktext=[i.name for i in run.cluster.instances],
        showgrid=False,
        ticks="",
    )
    instances = len(run.cluster.instances)
    height = 90 + max(22 * instances, min(7 * depth, 640))
    figure.update_layout(
        height=min(height, 1600), bargap=0, hovermode="closest", meta={"drawn": int(seen.size), "of": int(total)}
    )
    return figure


def _intervals(run: Run) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Stages that ran: row, start, and end (that of the run where they had not finished)."""
    rows = np.flatnonzero(~np.isnan(run.stage["start"]))
    finish = run.stage["finish"][rows]
    return rows, run.stage["start"][rows], np.where(np.isnan(finish), run.end, finish)


def _ecdf(run: Run) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latencies in order and the share of all workflows up to each, thinned; the steps that remain are exact."""
    ordered = np.sort(latencies(run))
    share = np.arange(1, ordered.size + 1) / ordered.size
    done = int(np.isfinite(ordered).sum())
    if done > CURVE_POINTS:
        # Half spread evenly over the shares, half towards the top, where the tail is.
        even = np.linspace(0, done - 1, CURVE_POINTS // 2)
        tail = done - np.geomspace(1, done, CURVE_POINTS // 2)
        keep = np.unique(np.concatenate([even, tail]).round().astype(np.int64))
    else:
        keep = np.arange(done)
    return ordered[keep], share[keep]


def _spread(runs: Sequence[Run]) -> float:
    values = np.concatenate([latencies(run) for run in runs])
    values = values[np.isfinite(values) & (values > 0.0)]
    return float(values.max() / values.min()) if values.size else 1.0


def empty(x: str, y: str) -> go.Figure:
    """A figure with titles of its axes and nothing in it."""
    figure = go.Figure()
    figure.update_layout(
        template=None,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        height=340,
        margin={"l": 8, "r": 12, "t": 20, "b": 8},
        hoverlabel={"namelength": -1},
    )
    figure.update_xaxes(title={"text": x, "standoff": 8}, automargin=True, zeroline=False)
    figure.update_yaxes(title={"text": y, "standoff": 8}, automargin=True, zeroline=False)
    return figure


def _curve(
    figure: go.Figure,
    name: str,
    style: tuple[str, str],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    hover: str,
) -> None:
    colour, dash = style
    figure.add_trace(
        go.Scatter(
            x=x,
            y=y,
            name=name,
            mode="lines",
            line={"color": colour, "dash": dash, "width": 2, "shape": "hv"},
            hovertemplate=f"{name}<br>{hover}<extra></extra>",
        )
    )


def mark(figure: go.Figure, text: str, *, x: float | None = None, y: float | None = None) -> None:
    """A dotted grey line across the figure at x or y, with its name at its end."""
    line = {"color": GREY, "width": 1, "dash": "dot"}
    font = {"color": GREY, "size": 11}
    if x is not None:
        figure.add_shape(type="line", x0=x, x1=x, yref="paper", y0=0, y1=1, line=line)
        figure.add_annotation(
            x=x, yref="paper", y=1, text=text, showarrow=False, xanchor="center", yanchor="bottom", font=font
        )
    if y is not None:
        figure.add_shape(type="line", y0=y, y1=y, xref="paper", x0=0, x1=1, line=line)
        # An annotation's place on a logarithmic axis is the logarithm; a shape's is not.
        place = math.log10(y) if figure.layout.yaxis.type == "log" else y
        figure.add_annotation(
            xref="paper", x=0, y=place, text=text, showarrow=False, xanchor="left", yanchor="bottom", font=font
        )


def _workflow_colours() -> NDArray[np.object_]:
    """Colours such that workflows that arrive one after the other look different, shape (WORKFLOW_HUES,)."""
    # Turning by the golden angle keeps any few neighbours far apart in hue; lightness tells similar hues apart.
    return np.array(
        [_hex((k * 137.508 / 360.0) % 1.0, (0.46, 0.58, 0.68)[k % 3]) for k in range(WORKFLOW_HUES)], dtype=object
    )


def _hex(hue: float, lightness: float) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in hls_to_rgb(hue, lightness, 0.58))
