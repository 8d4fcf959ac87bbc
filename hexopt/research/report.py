"""One HTML page of an experiment: everything in the file, nothing fetched."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from hexopt.atomic import atomic_write
from hexopt.report.page import display_name, swatch
from hexopt.research.analysis import Analysis
from hexopt.research.charts import Chart
from hexopt.research.comparison import Judgement, Versus
from hexopt.research.drawing import plotly_figure
from hexopt.research.metrics import Metric
from hexopt.research.results import Cell
from hexopt.research.tables import best_of, rows_of, shown


def write_report(path: str | Path, analysis: Analysis) -> None:
    """Write the page.

    Raises
    ------
    OSError
        If ``path`` cannot be written.
    """
    page = report_html(analysis)
    with atomic_write(path) as stream:
        stream.write(page)


def report_html(analysis: Analysis) -> str:
    """Text of the page that :func:`write_report` writes."""
    groups = analysis.groups()
    cells = analysis.results.cells
    panels, data = [], []
    for k, group in enumerate(groups):
        overview = analysis.overviews[k]
        details = [analysis.details[cell] for cell in group]
        data.append(
            f'{{"overview":{_figures(overview, analysis)},'
            f'"cells":[{",".join(_figures(charts, analysis) for charts in details)}]}}'
        )
        first = group[0]
        capacity = analysis.results.capacities[first.setting]
        known = f"capacity {capacity:.3g} workflows/s, " if math.isfinite(capacity) else ""
        panels.append(
            _asset("panel.html").substitute(
                k=k,
                hidden="" if k == 0 else "hidden",
                headline=escape(headline(analysis, group)),
                facts=escape(f"{first.place_label}: {known}figures over the rate are at the deadline {first.deadline}"),
                overview="".join(_figure(chart, k) for chart in overview),
                details="".join(_figure(chart, k) for chart in details[0]),
                options="".join(
                    f'<option value="{n}"{" selected" if n == _busiest(group) else ""}>'
                    f"{escape(f'{cell.rate_label}, deadline {cell.deadline}')}</option>"
                    for n, cell in enumerate(group)
                ),
                tables="".join(
                    f'<div class="cell" {"" if n == _busiest(group) else "hidden"}>'
                    f"{table_html(analysis.judgements[cell], analysis)}</div>"
                    for n, cell in enumerate(group)
                ),
                sustained="".join(
                    f"<h3>{escape(found.title)}</h3>{table_html([judged], analysis)}"
                    for found, judged in analysis.sustained
                    if found.setting == first.setting
                ),
                gantts="".join(
                    f'<figure class="gantt">{svg}</figure>' for cell, svg in analysis.gantts if cell in group
                ),
            )
        )
    tabs = "".join(
        f'<button role="tab" id="tab-{k}" aria-controls="panel-{k}" aria-selected="{"true" if k == 0 else "false"}"'
        f' tabindex="{0 if k == 0 else -1}">{escape(group[0].place_label)}</button>'
        for k, group in enumerate(groups)
    )
    d = analysis.definition
    return _asset("report.html").substitute(
        title=escape(d.title),
        style=_text("hexopt.report", "page.css") + _text("hexopt.research", "report.css"),
        script=_text("hexopt.research", "report.js"),
        plotly=get_plotlyjs(),
        facts=escape(
            f"{len(analysis.results.reported):,} runs: {len(analysis.results.policies)} policies, {len(cells)} cells, "
            f"{len(d.seed_list)} seeds, {d.workflows:,} measured workflows a run. Baseline: "
            f"{display_name(analysis.baseline)}."
        ),
        warnings="".join(f'<p class="warning">{escape(text)}</p>' for text in analysis.warnings()),
        tabs=tabs,
        tabs_hidden="hidden" if len(groups) == 1 else "",
        keys="".join(
            f'<button class="key" aria-pressed="true" data-policy="{escape(policy)}">{swatch(analysis.styles[policy])}'
            f"{escape(display_name(policy))}</button>"
            for policy in analysis.results.policies
        ),
        panels="".join(panels),
        method="".join(f"<p>{escape(text)}</p>" for text in method(analysis)),
        # "<" only ever occurs inside strings; so written it cannot end the element.
        data=f"[{','.join(data)}]".replace("<", "\\u003c"),
    )


def method(analysis: Analysis) -> list[str]:
    """How the figures came about, for whoever reads nothing else."""
    d = analysis.definition
    spare = sorted({(c.before, c.after) for c in analysis.results.cells})
    before = f"{spare[0][0]} to {spare[-1][0]}" if len(spare) > 1 else f"{spare[0][0]}"
    after = f"{spare[0][1]} to {spare[-1][1]}" if len(spare) > 1 else f"{spare[0][1]}"
    found = [
        "Common random numbers: at a seed, all policies of a cell get the same workflows at the same times, "
        "so they are compared in pairs.",
        f"Left out of every run: the first {before} workflows (warm-up, as many as arrive in {d.warm_up:g} of the "
        f"longest deadlines) and the last {after} (drain, {d.drain:g}); they load the instances but are not measured. "
        "Throughput, goodput and utilisation are of the window in which the measured workflows arrive.",
        "Intervals are 95% BCa bootstrap intervals over the seeds, of paired log ratios (latencies, Req) or paired "
        "differences (shares, goodput). p-values are exact Wilcoxon signed-rank tests, corrected by Holm over the "
        "policies of a cell and metric. The effect is the matched-pairs rank-biserial correlation, positive where "
        "the policy is better, 1 where it is at every seed.",
        "The best other is chosen after the fact, on the same runs: a small advantage over it is luck in part.",
    ]
    for tuned in d.tuned:
        ran = _chosen(analysis, tuned.label)
        seeds = d.tuning_seed_list
        found.append(
            f"{tuned.label}: in each cell, of {', '.join(f'{v:g}' for v in tuned.values)} the {tuned.parameter} with "
            f"the best mean {tuned.metric} on {len(seeds)} other seeds ({seeds[0]} to {seeds[-1]}): {ran}."
        )
    return found


def _chosen(analysis: Analysis, label: str) -> str:
    parts = []
    for cell in analysis.results.cells:
        ran = analysis.results.of(cell, label)[0]["ran"]
        parts.append(f"{ran.rpartition('=')[2]} ({cell.place_label}, {cell.rate_label}, {cell.deadline})")
    return "; ".join(parts)


def headline(analysis: Analysis, cells: Sequence[Cell]) -> str:
    """What a trace on a cluster showed, in one sentence: who has the shortest P95 in how many of its cells."""
    wins: dict[str, int] = {}
    for cell in cells:
        p95 = next(j for j in analysis.judgements[cell] if j[0].metric.key == "p95_s")
        best = best_of(p95)
        if best is not None:
            wins[best] = wins.get(best, 0) + 1
    if not wins:
        return "No policy is ahead of another."
    first = max(wins, key=lambda policy: wins[policy])
    where = "in all cells" if wins[first] == len(cells) else f"in {wins[first]} of {len(cells)} cells"
    rest = [f"{display_name(p)} in {n}" for p, n in wins.items() if p != first]
    return f"{display_name(first)} has the shortest P95 {where}{'; ' + ', '.join(rest) if rest else ''}."


def table_html(by_metric: Sequence[Sequence[Judgement]], analysis: Analysis) -> str:
    """Means with intervals, and beneath each how it compares with the baseline and the best other; best ones bold."""
    head = "".join(f'<th scope="col">{escape(judged[0].metric.heading)}</th>' for judged in by_metric)
    body = []
    for policy, row in rows_of(by_metric):
        cells = []
        for j, is_best in row:
            text = escape(shown(j.value.mean, j.metric.percent))
            text = f"<strong>{text}</strong>" if is_best else text
            if math.isfinite(j.value.low):
                low, high = (shown(end, j.metric.percent) for end in (j.value.low, j.value.high))
                text += f"<small>[{low}, {high}]</small>"
            notes = _versus(j.baseline, j.metric, "base") + _versus(j.best_other, j.metric, "best")
            cells.append(f"<td>{text}{notes}</td>")
        body.append(
            f'<tr><th scope="row">{swatch(analysis.styles[policy])}{escape(display_name(policy))}</th>'
            f"{''.join(cells)}</tr>"
        )
    return (
        f'<div class="scroll"><table><thead><tr><th scope="col">Policy</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
        '<p class="note">Mean [95% interval] over the seeds. Beneath: against the baseline (base) and the best other '
        "policy (best), as times better (latency, Req) or the difference (pp: percentage points); strong where p, "
        "corrected by Holm, is below 5%.</p>"
    )


def _versus(versus: Versus | None, metric: Metric, name: str) -> str:
    if versus is None:
        return ""
    e = versus.estimate
    scale = 100.0 if metric.percent else 1.0
    text = f"{e.mean:.2f}×" if metric.by_ratio else f"{e.mean * scale:+.3g}{' pp' if metric.percent else ''}"
    low, high = shown(e.low * scale), shown(e.high * scale)
    hint = f"against {versus.other}: [{low}, {high}], p = {versus.p:.3g}, rank-biserial {versus.effect:+.2f}"
    sure = ' class="sure"' if versus.p < 0.05 else ""
    return f'<span{sure} title="{escape(hint)}">{name} {text}, p {versus.p:.2g}</span>'


def _busiest(group: Sequence[Cell]) -> int:
    """The cell that is shown first: the heaviest load that the cluster can carry, at the first deadline."""
    fit = [n for n, c in enumerate(group) if c.place == 0 and (c.load is None or c.load <= 1.0)]
    return max(fit, key=lambda n: group[n].rate) if fit else 0


def _figure(chart: Chart, k: int) -> str:
    return f'<figure><h3>{escape(chart.title)}</h3><div class="chart" id="{chart.key}-{k}"></div></figure>'


def _figures(charts: Sequence[Chart], analysis: Analysis) -> str:
    parts = (f"{json.dumps(chart.key)}:{plotly_figure(chart, analysis.styles).to_json()}" for chart in charts)
    return f"{{{','.join(parts)}}}"


def _text(package: str, name: str) -> str:
    return (resources.files(package) / "assets" / name).read_text(encoding="utf-8")


def _asset(name: str) -> Template:
    return Template(_text("hexopt.research", name))
