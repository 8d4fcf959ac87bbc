import json
from pathlib import Path

import pytest

from hexopt.report import plan_figures as figures


@pytest.fixture(scope="module")
def document():
    return json.loads((Path(__file__).parent / "data" / "plan.json").read_text(encoding="utf-8"))


def named(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def test_curve_has_every_rate_with_its_interval(document):
    figure = figures.curve(document)
    line, band = named(figure, "in time"), named(figure, "95% interval")
    assert list(line.x) == [point["rate"] for point in document["curve"]]
    assert list(line.y) == [100.0 * point["attainment"] for point in document["curve"]]
    # There and back: the upper ends, then the lower ones.
    ends = list(zip(band.y, reversed(band.y), strict=True))[: len(line.y)]
    assert all(low <= y <= high for (high, low), y in zip(ends, line.y, strict=True))
    assert {note.text for note in figure.layout.annotations} == {"promise 95%", "planned for"}


def test_front_is_spaced_by_what_may_be_late_and_steps_up_at_once(document):
    figure = figures.front(document)
    line = named(figure, "cheapest fleet found")
    at = dict(zip([p["target"] for p in document["front"]], line.x, strict=True))
    assert at[0.99] == pytest.approx(2.0) and at[0.95] == pytest.approx(1.30103)
    # Between two targets the fleet of the higher one is the one known to be enough.
    assert line.line.shape == "vh" and list(line.y) == [p["cost_per_hour"] for p in document["front"]]
    assert list(figure.layout.xaxis.ticktext) == ["80%", "95%", "99%"]


def test_certainty_has_a_place_on_the_axis(document):
    certain = {**document["front"][-1], "target": 1.0}
    figure = figures.front({**document, "front": [*document["front"], certain]})
    x = list(named(figure, "cheapest fleet found").x)
    assert x == sorted(x) and x[-1] < 10.0


def test_sweep_lies_over_its_bound(document):
    figure = figures.sweep(document)
    line, bound = named(figure, "cheapest fleet found"), named(figure, "no fleet costs less")
    assert list(line.x) == pytest.approx([0.5, 1.0, 2.0])
    assert all(b <= cost for b, cost in zip(bound.y, line.y, strict=True))


def test_rounds_are_told_apart_by_colour_and_shape(document):
    figure = figures.rounds(document)
    failed, passed = named(figure, "too many late"), named(figure, "enough")
    tried = document["proof"]["rounds"]
    assert len(failed.x) + len(passed.x) == len(tried)
    assert len(passed.x) == sum(r["passed"] for r in tried)
    assert (failed.marker.symbol, failed.marker.color) != (passed.marker.symbol, passed.marker.color)
    star = named(figure, "this plan")
    assert (star.x[0], star.y[0]) == (document["cost_per_hour"], 100.0 * document["attainment"])
    assert f"bound {document['bound']:.2f}" in {note.text for note in figure.layout.annotations}


def test_growth_steps_over_periods_of_their_length(document):
    periods = [{**document["growth"]["periods"][k % 2], "weight": 2.0} for k in range(12)]
    figure = figures.growth({**document, "growth": {**document["growth"], "periods": periods}})
    line = named(figure, "a fleet that only grows with the rate")
    assert list(line.x) == [2.0 * k for k in range(13)] and line.line.shape == "hv"
    assert list(line.y[:-1]) == [p["cost_per_hour"] for p in periods] and line.y[-1] == line.y[-2]
    assert len(figure.layout.xaxis.tickvals) <= 8


def test_placement_leaves_out_where_nothing_ran(document):
    rows = [{"kind": "revise", "share": [0.25, 0.75], "seconds": [2.0, 3.0], "wait": [0.1, 0.2]}]
    rows.append({"kind": "evaluate", "share": [1.0, 0.0], "seconds": [2.0, None], "wait": [0.1, None]})
    placed = {"options": ["b200 tp2", "h100 tp4"], "busy": [0.5, 0.5], "kinds": rows}
    (heat,) = figures.placement({**document, "placement": placed}).data
    # From the bottom up.
    assert heat.z[1][0] == 25.0 and heat.z[0][0] == 100.0
    assert heat.z[0][1] is None
    assert "0.2 s of them waiting" in heat.hovertext[1][1]


def test_sensitivity_tells_slower_from_faster(document):
    slower, faster = figures.sensitivity(document).data
    assert slower.text == ("-20%",) and faster.text == ("+20%",)
    assert slower.x[0] <= faster.x[0] and slower.marker.symbol != faster.marker.symbol


def test_split_shows_the_classes_with_most_calls_under_way(document):
    (bars,) = figures.split(document).data
    classes = document["model"]["classes"]
    assert len(classes) > figures.CLASSES == len(bars.x)
    under_way = sorted((c["calls_per_second"] * c["seconds"] for c in classes), reverse=True)
    assert figures.shown_classes(document)[0]["seconds"] == bars.x[-1]
    assert [c["calls_per_second"] * c["seconds"] for c in figures.shown_classes(document)] == under_way


def test_one_more_is_what_it_adds(document):
    (bars,) = figures.one_more(document).data
    more = document["one_more"]
    expected = sorted((row["sustained"] - more["sustained"]) * document["rate"] for row in more["options"])
    assert list(bars.x) == pytest.approx(expected)


def test_what_is_there_costs_nothing_and_spot_costs_its_price():
    row = {"count": 5, "there": 1, "spot": 2, "price": 10.0, "spot_price": 7.0}
    assert figures.row_cost(row) == pytest.approx(2 * 10.0 + 2 * 7.0)
    assert figures.row_cost({**row, "spot": 0, "spot_price": None}) == pytest.approx(40.0)
