import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from page_data import embedded
from research_cases import made_analysis

from hexopt.research.charts import against_rate, latency_distribution, requirement_bars, scale_curve
from hexopt.research.drawing import plotly_figure
from hexopt.research.report import headline, report_html, write_report

P95 = {
    "round-robin": [100.0, 110.0, 105.0, 98.0],
    "edf": [60.0, 61.0, 63.0, 57.0],
    "mine</script><b>&": [50.0, 52.0, 51.0, 49.0],
}


@pytest.fixture(scope="module")
def analysis():
    return made_analysis(P95, "round-robin", slo_factors=[2.0, 3.0])


@pytest.fixture(scope="module")
def chromium():
    """Path of a browser; without one the test is skipped, or fails where one is required."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        missing = pytest.fail if "HEXOPT_REQUIRE_CHROMIUM" in os.environ else pytest.skip
        missing("no Chromium on PATH (Debian package chromium)")
    return found


def test_figures_show_what_the_runs_were(analysis):
    results = analysis.results
    charts = {c.key: c for c in against_rate(results, [c for c in results.cells if c.place == 0])}
    assert set(charts) == {"attainment", "p95_s", "goodput", "utilisation", "scheduler_us_per_call"}
    edf = next(s for s in charts["p95_s"].series if s.name == "edf")
    assert edf.x == [50.0, 100.0]
    assert edf.y == pytest.approx([np.mean(P95["edf"])] * 2)
    assert all(low < y < high for low, y, high in zip(edf.low, edf.y, edf.high, strict=True))
    cell = results.cells[0]
    bars = requirement_bars(results, cell, 20)
    assert [s.x for s in bars.series] == [["Req95"]] * 3
    assert [s.x for s in requirement_bars(results, cell, 1000).series] == [["Req95", "Req99"]] * 3
    pooled = results.pooled(cell, "edf", "latency_s")
    assert pooled.size == 4 * 50
    cdf = next(s for s in latency_distribution(results, cell).series if s.name == "edf")
    for x, y in zip(cdf.x, cdf.y, strict=True):
        assert y == pytest.approx(100 * (pooled <= x).mean())
    scale = next(s for s in scale_curve(results, cell).series if s.name == "edf")
    assert scale.x == pytest.approx(np.array(cdf.x) / 10.0)


def test_axes_hold_all_that_is_drawn(analysis):
    for chart in (*analysis.overviews[0], *analysis.details[analysis.results.cells[0]]):
        axis = plotly_figure(chart, analysis.styles).layout.yaxis
        if axis.range is not None:
            low, high = (10.0**end if axis.type == "log" else end for end in axis.range)
            assert all(low <= y <= high for s in chart.series for y in (*s.y, *s.high))


def test_several_deadlines_have_a_figure(analysis):
    charts = {c.key: c for c in analysis.overviews[0]}
    assert charts["deadline"].series[0].x == [2.0, 3.0]
    backwards = made_analysis(P95, "edf", slo_factors=[3.0, 2.0])
    assert backwards.overviews[0][1].series[0].x == [2.0, 3.0]
    one = made_analysis(P95, "edf")
    assert "deadline" not in {c.key for c in one.overviews[0]}


def test_headline_says_who_was_first(analysis):
    assert headline(analysis, analysis.results.cells).startswith("mine</script><b>& has the shortest P95 in all cells")
    level = made_analysis({"edf": [5.0, 6.0], "llf": [5.0, 6.0]}, "edf")
    assert headline(level, level.results.cells) == "No policy is ahead of another."


def test_page_holds_every_figure_and_fetches_nothing(analysis, tmp_path):
    write_report(tmp_path / "report.html", analysis)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    data = embedded(page)
    assert len(data) == 1 and len(data[0]["cells"]) == 4 == page.count("<option ")
    assert {len(f["data"]) for f in data[0]["overview"].values()} == {3}
    assert all(set(cell) == {"req", "scale", "cdf"} for cell in data[0]["cells"])
    for attribute in re.findall(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="([^"]*)"', page):
        assert attribute.startswith("data:")
    assert "mine</script>" not in page and "mine&lt;/script&gt;&lt;b&gt;&amp;" in page
    assert "default-src 'none'" in page
    assert "nan" not in re.sub(r"<script>.*?</script>", "", page, flags=re.S).lower().replace("finance", "")


def test_page_says_how_the_figures_came_about(analysis):
    page = report_html(analysis)
    for words in ("Common random numbers", "warm-up", "BCa", "Holm", "Req99 is left out", "Give more seeds"):
        assert words in page


def test_svg_figures(analysis, tmp_path):
    pytest.importorskip("matplotlib")
    from hexopt.research.drawing import write_svg

    cell = analysis.results.cells[0]
    charts = [*analysis.overviews[0], *(
        latency_distribution(analysis.results, cell), requirement_bars(analysis.results, cell, 1000)
    )]  # fmt: skip
    for chart in charts:
        path = tmp_path / f"{chart.key}.svg"
        write_svg(path, chart, analysis.styles)
        text = path.read_text(encoding="utf-8")
        assert text.count(">edf<") == 1 and chart.y_title.replace("&", "&amp;") in text
        first = path.read_bytes()
        write_svg(path, chart, analysis.styles)
        assert path.read_bytes() == first


@pytest.mark.slow
def test_browser_draws_every_chart_and_complains_of_nothing(chromium, analysis, tmp_path):
    write_report(tmp_path / "report.html", analysis)
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1280,2600", "--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom",
            (tmp_path / "report.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    # A request would break the page's own policy, and the browser says so on the console.
    assert "CONSOLE" not in done.stderr
    keys = ["attainment", "deadline", "p95_s", "goodput", "utilisation", "scheduler_us_per_call", "req", "scale", "cdf"]
    for key in keys:
        element = re.search(rf'<div class="chart[^"]*" id="{key}-0".*?</svg>', done.stdout, re.S)
        assert element and "main-svg" in element.group(0)
    assert done.stdout.count('class="trace scatter') == 3 * 8
    assert len(re.findall(r'<g class="point">', done.stdout)) >= 3
    # The one that is chosen at first is the only table that is seen.
    assert len(re.findall(r'<div class="cell">', done.stdout)) == 1
    assert len(re.findall(r'<div class="cell" hidden="">', done.stdout)) == 3
