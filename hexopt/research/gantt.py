"""Calls on instances over time, as SVG: one run, drawn for a page or a paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from hexopt.report.figures import COLOURS, GREY
from hexopt.research.contestants import register
from hexopt.research.grid import Job, Shared, run_of
from hexopt.simulation.lanes import pack_lanes
from hexopt.simulation.simulator import Run

MOST_BARS = 4000
"""Calls drawn at most: the window is cut to those that begin first."""
_WIDTH, _LEFT, _RIGHT, _TOP, _FOOT = 1000.0, 110.0, 10.0, 24.0, 52.0
_LANE, _APART = 6.0, 6.0
_TICKS = (1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Drawing:
    """A run to be drawn.

    Parameters
    ----------
    job
        The run.
    title
        What it is.
    seconds
        Length of the window, which begins with the first measured arrival.
    """

    job: Job
    title: str
    seconds: float


def draw(shared: Shared, drawing: Drawing) -> str:
    """Simulate the run again, and draw it."""
    for source in shared.sources:
        register(source)
    run = run_of(shared, drawing.job)
    begin = float(run.workflow["arrival"][drawing.job.before])
    return gantt_svg(run, begin, begin + drawing.seconds, drawing.title)


def gantt_svg(run: Run, begin: float, end: float, title: str) -> str:
    """The calls that run between ``begin`` and ``end``, a bar each from first to last token, coloured by kind.

    Calls that an instance batches lie in lanes above each other. Colours are of the palette for all kinds of colour
    vision of M. Okabe and K. Ito (https://jfly.uni-koeln.de/color/), and the six most frequent kinds have one; a call
    of a workflow that missed its deadline is outlined.

    Parameters
    ----------
    begin, end
        Simulated seconds.
    title
        Text above.
    """
    start = run.stage["start"]
    finish = np.where(np.isnan(run.stage["finish"]), run.end, run.stage["finish"])
    rows = np.flatnonzero(~np.isnan(start) & (start < end) & (finish > begin))
    rows = rows[np.argsort(start[rows], kind="stable")][:MOST_BARS]
    if rows.size == MOST_BARS:
        end = float(start[rows[-1]])
    scale = (_WIDTH - _LEFT - _RIGHT) / (end - begin)
    styles = _colours(run, rows)
    parts, y = [], _TOP
    late = ~(run.workflow["finish"] <= run.workflow["deadline"])
    for i, instance in enumerate(run.cluster.instances):
        here = rows[run.stage["instance"][rows] == i]
        lanes = pack_lanes(start[here], finish[here])
        height = _LANE * max(int(lanes.max(initial=0)) + 1, 2)
        parts.append(
            f'<text x="{_LEFT - 6:g}" y="{y + height / 2 + 4:.1f}" text-anchor="end">{escape(instance.name)}</text>'
        )
        for r, lane in zip(here.tolist(), lanes.tolist(), strict=True):
            left, right = max(start[r], begin), min(finish[r], end)
            stage = run.stage[r]
            kind = run.kinds[int(stage["kind"])]
            outline = ' stroke="currentColor" stroke-width="0.8"' if late[stage["workflow"]] else ""
            hint = f"{kind} of workflow {stage['workflow']}: {start[r]:.2f} to {finish[r]:.2f} s"
            parts.append(
                f'<rect x="{_LEFT + (left - begin) * scale:.2f}" y="{y + lane * _LANE:.1f}" '
                f'width="{max((right - left) * scale, 0.2):.2f}" height="{_LANE - 1:g}" '
                f'fill="{styles.get(kind, GREY)}"{outline}><title>{escape(hint)}</title></rect>'
            )
        y += height + _APART
        parts.append(
            f'<line x1="{_LEFT:g}" x2="{_WIDTH - _RIGHT:g}" y1="{y - _APART / 2:.1f}" y2="{y - _APART / 2:.1f}" '
            f'stroke="{GREY}" stroke-width="0.5"/>'
        )
    parts += _axis(begin, end, scale, y)
    parts += _legend(styles, bool(len(set(run.kinds)) > len(styles)), y + 38.0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {y + _FOOT:.1f}" width="100%" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="11" fill="currentColor">'
        f'<text x="{_LEFT:g}" y="14" font-weight="600">{escape(title)}</text>{"".join(parts)}</svg>\n'
    )


def _colours(run: Run, rows: Sequence[int] | np.ndarray) -> dict[str, str]:
    """A colour for each of the most frequent kinds, in the order of the run's."""
    counts = np.bincount(run.stage["kind"][rows], minlength=len(run.kinds))
    most = sorted(np.argsort(-counts, kind="stable")[: len(COLOURS)].tolist())
    return {run.kinds[k]: colour for k, colour in zip(most, COLOURS, strict=False)}


def _axis(begin: float, end: float, scale: float, y: float) -> list[str]:
    """Seconds along the foot."""
    step = next(
        tick * 10.0**power for power in range(-3, 9) for tick in _TICKS if (end - begin) / (tick * 10.0**power) <= 12.0
    )
    parts = []
    for k in range(int(np.ceil(begin / step)), int(end / step) + 1):
        x = _LEFT + (k * step - begin) * scale
        parts.append(f'<text x="{x:.1f}" y="{y + 12:.1f}" text-anchor="middle">{k * step:g}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT:g}" y="{y + 24:.1f}" text-anchor="end">simulated time (s)</text>')
    return parts


def _legend(styles: dict[str, str], others: bool, y: float) -> list[str]:
    """Which colour is which kind."""
    parts, x = [], _LEFT
    for kind, colour in [*styles.items(), *([("other", GREY)] if others else [])]:
        parts.append(f'<circle cx="{x + 5:.1f}" cy="{y - 4:.1f}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14:.1f}" y="{y:.1f}">{escape(kind)}</text>')
        x += 28.0 + 6.5 * len(kind)
    parts.append(f'<text x="{_LEFT:g}" y="{y - 14:.1f}">outlined: of a workflow that was late</text>')
    return parts
