"""The page of ``hexopt gap``, from what it found on 20 workflows of Text-to-SQL."""

import copy
import re

import pytest
from browser_dump import dump
from page_data import embedded, found

from hexopt.report.gap_page import gap_page_html, headline, write_gap_page

CHARTS = {"best-several", "bound-several", "best-all", "bound-all"}
HOSTILE = "</script><b onclick=x>&$title"


@pytest.fixture
def document():
    return found("gap")


def test_the_headline_is_the_fastest_within_one_per_cent(document):
    several = [row for row in document["race"] if row["load"] == "" and row["size"] == "2 or more"]
    near = [row for row in several if row["above_best"]["mean"] <= 0.01]
    fastest = min(near, key=lambda row: row["seconds"])
    assert headline(document).startswith(f"On epochs of two stages or more, {fastest['effort']} is ")
    far = copy.deepcopy(document)
    for row in far["race"]:
        row["above_best"]["mean"] = 0.5
    assert headline(far).startswith("No solver is within 1%")


def test_the_page_holds_every_figure_and_number_and_fetches_nothing(document, tmp_path):
    write_gap_page(tmp_path / "gap.html", document)
    page = (tmp_path / "gap.html").read_text(encoding="utf-8")
    data = embedded(page)
    assert {f"{name}-chart" for name in CHARTS} <= set(data)
    assert all(f'id="{name}"' in page for name in data)
    for one in document["end_to_end"]:
        assert f">{one['effort']}<" in page
    for attribute in re.findall(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="([^"]*)"', page):
        assert attribute.startswith(("data:", "#"))
    assert "default-src 'none'" in page


def test_without_runs_the_page_has_only_the_race(document):
    page = gap_page_html({**document, "end_to_end": [], "prices": []})
    assert 'id="time"' in page and 'id="cost"' not in page


def test_names_are_text(document):
    page = gap_page_html({**document, "trace": HOSTILE, "cluster": HOSTILE})
    assert HOSTILE not in page and "&lt;/script&gt;" in page


@pytest.mark.slow
def test_a_browser_draws_every_chart(document, tmp_path):
    write_gap_page(tmp_path / "gap.html", document)
    drawn, complaints = dump(tmp_path / "gap.html", tmp_path / "profile")
    assert "CONSOLE" not in complaints
    for name in embedded((tmp_path / "gap.html").read_text(encoding="utf-8")):
        assert re.search(rf'id="{name}".*?<svg', drawn, re.S), name
