"""One HTML page that compares policies: everything in the file, nothing fetched."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from hexopt.atomic import atomic_write
from hexopt.report import figures
from hexopt.report.shell import asset, finite, number, page_of
from hexopt.simulation.simulator import Run

GANTT_BARS = 900
"""Bars of one Gantt chart at most."""
PAGE_BARS = 24_000
"""Bars of all Gantt charts of a page at most, so that it stays under about 8 MB."""


@dataclass(frozen=True)
class Scenario:
    """The same work under several policies.

    Parameters
    ----------
    name
        What tells it from the page's other scenarios, such as the arrival rate.
    runs
        One run a policy.
    rows
        Their figures, in the same order: ``policy``, ``workflows``, ``calls``, ``mean_s``, ``p50_s``, ``p95_s``,
        ``p99_s``, ``attainment``, ``req95``, ``req99``, ``throughput``, ``goodput``, ``engine_cpu_s``; seconds,
        shares, or workflows a second; ``None`` or infinite where there is none. Further keys are not shown.
    """

    name: str
    runs: list[Run]
    rows: list[dict[str, Any]]

    def __post_init__(self) -> None:
        if not self.runs or len(self.runs) != len(self.rows):
            raise ValueError(
                f"scenario {self.name!r} has {len(self.runs)} runs and {len(self.rows)} rows, expected one row a run"
            )


@dataclass(frozen=True)
class _Column:
    key: str
    title: str
    hint: str
    percent: bool = False
    smaller_is_better: bool = True


_COLUMNS = (
    _Column("p95_s", "P95 (s)", "95% of the workflows that ended took no longer"),
    _Column("p99_s", "P99 (s)", "99% of the workflows that ended took no longer"),
    _Column("p50_s", "P50 (s)", "median latency of a workflow"),
    _Column("mean_s", "Mean (s)", "mean latency of a workflow"),
    _Column("attainment", "In time", "SLO attainment: share of workflows that ended by their deadline", True, False),
    _Column("req95", "Req95", "smallest multiple of its stand-alone latency within which 95% of the workflows end"),
    _Column("req99", "Req99", "smallest multiple of its stand-alone latency within which 99% of the workflows end"),
    _Column("goodput", "Goodput (1/s)", "workflows a second that ended by their deadline", False, False),
    _Column("throughput", "Throughput (1/s)", "workflows a second that ended", False, False),
    _Column("engine_cpu_s", "CPU (s)", "processor seconds of the simulation, the policy's decisions included"),
)

_COST = "engine_cpu_s"
"""What is no merit of a policy: the time includes the simulator's, and its compilation where it came first."""


def write_page(path: str | Path, title: str, scenarios: Sequence[Scenario]) -> None:
    """Write a self-contained page about ``scenarios``.

    Parameters
    ----------
    path
        HTML file to write; it appears whole or not at all.
    title
        The page's heading.
    scenarios
        At least one; each is a tab.

    Raises
    ------
    ValueError
        Without any scenario.
    OSError
        If ``path`` cannot be written.
    """
    page = page_html(title, scenarios)
    with atomic_write(path) as stream:
        stream.write(page)


