"""What a user of the command gets: figures that are those of the library, tables, files and round trips."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from command_line import call, spawn

from hexopt.cluster import load_cluster
from hexopt.policies.registry import make_policy
from hexopt.simulation.experiment import Experiment
from hexopt.simulation.metrics import summarise
from hexopt.traces import Prefix, Stage, Workflow, read_trace, write_trace
from hexopt.traces.arrivals import poisson, with_arrivals
from hexopt.traces.samples import sample_path
from hexopt.traces.statistics import describe
from hexopt.traces.synthesis import synthesize

RUN = ("simulate", "--trace", "text-to-sql", "--cluster", "hetero-1", "--rate", "0.2", "--workflows", "40")
POLICIES = ("round-robin", "edf", "hexgen-flow:alpha=0.3", "greedy-urgency")
WITH_POLICIES = tuple(part for policy in POLICIES for part in ("--policy", policy))
KEYS = {
    "policy", "workflows", "calls", "mean_s", "p50_s", "p95_s", "p99_s", "attainment", "req95", "req99", "throughput",
    "goodput", "engine_cpu_s",
}  # fmt: skip
CLOCKED = {"engine_cpu_s", "scheduler_us_per_call"}


@pytest.fixture
def hexopt(capsys, monkeypatch):
    return partial(call, capsys, monkeypatch)


def json_lines(text: str):
    return [
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
        for line in text.split("\n")
        if line
    ]


def without_clocks(row):
    return {key: value for key, value in row.items() if key not in CLOCKED}


def test_figures_are_those_of_the_library_in_a_process_of_its_own():
    result = spawn(*RUN, *WITH_POLICIES, "--seed", 7, "--json")
    assert (result.code, result.err) == (0, "")
    experiment = Experiment.of(read_trace(sample_path("text-to-sql")), load_cluster("hetero-1"))
    picks, times = experiment.sample(40, 0.2, 7)
    rows = json_lines(result.out)
    assert len(rows) == len(POLICIES)
    for row, name in zip(rows, POLICIES, strict=True):
        summary = summarise(experiment.run(make_policy(name), picks, times), experiment.standalone[picks])
        assert without_clocks(row) == without_clocks(summary.row()) and row.keys() >= KEYS


def test_the_same_command_prints_the_same_but_for_the_processor_time(hexopt):
    first, second = (json_lines(hexopt(*RUN, "--json").out) for _ in range(2))
    assert without_clocks(first[0]) == without_clocks(second[0])
    other = json_lines(hexopt(*RUN, "--seed", 1, "--json").out)
    assert other[0]["mean_s"] != first[0]["mean_s"]


def test_table_shows_the_figures_and_the_ratio_to_round_robin(hexopt):
    rows = json_lines(hexopt(*RUN, *WITH_POLICIES, "--json").out)
    lines = [" ".join(line.split()) for line in hexopt(*RUN, *WITH_POLICIES).out.split("\n")]
    assert "policy mean s P50 s P95 s P99 s vs RR in time Req95 Req99" in lines
    for row in rows:
        line = next(line for line in lines if line.startswith(row["policy"] + " "))
        figures = line.removeprefix(row["policy"]).split()
        assert figures == [
            *(f"{row[key]:.1f}" for key in ("mean_s", "p50_s", "p95_s", "p99_s")),
            f"{rows[0]['p95_s'] / row['p95_s']:.2f}x", f"{row['attainment']:.1%}",
            f"{row['req95']:.2f}", f"{row['req99']:.2f}",
        ]  # fmt: skip
    assert "vs RR" not in hexopt(*RUN, "--policy", "edf").out


def test_arrivals_of_every_kind(hexopt):
    def throughput(*flags):
        rows = json_lines(hexopt(*RUN[:5], "--policy", "edf", "--json", *flags).out)
        return rows[0]["throughput"], rows[0]["workflows"]

    own = read_trace(sample_path("text-to-sql"))
    assert throughput()[1] == len(own)
    assert throughput("--workflows", 9)[1] == 9
    for process in ("poisson", "gamma", "diurnal", "trace"):
        rate, count = throughput("--arrivals", process, "--rate", 0.05, "--workflows", 400, "--period", 500)
        assert count == 400 and 0.03 < rate < 0.075
    slow, fast = (throughput("--load", load, "--workflows", 300)[0] for load in (0.3, 0.9))
    assert slow < fast


def test_stopping_early_leaves_workflows_unfinished_and_valid_json(hexopt):
    row = json_lines(hexopt(*RUN, "--until", 60, "--json").out)[0]
    assert 0 < row["finished"] < row["workflows"] == 40 and row["req99"] is None
    assert json_lines(hexopt(*RUN, "--until", 1e-3, "--json").out)[0]["mean_s"] is None
    assert "nan" in hexopt(*RUN, "--until", 1e-3).out


def test_exports_hold_every_call(hexopt, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    names = ("run.json", "run.json.gz", "run.trace.json", "run.parquet", "[old] run.trace.json.gz")
    for name in names:
        result = hexopt(*RUN, *WITH_POLICIES, "--json", "--export", tmp_path / name)
        assert result.code == 0 and result.err == f"Wrote {tmp_path / name}\n"
    calls = json_lines(result.out)[-1]["calls"]
    document = json.loads((tmp_path / "run.json").read_text())
    assert len(document["stages"]["finish_s"]) == calls and document["policy"] == "greedy-urgency"
    assert len(json.loads(gzip.decompress((tmp_path / "run.json.gz").read_bytes()))["stages"]["kind"]) == calls
    events = json.loads((tmp_path / "run.trace.json").read_text())["traceEvents"]
    assert sum(event.get("cat") == "stage" for event in events) == calls
    table = pq.read_table(tmp_path / "run.parquet")
    assert table.num_rows == calls and table["finish_s"].to_pylist() == document["stages"]["finish_s"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_page_is_written(hexopt, tmp_path):
    result = hexopt(*RUN, *WITH_POLICIES, "--page", tmp_path / "page.html")
    assert (result.code, result.err) == (0, f"Wrote {tmp_path / 'page.html'}\n")
    text = (tmp_path / "page.html").read_text()
    assert text.lstrip().lower().startswith("<!doctype html") and "hexgen-flow(alpha=0.3)" in text


@pytest.mark.parametrize("name", ["trace.jsonl", "trace.jsonl.gz"])
def test_a_synthesized_trace_comes_back_and_converts_to_itself(hexopt, tmp_path, name):
    out, again, copy = tmp_path / name, tmp_path / f"again-{name}", tmp_path / f"copy-{name}"
    arguments = ("traces", "synth", "tool-agent", "--workflows", 12, "--rate", 2, "--seed", 5)
    result = hexopt(*arguments, out)
    rng = np.random.default_rng(5)
    drawn = synthesize("tool-agent", 12, rng)
    drawn = with_arrivals(drawn, poisson(2, 12, rng))
    assert read_trace(out) == drawn
    calls = sum(len(w.stages) for w in drawn)
    assert (result.code, result.out, result.err) == (0, "", f"Wrote 12 workflows, {calls} calls to {out}\n")
    hexopt(*arguments, again)
    assert again.read_bytes() == out.read_bytes()
    assert hexopt("traces", "convert", out, copy).code == 0
    assert copy.read_bytes() == out.read_bytes()
    row = json_lines(hexopt(*RUN[:1], "--trace", out, *RUN[3:7], "--json").out)[0]
    assert (row["workflows"], row["calls"]) == (12, calls)


def test_info_says_what_the_trace_holds(hexopt):
    summary = describe(read_trace(sample_path("coding-agent")))
    document = json_lines(hexopt("traces", "info", "coding-agent", "--json").out)[0]
    assert document["workflows"] == summary.workflows and document["calls"] == summary.calls
    assert document["kinds"].keys() == summary.kinds.keys()
    text = hexopt("traces", "info", "coding-agent").out
    assert f"{summary.workflows:,} workflows" in text and f"{summary.calls:,} calls" in text
    assert all(kind in text for kind in summary.kinds)


def test_names_in_brackets_are_shown_as_they_are(hexopt, tmp_path):
    stage = Stage("0", "[bold]tool", 9, 3, (), (Prefix("p", 4),))
    write_trace([Workflow("w", (stage,), family="[x]")], tmp_path / "[a].jsonl")
    text = hexopt("traces", "info", tmp_path / "[a].jsonl").out
    assert "[bold]tool" in text and "[x] 1" in text and re.search(r"\[a\]\.jsonl:", text)


def test_help_and_version_load_no_library_for_numbers():
    code = """
