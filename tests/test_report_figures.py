from itertools import pairwise

import numpy as np
import pytest
from small_run import make_run, random_run, small_run

from hexopt.report import figures

POLICIES = ("round-robin", "edf", "llf")


@pytest.fixture(scope="module")
def runs():
    return [random_run(policy, 200, seed=k, slower=1.0 + k) for k, policy in enumerate(POLICIES)]


@pytest.fixture(scope="module")
def styles():
    return figures.policy_styles(POLICIES)


def test_a_policy_has_one_style_and_round_robin_is_grey():
    names = ["round-robin", *(f"policy-{k}" for k in range(15))]
    styles = figures.policy_styles([*names, *names])
    assert len(set(styles.values())) == len(styles) == 16
    assert styles["round-robin"][0] == figures.BASELINE_COLOUR


def test_attainment_is_the_share_within_each_deadline(runs, styles):
    figure = figures.attainment(runs, styles)
    assert [curve.name for curve in figure.data] == list(POLICIES)
    for run, curve in zip(runs, figure.data, strict=True):
        latency = run.workflow["finish"] - run.workflow["arrival"]
        # The curve's last point only carries it to the edge.
        for x, y in list(zip(curve.x, curve.y, strict=True))[:-1]:
            assert y == pytest.approx(100.0 * np.mean(latency <= x))
    assert "(s)" in figure.layout.xaxis.title.text and "(%)" in figure.layout.yaxis.title.text
    assert figure.layout.annotations[0].text == "deadline"
    assert figure.layout.annotations[0].x == pytest.approx(25.0)


def test_tail_is_the_share_that_took_longer(runs, styles):
    figure = figures.latency_tail(runs, styles)
    for run, curve in zip(runs, figure.data, strict=True):
        latency = run.workflow["finish"] - run.workflow["arrival"]
        assert min(curve.y) > 0.0
        for x, y in zip(curve.x, curve.y, strict=True):
            assert y == pytest.approx(100.0 * np.mean(latency > x), abs=1e-9)
    assert figure.layout.yaxis.type == "log"


def test_workflows_that_never_ended_lower_the_curve(styles):
    figure = figures.attainment([small_run()], styles)
    assert max(figure.data[0].y) == 50.0


def test_nothing_ended(styles):
    run = make_run([{"ready": 0.0, "start": 0.0}], [{"arrival": 0.0, "deadline": 5.0}])
    assert max(figures.attainment([run], styles).data[0].y) == 0.0
    assert len(figures.latency_tail([run], styles).data[0].x) == 0
    assert len(figures.gantt(run, figures.loaded_window([run], 10), 10).data[0].y) == 1


def test_long_curves_are_thinned_but_exact(styles):
    run = random_run("edf", 3000, seed=5)
    curve = figures.attainment([run], styles).data[0]
    assert len(curve.x) <= figures.CURVE_POINTS + 1
    latency = np.sort(run.workflow["finish"] - run.workflow["arrival"])
    assert curve.x[-2] == latency[-1] and curve.y[-2] == 100.0


@pytest.mark.parametrize("bars", [60, 100, 10_000])
def test_window_holds_at_most_so_many_bars_of_every_run(runs, bars):
    t0, t1 = figures.loaded_window(runs, bars)
    counts = [int(np.sum((run.stage["start"] < t1) & (run.stage["finish"] > t0))) for run in runs]
    assert 0.5 * bars < max(counts) <= bars or (bars == 10_000 and t1 == min(run.end for run in runs))


def test_gantt_draws_the_stages_of_the_window_once_each(runs):
    run = runs[0]
    window = figures.loaded_window(runs, 150)
    figure = figures.gantt(run, window, 150)
    (bar,) = figure.data
    inside = (run.stage["start"] < window[1]) & (run.stage["finish"] > window[0])
    assert sorted(bar.base) == sorted(run.stage["start"][inside])
    assert figure.layout.meta == {"drawn": inside.sum(), "of": inside.sum()}
    assert list(figure.layout.yaxis.ticktext) == [i.name for i in run.cluster.instances]
    # Lanes apart: two bars of one lane never overlap, and a workflow keeps one colour.
    rows = sorted(zip(bar.y, bar.base, bar.base + bar.x, strict=True))
    assert all(a[0] != b[0] or a[2] <= b[1] + 1e-9 for a, b in pairwise(rows))
    colours = {}
    for workflow, colour in zip(bar.customdata[:, 0], bar.marker.color, strict=True):
        assert colours.setdefault(workflow, colour) == colour


def test_gantt_says_what_it_leaves_out(runs):
    figure = figures.gantt(runs[0], (0.0, 1e9), 40)
    assert figure.layout.meta == {"drawn": 40, "of": 600}


def test_gantt_tells_of_each_stage():
    bar = figures.gantt(small_run(), (0.0, 10.0), 100).data[0]
    assert list(bar.hovertext) == ["generate", "generate", "revise", "revise"]
    workflow, prompt, cached, output, queued, prefill, late = bar.customdata[0]
    assert (workflow, prompt, cached, output, queued, prefill, late) == (0, 100, 16, 20, 0.25, 0.25, -1.0)
    # Not ended by the end of the run, at ten seconds; four after its workflow's deadline.
    assert bar.base[3] + bar.x[3] == 10.0 and bar.customdata[3][6] == 4.0
