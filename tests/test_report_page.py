import math
import re

import pytest
from browser_dump import dump
from page_data import embedded
from small_run import random_run, small_run, summary_row

from hexopt.report import Scenario, write_page
from hexopt.report.figures import policy_styles
from hexopt.report.page import headline, page_html, table_html


def scenario(name="half load", workflows=60):
    runs = [random_run(p, workflows, k, slower=2.0 - k / 2) for k, p in enumerate(("round-robin", "edf", "llf"))]
    return Scenario(name, runs, [summary_row(run) for run in runs])


def row(policy, p95, **other):
    return {**summary_row(small_run(policy)), "p95_s": p95, **other}


def test_headline_compares_the_best_with_round_robin():
    assert headline([row("round-robin", 30.0), row("edf", 12.0)]).startswith("edf ends 95% of the workflows within")
    assert "2.50 times sooner than round-robin + FCFS" in headline([row("round-robin", 30.0), row("edf", 12.0)])
    assert headline([row("round-robin", 3.0), row("edf", 12.0)]).startswith("No policy")
    assert "sooner" not in headline([row("llf", 30.0), row("edf", 12.0)])
    assert headline([row("round-robin", None), row("edf", math.nan)]) == "No workflow ended."


def test_table_has_ratios_and_bold_bests():
    rows = [row("round-robin", 30.0, req95=None), row("edf", 12.0, req95=math.inf)]
    table = table_html(rows, policy_styles(["round-robin", "edf"]))
    assert "<strong>12.0</strong><small>× 0.40</small>" in table
    assert "30.0</td>" in table and "nan" not in table and "inf" not in table
    assert "<strong>0.500" not in table  # equal everywhere, so the best nowhere


def test_page_holds_every_figure_and_fetches_nothing(tmp_path):
    write_page(tmp_path / "page.html", "A title", [scenario(), scenario("full load")])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    data = embedded(page)
    assert len(data) == 2
    assert [len(one["gantt"]) for one in data] == [3, 3]
    assert [len(one["tail"]["data"]) for one in data] == [3, 3]
    assert page.count('role="tab"') == 2 and page.count('role="tabpanel"') == 2
    for attribute in re.findall(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="([^"]*)"', page):
        assert attribute.startswith("data:")
    assert page.count("plotly.js v") == 1
    assert "default-src 'none'" in page


def test_names_are_escaped():
    name = "</script><b>&$title"
    one = scenario(name)
    page = page_html(name, [Scenario(name, one.runs, one.rows)])
    assert name not in page
    assert "&lt;/script&gt;&lt;b&gt;&amp;$title" in page


def test_refuses_what_cannot_be_shown(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        write_page(tmp_path / "page.html", "t", [])
    with pytest.raises(ValueError, match="'empty' has 0 runs"):
        Scenario("empty", [], [])
    with pytest.raises(ValueError, match="one row a run"):
        Scenario("uneven", [small_run()], [])
    assert not list(tmp_path.iterdir())


def test_page_stays_under_eight_megabytes():
    page = page_html("t", [scenario(str(k), workflows=600) for k in range(6)])
    assert len(page.encode()) < 8e6


@pytest.mark.slow
def test_browser_draws_every_chart_and_complains_of_nothing(tmp_path):
    write_page(tmp_path / "page.html", "A title", [scenario(), scenario("full load")])
    shown, complaints = dump(tmp_path / "page.html", tmp_path / "profile")
    # A request would break the page's own policy, and the browser says so on the console.
    assert "CONSOLE" not in complaints
    for chart in ("attainment-0", "tail-0", "gantt-0"):
        element = re.search(rf'<div class="chart[^"]*" id="{chart}".*?</svg>', shown, re.S)
        assert element and "main-svg" in element.group(0)
    assert shown.count('class="trace scatter') == 6
    assert len(re.findall(r'<g class="point">', shown)) > 100