import sys, time
from hexopt.cli import main
sys.argv = ["hexopt", FLAG]
try:
    main()
except SystemExit as end:
    heavy = {"numba", "numpy", "scipy", "sklearn", "plotly", "pydantic_core"} & set(sys.modules)
    print("\\n", end.code, sorted(heavy - {"pydantic_core"}), time.process_time() < 1.0)
"""
    for flag, shown in (("--help", "simulate"), ("--version", "0.")):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("FLAG", repr(flag))], capture_output=True, text=True, check=True
        )
        assert shown in done.stdout and done.stdout.strip().endswith("0 [] True")


def test_workflows_too_long_for_the_fleet_can_be_left_out(hexopt, tmp_path):
    fleet = tmp_path / "fleet.toml"
    workflows = read_trace(sample_path("text-to-sql"))
    longest = [max(s.prompt_tokens + s.output_tokens for s in w.stages) for w in workflows]
    limit = int(np.median(longest)) // 16 * 16
    fleet.write_text(f'llm = "llama-3.1-70b"\n[[instance]]\ngpu = "h100"\nmax_model_len = {limit}\n')
    fitting = [tokens for tokens in longest if tokens <= limit]
    assert 0 < len(fitting) < len(workflows)
    base = ("simulate", "--trace", "text-to-sql", "--cluster", fleet, "--rate", 0.1, "--json")
    refused = hexopt(*base)
    assert refused.code == 2 and "--drop-long" in refused.err
    done = hexopt(*base, "--drop-long")
    assert json_lines(done.out)[0]["workflows"] == len(fitting)
    assert f"left out {len(workflows) - len(fitting)} of {len(workflows)} workflows" in done.err


def test_one_run_can_be_exported_in_several_forms(hexopt, tmp_path):
    names = ("run.json", "run.trace.json", "run.parquet")
    done = hexopt(*RUN, *(part for name in names for part in ("--export", tmp_path / name)))
    assert done.code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
