from dataclasses import replace

import numpy as np
import pytest
from command_line import call
from pydantic import ValidationError
from research_cases import made_results, shared_for, small, toml

from hexopt.bundled_experiments import EXPERIMENTS
from hexopt.research.analysis import Analysis
from hexopt.research.conditions import USUAL, Condition
from hexopt.research.definition import load_definition
from hexopt.research.grid import Job, Shared, drawn, run_of
from hexopt.research.results import Results


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ({}, ""),
        ({"output_error": 0.2}, "output error 0.2"),
        ({"arrivals": "gamma"}, "gamma arrivals, burstiness 2"),
        ({"arrivals": "gamma", "burstiness": 4.0, "speed_error": 0.1}, "gamma arrivals, burstiness 4, speed error 0.1"),
        ({"shuffled_lengths": True}, "shuffled lengths"),
        ({"name": "mine", "output_error": 0.2}, "mine"),
        ({"events": ["a100-0 down at 1s"]}, "a100-0 down at 1s"),
    ],
)
def test_conditions_say_what_differs(given, label):
    assert Condition(**given).label == label


@pytest.mark.parametrize(
    "given", [{"output_error": -0.1}, {"burstiness": 3.0}, {"arrivals": "x"}, {"events": ["x"]}, {"speed": 1.0}]
)
def test_conditions_that_cannot_be_are_refused(given):
    with pytest.raises(ValidationError):
        Condition(**given)


def test_policies_meet_the_same_work_and_the_same_mistakes():
    shared = shared_for(small())
    wrong = Condition(arrivals="gamma", burstiness=3.0, output_error=0.5, speed_error=0.4)
    both = Shared((shared.settings[0], shared.settings[0].under(wrong)))
    jobs = [Job(s, 0, 0.2, policy, 3, 5, 20, 5) for s in (0, 1) for policy in ("edf", "greedy-urgency")]
    draws = [drawn(both, job) for job in jobs]
    assert all(np.array_equal(draws[0][0], picks) for picks, _ in draws)
    assert np.array_equal(draws[2][1], draws[3][1]) and not np.array_equal(draws[0][1], draws[2][1])
    assert draws[2][1][-1] == pytest.approx(draws[0][1][-1], rel=0.9)
    edf, misled = (run_of(both, replace(job, setting=1)) for job in jobs[:2])
    assert np.array_equal(edf.stage["output"], misled.stage["output"])
    assert wrong.mistakes(3) == wrong.mistakes(3) != wrong.mistakes(4) and USUAL.mistakes(3) is None


def test_gaps_of_gamma_arrivals_vary_as_asked_for():
    times = Condition(arrivals="gamma", burstiness=3.0).times(0.5, 20_000, 0)
    gaps = np.diff(times)
    assert gaps.mean() == pytest.approx(2.0, rel=0.1) and gaps.std() / gaps.mean() == pytest.approx(3.0, rel=0.1)
    assert USUAL.times(0.5, 10, 0) is None


def test_bundled_robustness_holds_what_it_promises():
    definition, _, _ = load_definition("robustness")
    assert "robustness" in EXPERIMENTS
    c = definition.conditions
    assert any(x.output_error for x in c) and any(x.shuffled_lengths for x in c) and any(x.speed_error for x in c)
    assert (
        any(x.arrivals == "gamma" for x in c) and any(x.events for x in c) and any(x.name and not x.events for x in c)
    )


def test_conditions_are_compared_in_one_figure():
    base = made_results({"edf": [10.0, 12.0], "round-robin": [20.0, 22.0]}, loads=(0.5, 1.0))
    results = Results(cells=[], capacities=[0.4, 0.4])
    for number, (condition, factor) in enumerate((("", 1.0), ("bursts", 3.0))):
        for cell in base.cells:
            own = replace(cell, setting=number, condition=condition)
            results.cells.append(own)
            for policy in base.policies:
                for seed, row in enumerate(base.of(cell, policy)):
                    changed = row | {"p95_s": row["p95_s"] * factor}
                    results.add(own, policy, policy, seed, changed, base.workflows[0])
    definition = small(policies=["edf", "round-robin"], baseline="edf", loads=[0.5, 1.0], rates=[])
    overviews = Analysis(definition, results, "edf").overviews
    for charts in overviews:
        chart = next(c for c in charts if c.key == "condition-p95_s")
        assert [s.name for s in chart.series] == ["edf", "round-robin"]
        assert chart.series[0].x == ["nothing unusual", "bursts"]
        assert chart.series[0].y == pytest.approx([11.0, 33.0]) and chart.series[1].y == pytest.approx([21.0, 63.0])


def test_compare_runs_conditions_and_draws_runs(capsys, monkeypatch, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    more = (
        "[[conditions]]", "[[conditions]]", "output_error = 0.5", "[[conditions]]", 'events = ["a100-0 down at 60s"]',
        "[[gantt]]", 'policy = "edf"', "seconds = 200.0",
    )  # fmt: skip
    toml(tmp_path / "mine.toml", *more)
    done = call(capsys, monkeypatch, "compare", "mine.toml", "--jobs", 1)
    assert done.code == 0, done.err
    assert "text-to-sql on hetero-1, output error 0.5 at" in done.out
    out = tmp_path / "comparison-mine"
    table = pq.read_table(out / "runs.parquet").to_pylist()
    assert {row["condition"] for row in table} == {"", "output error 0.5", "a100-0 down at 60s"}
    assert len(list((out / "figures").glob("*gantt*.svg"))) == 3
    page = (out / "report.html").read_text()
    assert page.count('<figure class="gantt"><svg') == 3 and "condition-attainment" in page
    toml(tmp_path / "bad.toml", "[[conditions]]", 'events = ["x-9 down at 60s"]')
    assert "conditions: events: event 'x-9 down" in call(capsys, monkeypatch, "compare", "bad.toml").err
    toml(tmp_path / "bad.toml", "[[gantt]]", 'policy = "llf"')
    assert "gantt[0].policy: 'llf' is not compared" in call(capsys, monkeypatch, "compare", "bad.toml").err
    toml(tmp_path / "bad.toml", "[[gantt]]", 'policy = "edf"', "rate = 9.0")
    assert "gantt[0].rate: 9 is not among" in call(capsys, monkeypatch, "compare", "bad.toml").err
