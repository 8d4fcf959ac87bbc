"""``hexopt tune`` from traces and from a gateway's store, to a file that ``hexopt simulate`` takes."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from broken_off_run import heed_ctrl_c, wait_until_gone
from command_line import call, spawn

from hexopt.objective import make_objective, weights_of

pytest.importorskip("optuna")

BAD = "hexgen-flow:alpha=0"
SHORT = ("--trials", 3, "--workflows", 40, "--seeds", 2, "--held-out", 6, "--jobs", 1)
RUN = ("tune", "--trace", "text-to-sql", "--cluster", "hetero-1", "--load", 0.95, *SHORT)


@pytest.fixture
def hexopt(capsys, monkeypatch):
    return partial(call, capsys, monkeypatch)


def test_weights_that_win_are_written_and_simulated_with(hexopt, tmp_path):
    out, kept = tmp_path / "weights.toml", tmp_path / "kept"
    run = (*RUN, "--weights", BAD, "--json", "--out", out, "--resume", kept)
    result = hexopt(*run)
    report = json.loads(result.out)
    assert result.code == 0 and report["wins"] and report["present"] != report["found"], result
    assert weights_of(make_objective(str(out))) == pytest.approx(weights_of(make_objective(report["found"])))
    assert report["verdict"] in out.read_text() and f"Wrote {out}" in result.err.replace("\n", "")
    files = {path: path.stat().st_mtime_ns for path in kept.rglob("*.pickle")}
    assert len(files) > 20
    again = hexopt(*run)
    assert again.out == result.out and {p: p.stat().st_mtime_ns for p in kept.rglob("*.pickle")} == files
    simulate = ("simulate", "--trace", "text-to-sql", "--cluster", "hetero-1", "--rate", 0.1, "--workflows", 20)
    row = json.loads(hexopt(*simulate, "--policy", "rolling-horizon", "--weights", out, "--json").out)
    assert row["policy"] == f"rolling-horizon(annealing, {out})"


def test_the_table_names_everybody_and_nothing_is_written_where_nothing_won(hexopt, tmp_path):
    out = tmp_path / "weights.toml"
    result = hexopt(*RUN, "--trials", 1, "--objective", "attainment", "--out", out)
    assert result.code == 0 and not out.exists()
    for word in ("present", "found", "hexgen-flow", "in time", "the present weights stay", "weights found: "):
        assert word in result.out, word
    assert "Did not write" in result.err


def test_in_a_process_of_its_own_with_two_workers():
    result = spawn(*RUN[:-1], 2, "--policy", "greedy-urgency", "--json")
    assert result.code == 0 and result.err == "" and json.loads(result.out)["simulations"] > 20


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_search_that_is_broken_off_keeps_what_it_has_and_leaves_nobody_behind(tmp_path, number, code):
    script = Path(sys.executable).with_name("hexopt")
    command = [script, *RUN[:-1], 2, "--policy", "greedy-urgency", "--trials", 5000, "--resume", tmp_path]
    run = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    while not any(tmp_path.rglob("*.pickle")):
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    os.kill(run.pid, number)
    out, err = run.communicate(timeout=60)
    assert (out, err, run.returncode) == ("", "", code)
    wait_until_gone(run.pid)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rate", 1.0), "--rate and --load: give one of the two"),
        (("--store", "sqlite:///x.db"), "--trace and --store: give one of the two"),
        (("--since", "2026-01-01"), "--since and --until belong to --store"),
        (("--policy", "edf"), "policy edf has no weights"),
        (("--policy", "greedy-urgency", "--weights", "latency"), "--weights belongs to --policy rolling-horizon"),
        (("--policy", "greedy-urgency", "--out", "w.toml"), "--out: weights files are rolling-horizon's"),
        (("--objective", "p95,beauty"), "--objective 'beauty' is unknown"),
        (("--objective", "cost"), "--objective cost: no instance of the cluster has a price"),
        (("--held-out", 1), "--held-out is 1, expected at least 2"),
        (("--jobs", 0), "Invalid value for '--jobs'"),
        (("--ray", "127.0.0.1:1"), "--ray 127.0.0.1:1: no Ray cluster answers there"),
        (("--out", "/nowhere/w.toml"), "--out /nowhere/w.toml: there is no folder /nowhere"),
    ],
)
def test_bad_input_is_one_clear_line(hexopt, arguments, message):
    result = hexopt(*RUN, *arguments)
    assert (result.code, result.out) == (2, "") and message in result.err and result.err.count("\n") == 1


def test_the_traffic_of_a_gateway_is_tuned_for(hexopt, tmp_path):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    assert sqlalchemy
    from gateway_traffic import fill

    url = f"sqlite:///{tmp_path / 'traffic.db'}"
    fill(url)
    run = ("tune", "--store", url, "--cluster", "hetero-1", *SHORT, "--policy", "greedy-urgency", "--json")
    report = json.loads(hexopt(*run).out)
    assert len(report["held_out"]) == 3
    nothing = hexopt(*run, "--until", "2001-01-01")
    assert (nothing.code, nothing.out) == (2, "") and "the trace has 0 workflows" in nothing.err
