import csv
import json

import pytest
from command_line import call

from hexopt.solvers import greedy
from hexopt.solvers.files import read_problem

RUN = (
    "gap", "--trace", "text-to-sql", "--rate", "0.3,0.4", "--workflows", "15", "--seeds", "2", "--problems", "5",
    "--solver", "greedy,annealing,portfolio", "--time-limits", "5ms,30ms", "--jobs", "1",
)  # fmt: skip


@pytest.fixture
def hexopt(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call(capsys, monkeypatch, *arguments)


def test_gap_records_races_and_reruns(hexopt, tmp_path):
    run = (*RUN, "--efforts", "greedy,spoiled:20%", "--resume", "kept")
    done = hexopt(*run, "--out", "problems", "--csv", "gaps.csv", "--page", "gap.html", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [one["load"] for one in found["epochs"]] == ["0.3/s", "0.4/s"]
    assert all(sum(s["solved"] for s in one["sizes"]) == 5 for one in found["epochs"])
    efforts = ["greedy", "annealing:5ms", "annealing:30ms", "portfolio:5ms", "portfolio:30ms"]
    overall = [row for row in found["race"] if row["load"] == row["size"] == ""]
    assert [row["effort"] for row in overall] == [*efforts, "annealing:300", "spoiled:20%"]
    assert all(0.0 <= row["above_best"]["mean"] <= row["above_bound"]["mean"] for row in overall)
    ends = found["end_to_end"]
    assert [row["effort"] for row in ends[:4]] == ["annealing:300", "greedy", "spoiled:20%", "greedy-urgency"]
    assert len(ends) == 8 and ends[0]["p95_s_versus"] is None and ends[3]["gap"] is None
    assert {price["metric"] for price in found["prices"]} == {"p95_s", "mean_s", "attainment"}
    with (tmp_path / "gaps.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 10 * 7
    assert (tmp_path / "gap.html").read_text().startswith("<!doctype html>")
    index = json.loads((tmp_path / "problems" / "best_known.json").read_text())
    files = sorted(path.name for path in (tmp_path / "problems").glob("load*.json"))
    assert sorted(index["problems"]) == files and len(files) == 10
    assert hexopt("solve", f"problems/{files[0]}", "--time-limit", "0.1").code == 0
    again = hexopt(*run, "--json")
    assert json.loads(again.out) == found


def test_check_writes_down_only_what_is_better(hexopt, tmp_path):
    done = hexopt(*RUN, "--efforts", "none", "--out", "problems")
    assert done.code == 0 and "Epochs of two stages or more" in done.out and "End to end" not in done.out
    index = tmp_path / "problems" / "best_known.json"
    before = json.loads(index.read_text())
    name, row = max(before["problems"].items(), key=lambda item: item[1]["stages"])
    plan = greedy(read_problem(tmp_path / "problems" / name))
    worst = [min(row["instance"])] * row["stages"]
    from hexopt.solvers import evaluate

    cost = evaluate(read_problem(tmp_path / "problems" / name), worst, plan.order).objective
    row |= {"objective": cost, "instance": worst, "order": plan.order.tolist(), "bound": None, "solver": "me"}
    index.write_text(json.dumps(before))
    check = ("gap", "--check", "problems", "--solver", "annealing,portfolio", "--time-limits", "30ms", "--jobs", "1")
    done = hexopt(*check)
    assert done.code == 0 and "10 problems, every known plan costs what is said; " in done.err
    after = json.loads(index.read_text())
    assert after["about"] == before["about"]
    assert after["problems"][name]["objective"] < cost and after["problems"][name]["solver"] != "me"
    for other, known in before["problems"].items():
        assert after["problems"][other]["objective"] <= known["objective"]
        assert known["bound"] is None or after["problems"][other]["bound"] >= known["bound"]
    row["objective"] = cost / 2.0
    index.write_text(json.dumps(before))
    refused = hexopt(*check)
    assert refused.code == 2 and f"{name}: objective is" in refused.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "give --trace to record epochs, or --check"),
        (("--trace", "text-to-sql", "--check", "x"), "give --trace to record epochs, or --check"),
        (("--check", "x"), "x: there is no such folder"),
        (("--check", "x", "--out", "y"), "--out: --check writes to its own folder"),
        (("--trace", "none.json"), "--trace none.json: no such file"),
        (("--trace", "text-to-sql", "--load", "0.5", "--rate", "1"), "--rate and --load: give one of the two"),
        (("--trace", "text-to-sql", "--load", "0.5,x"), "--load is '0.5,x', expected different numbers above 0"),
        (("--trace", "text-to-sql", "--rate", "0"), "--rate is '0', expected different numbers above 0"),
        (("--trace", "text-to-sql", "--rate", "1", "--problems", "0"), "--problems is '0', expected a number"),
        (("--trace", "text-to-sql", "--solver", "x"), "--solver: 'x' is unknown; there are greedy"),
        (("--trace", "text-to-sql", "--solver", "greedy,greedy"), "one is there twice"),
        (("--trace", "text-to-sql", "--time-limits", "1h,x"), "--time-limits is 'x', expected a time"),
        (("--trace", "text-to-sql", "--rate", "1", "--efforts", "x"), "--efforts: solver 'x' is unknown"),
        (("--trace", "text-to-sql", "--rate", "1", "--efforts", "annealing:5ms"), "give annealing moves a stage"),
        (("--trace", "text-to-sql", "--rate", "1", "--weights", "x"), "objective 'x' is unknown"),
        (("--trace", "text-to-sql", "--rate", "1", "--weights", "deadline:late=1,move=0"), "in a TOML file"),
        (("--trace", "text-to-sql", "--workflows", "5"), "workflows"),
        (("--trace", "text-to-sql", "--page", "no/page.html"), "--page no/page.html: there is no folder no"),
    ],
)
def test_bad_input_is_named(hexopt, flags, message):
    done = hexopt("gap", "--solver", "greedy", *flags) if "--solver" not in flags else hexopt("gap", *flags)
    assert done.code == 2 and message in done.err and "Traceback" not in done.err
