import re

import pytest
from browser_dump import dump
from page_data import embedded, found

from hexopt.report.plan_page import headline, plan_page_html, tiles, write_plan_page
from hexopt.report.plan_words import MONTH

HOSTILE = "</script><b onclick=x>&$title%{x}"
CHARTS = {"front", "sweep", "curve", "sensitivity", "more", "growth", "placement", "split", "rounds"}


@pytest.fixture
def document():
    """What ``hexopt plan --page`` found for Text-to-SQL at half a workflow a second."""
    return found("plan")


def charts(page):
    return {name.removesuffix("-chart") for name in embedded(page)}


def mixed(document):
    """The document with a fleet of two kinds, one of them partly there and partly spot, in whole nodes."""
    more = {**document["fleet"][0], "name": "h100 tp4", "gpu": "h100", "tp": 4, "count": 5}
    more |= {"there": 1, "spot": 2, "price": 10.0, "spot_price": 7.0}
    cost = document["cost_per_hour"] + 4 * 10.0 - 2 * 3.0
    return {
        **document,
        "fleet": [*document["fleet"], more],
        "cost_per_hour": cost + 5.5,
        "whole_nodes": {"h100": 2},
        "proof": {**document["proof"], "rounds": []},
    }


def everywhere(value, key=""):
    """The document with every name in it hostile."""
    if isinstance(value, dict):
        named = key in ("fleet", "whole_nodes", "shadow_prices")
        return {(HOSTILE + k if named else k): everywhere(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [everywhere(item) for item in value]
    return HOSTILE + value if isinstance(value, str) else value


def strings(value):
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_page_holds_every_figure_and_fetches_nothing(tmp_path, document):
    write_plan_page(tmp_path / "page.html", document)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert charts(page) == CHARTS
    assert set(re.findall(r'id="([a-z]+)-chart" role="img"', page)) == CHARTS
    links = set(re.findall(r'<a href="#([a-z]+)">', page))
    assert links == set(re.findall(r'<section class="part" id="([a-z]+)"', page)) and len(links) == 6
    for attribute in re.findall(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="([^"]*)"', page):
        assert attribute.startswith("data:")
    assert page.count("plotly.js v") == 1 and "default-src 'none'" in page
    text = page[page.index("<main>") : page.index("</main>")]
    assert not re.search(r"\b(None|nan|inf|NaN)\b", text)


@pytest.mark.parametrize(
    ("key", "nothing", "gone"),
    [
        ("front", [], {"front"}),
        ("sweep", [], {"sweep"}),
        ("curve", [], {"curve"}),
        ("sensitivity", [], {"sensitivity"}),
        ("one_more", {"sustained": None, "options": []}, {"more"}),
        ("growth", None, {"growth"}),
        ("placement", None, {"placement"}),
    ],
)
def test_a_section_is_there_only_with_its_data(document, key, nothing, gone):
    assert charts(plan_page_html({**document, key: nothing})) == CHARTS - gone


def test_a_bare_plan_has_a_page_without_sections_that_lack_data(document):
    for key in ("front", "sweep", "curve", "sensitivity"):
        document[key] = []
    document |= {"growth": None, "placement": None, "one_more": {"sustained": None, "options": []}}
    document["model"] |= {"fleet": [], "classes": []}
    document["proof"] |= {"rounds": [], "removals": []}
    page = plan_page_html(document)
    assert charts(page) == set()
    assert re.findall(r'<section class="part" id="([a-z]+)"', page) == ["fleet"]


def test_a_target_that_no_fleet_reaches_says_why(document):
    lost = {"target": 0.999, "rate_factor": 1.0, "cost_per_hour": None, "why": "no fleet <reaches> it"}
    page = plan_page_html({**document, "front": [lost]})
    assert "front" not in charts(page) and "no fleet &lt;reaches&gt; it" in page
    page = plan_page_html({**document, "front": [*document["front"], lost]})
    line = next(t for t in embedded(page)["front-chart"]["data"] if t["name"] == "cheapest fleet found")
    assert len(line["hovertext"]) == len(document["front"]) and "99.9%" in page


def test_headline_and_tiles_say_cost_and_proof(document):
    assert headline(document).startswith("1 × b200 tp2 for 12.00 USD an hour: 97.1%")
    shown = {name: (value, text) for name, value, text in tiles(document)}
    assert shown["Cost a month"][0] == f"{MONTH * 12:,.0f} USD"
    assert shown["Cheapest?"][0] == "proven"
    open_gap = {**document, "bound": 9.0, "gap": 0.25, "attainment_interval": [0.93, 0.99]}
    shown = {name: (value, text) for name, value, text in tiles(open_gap)}
    assert shown["Cheapest?"][0] == "within 25.0%" and "9.00 USD" in shown["Cheapest?"][1]
    assert "may miss" in shown["In time (promised 95%)"][1]


def test_the_fleets_rows_add_up_to_its_cost(document):
    fleet = mixed(document)
    page = plan_page_html(fleet)
    assert "bill" in charts(page)
    (bars,) = embedded(page)["bill-chart"]["data"]
    assert bars["text"] == ["12.00", "34.00"]
    # What whole nodes cost beyond the instances on them.
    row = re.search(r"rented whole: 2 × h100 node</th>(.*?)</tr>", page).group(1)
    assert "5.50" in row and f"{fleet['cost_per_hour']:.2f}" in page


def test_removals_say_whether_each_instance_is_needed(document):
    assert "No instance is spare" in plan_page_html(document)
    row = {**document["proof"]["removals"][0], "passes": True, "attainment": 0.96}
    document["proof"]["removals"] = [row]
    page = plan_page_html(document)
    assert "No instance is spare" not in page and "still enough</td>" in page
    assert "not after a loss" in plan_page_html({**document, "survives": "instance"})


def test_shadow_prices_are_a_table(document):
    assert "What the limits cost" not in plan_page_html(document)
    page = plan_page_html({**document, "shadow_prices": {"one more h100": 1.25}})
    assert '<th scope="row">one more h100</th><td>1.25</td>' in page


def test_names_are_escaped_in_the_page_and_in_its_figures(document):
    hostile = everywhere(mixed(document) | {"shadow_prices": {"one more h100": 1.0}, "proof": document["proof"]})
    page = plan_page_html(hostile)
    assert HOSTILE not in page and "<b onclick" not in page
    assert "&lt;/script&gt;&lt;b onclick=x&gt;&amp;$title" in page
    shown = strings(embedded(page))
    assert not any("<b onclick" in text for text in shown)
    # What Plotly fills in is the page's own: names never are part of a template.
    templates = [trace.get("hovertemplate", "") for figure in embedded(page).values() for trace in figure["data"]]
    assert any(templates) and not any("onclick" in template for template in templates)


def test_page_stays_under_eight_megabytes(document):
    document["proof"]["rounds"] *= 150
    assert len(plan_page_html(document).encode()) < 8e6


@pytest.mark.slow
def test_browser_draws_every_chart_and_complains_of_nothing(tmp_path, document):
    shown_document = mixed(document) | {"proof": document["proof"]}
    write_plan_page(tmp_path / "page.html", shown_document)
    shown, complaints = dump(tmp_path / "page.html", tmp_path / "profile")
    # A request would break the page's own policy, and the browser says so on the console.
    assert "CONSOLE" not in complaints
    for chart in CHARTS | {"bill"}:
        element = re.search(rf'id="{chart}-chart".*?</figure>', shown, re.S)
        assert element and "main-svg" in element.group(0), chart
    assert shown.count('<g class="point">') > 20


@pytest.mark.slow
def test_browser_shows_hostile_names_as_text(tmp_path, document):
    write_plan_page(tmp_path / "page.html", everywhere(document))
    shown, complaints = dump(tmp_path / "page.html", tmp_path / "profile")
    assert "CONSOLE" not in complaints
    assert "<b onclick" not in shown[shown.index("<main>") : shown.index("</main>")]