def page_html(title: str, scenarios: Sequence[Scenario]) -> str:
    """Text of the page that :func:`write_page` writes."""
    if not scenarios:
        raise ValueError("a page needs at least one scenario")
    styles = figures.policy_styles([run.policy for scenario in scenarios for run in scenario.runs])
    bars = min(GANTT_BARS, PAGE_BARS // sum(len(scenario.runs) for scenario in scenarios))
    tabs = "".join(
        f'<button role="tab" id="tab-{k}" aria-controls="panel-{k}" aria-selected="{"true" if k == 0 else "false"}"'
        f' tabindex="{0 if k == 0 else -1}">{escape(scenario.name)}</button>'
        for k, scenario in enumerate(scenarios)
    )
    data = [_figures(scenario, styles, max(bars, 1)) for scenario in scenarios]
    content = asset("page.html").substitute(
        tabs=tabs,
        tabs_hidden="hidden" if len(scenarios) == 1 else "",
        panels="".join(_panel(k, scenario, styles) for k, scenario in enumerate(scenarios)),
    )
    return page_of(title, content, f"[{','.join(data)}]", "page")


def headline(rows: Sequence[dict[str, Any]]) -> str:
    """What a scenario showed, in one sentence: the best P95 against round-robin's.

    Without round-robin among ``rows``, the best P95 alone; without any workflow that ended, that.
    """
    known = [row for row in rows if finite(row["p95_s"])]
    if not known:
        return "No workflow ended."
    best = min(known, key=lambda row: row["p95_s"])
    base = next((row for row in rows if row["policy"] == figures.BASELINE), None)
    p95 = number(best["p95_s"])
    if base is None or not finite(base["p95_s"]) or len(rows) == 1:
        return f"{display_name(best['policy'])} ends 95% of the workflows within {p95}\u00a0s."
    if best is base:
        return f"No policy ends 95% of the workflows sooner than {display_name(base['policy'])}: {p95}\u00a0s."
    times = base["p95_s"] / best["p95_s"]
    return (
        f"{display_name(best['policy'])} ends 95% of the workflows within {p95}\u00a0s: {number(times)} times sooner "
        f"than {display_name(base['policy'])} ({number(base['p95_s'])}\u00a0s)."
    )


def table_html(rows: Sequence[dict[str, Any]], styles: dict[str, tuple[str, str]]) -> str:
    """The rows as a table, each figure with its ratio to round-robin's beneath; the best of a column is bold."""
    base = next((row for row in rows if row["policy"] == figures.BASELINE), None)
    head = "".join(f'<th scope="col" title="{escape(c.hint)}">{escape(c.title)}</th>' for c in _COLUMNS)
    best = {}
    for column in _COLUMNS:
        values = [row[column.key] for row in rows if finite(row[column.key])]
        if len(set(values)) > 1 and column.key != _COST:
            best[column.key] = min(values) if column.smaller_is_better else max(values)
    body = []
    for row in rows:
        cells = []
        for column in _COLUMNS:
            value = row[column.key]
            text = number(value, column.percent)
            if finite(value) and value == best.get(column.key):
                text = f"<strong>{text}</strong>"
            compared = row is not base and column.key != _COST
            cells.append(f"<td>{text}{_ratio(value, base[column.key]) if base and compared else ''}</td>")
        body.append(
            f'<tr><th scope="row">{swatch(styles[row["policy"]])}{escape(display_name(row["policy"]))}</th>'
            f"{''.join(cells)}</tr>"
        )
    return f'<table><thead><tr><th scope="col">Policy</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'


def display_name(policy: str) -> str:
    """A policy's label for people; round-robin is named with the queues' order that it stands for."""
    return "round-robin + FCFS" if policy == figures.BASELINE else policy


def _figures(scenario: Scenario, styles: dict[str, tuple[str, str]], bars: int) -> str:
    window = figures.loaded_window(scenario.runs, bars)
    charts = {
        "tail": figures.latency_tail(scenario.runs, styles),
        "attainment": figures.attainment(scenario.runs, styles),
    }
    parts = [f"{json.dumps(name)}:{chart.to_json()}" for name, chart in charts.items()]
    gantts = ",".join(str(figures.gantt(run, window, bars).to_json()) for run in scenario.runs)
    return f'{{{",".join(parts)},"gantt":[{gantts}]}}'


def _panel(k: int, scenario: Scenario, styles: dict[str, tuple[str, str]]) -> str:
    first = scenario.runs[0]
    gpus = Counter(i.cell.cell.gpu for i in first.cluster.instances)
    labels = [run.policy for run in scenario.runs]
    best = min(range(len(labels)), key=lambda i: v if finite(v := scenario.rows[i]["p95_s"]) else math.inf)
    return asset("panel.html").substitute(
        k=k,
        hidden="" if k == 0 else "hidden",
        name=escape(scenario.name),
        headline=escape(headline(scenario.rows)),
        facts=escape(
            f"{first.workflow.shape[0]:,} workflows of {first.stage.shape[0]:,} LLM calls on "
            f"{first.cluster.name}: " + ", ".join(f"{count} × {gpu}" for gpu, count in gpus.items())
        ),
        ratio_note=" Small figures are multiples of round-robin + FCFS." if figures.BASELINE in labels else "",
        table=table_html(scenario.rows, styles),
        keys="".join(
            f'<button class="key" aria-pressed="true" data-curve="{i}">{swatch(styles[label])}'
            f"{escape(display_name(label))}</button>"
            for i, label in enumerate(labels)
        ),
        options="".join(
            f'<option value="{i}"{" selected" if i == best else ""}>{escape(display_name(label))}</option>'
            for i, label in enumerate(labels)
        ),
    )


def swatch(style: tuple[str, str]) -> str:
    """A short line in a policy's colour and dash."""
    colour, dash = style
    pattern = {"solid": "none", "dash": "6 3", "dot": "2 2", "dashdot": "6 2 2 2"}[dash]
    return (
        '<svg class="swatch" width="22" height="10" aria-hidden="true"><line x1="1" x2="21" y1="5" y2="5" '
        f'stroke="{colour}" stroke-width="3" stroke-dasharray="{pattern}"/></svg>'
    )


def _ratio(value: Any, base: Any) -> str:
    if not finite(value) or not finite(base) or base == 0:
        return ""
    ratio = value / base
    return f"<small>× {ratio:.2f}</small>" if 0.1 <= ratio < 10.0 else f"<small>× {number(ratio)}</small>"
