import gzip
import json
import sys
from itertools import pairwise

import numpy as np
import pytest
from small_run import make_run, random_run, small_run

from hexopt.simulation.export import ExportError, write_chrome_trace, write_json, write_parquet


def load(path):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as stream:
        return json.load(stream, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))


def test_json_holds_every_stage_and_workflow(tmp_path):
    run = small_run()
    write_json(run, tmp_path / "run.json")
    document = load(tmp_path / "run.json")
    assert document["policy"] == "round-robin" and document["kinds"] == ["generate", "revise"]
    assert document["end_s"] == 10.0
    assert document["instances"]["name"] == ["h100-0", "l40s-1"]
    assert document["instances"]["busy_seconds"] == [5.0, 5.0]
    assert document["workflows"]["finish_s"] == [4.0, None]
    assert document["workflows"]["deadline_s"] == [5.0, 6.0]
    stages = document["stages"]
    assert {len(column) for column in stages.values()} == {5}
    assert stages["finish_s"] == [2.0, 4.0, 3.0, None, None]
    assert stages["start_s"] == [0.25, 2.0, 1.0, 3.5, None]
    assert stages["cached"] == [16, 0, 0, 0, 0]


def test_packed_files_are_the_same_bytes_every_time(tmp_path):
    run = small_run()
    for write in (write_json, write_chrome_trace):
        write(run, tmp_path / "a.json.gz")
        write(run, tmp_path / "b.json.gz")
        write(run, tmp_path / "plain.json")
        assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
        assert load(tmp_path / "a.json.gz") == load(tmp_path / "plain.json")


def test_parquet_joins_the_workflow_to_its_stages(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    run = small_run()
    write_parquet(run, tmp_path / "run.parquet")
    table = pq.read_table(tmp_path / "run.parquet")
    columns = table.to_pydict()
    assert columns["kind"] == ["generate", "revise", "generate", "revise", "revise"]
    assert columns["gpu"] == ["h100", "l40s", "h100", "h100", "l40s"]
    assert columns["workflow_deadline_s"] == [5.0, 5.0, 6.0, 6.0, 6.0]
    assert columns["workflow_finish_s"] == [4.0, 4.0, None, None, None]
    assert columns["finish_s"] == [2.0, 4.0, 3.0, None, None]
    assert json.loads(table.schema.metadata[b"hexopt"])["cluster"] == "two-of-a-kind"


def test_parquet_of_a_stage_that_was_never_placed(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    run = make_run([{"instance": -1}], [{"arrival": 0.0, "deadline": np.inf}])
    write_parquet(run, tmp_path / "run.parquet")
    row = pq.read_table(tmp_path / "run.parquet").to_pylist()[0]
    assert row["instance"] is None and row["gpu"] is None and row["workflow_deadline_s"] is None


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExportError, match=r"hexopt\[parquet\]"):
        write_parquet(small_run(), tmp_path / "run.parquet")
    assert not list(tmp_path.iterdir())


def test_trace_nests_prefill_and_decode_in_their_stage(tmp_path):
    write_chrome_trace(small_run(), tmp_path / "run.trace.json")
    events = load(tmp_path / "run.trace.json")["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {0: "h100-0 (h100)", 1: "l40s-1 (l40s)"}
    slices = [(e["pid"], e["tid"], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert slices == [
        (0, 0, "generate", 250_000, 1_750_000),
        (0, 0, "prefill", 250_000, 250_000),
        (0, 0, "decode", 500_000, 1_500_000),
        (0, 1, "generate", 1_000_000, 2_000_000),
        (0, 1, "prefill", 1_000_000, 500_000),
        (0, 1, "decode", 1_500_000, 1_500_000),
        # Had not ended when the run stopped, at ten seconds.
        (0, 0, "revise", 3_500_000, 6_500_000),
        (0, 0, "prefill", 3_500_000, 6_500_000),
        (1, 0, "revise", 2_000_000, 2_000_000),
        (1, 0, "prefill", 2_000_000, 500_000),
        (1, 0, "decode", 2_500_000, 1_500_000),
    ]
    args = next(e["args"] for e in events if e["ph"] == "X")
    assert args["workflow"] == 0 and args["cached_tokens"] == 16 and args["waited_s"] == 0.25
    assert [e["args"]["finished"] for e in events if e.get("cat") == "stage"] == [True, True, False, True]


def test_trace_counts_what_runs_and_waits(tmp_path):
    write_chrome_trace(small_run(), tmp_path / "run.trace.json")
    events = load(tmp_path / "run.trace.json")["traceEvents"]
    counts = [
        (e["ts"] / 1e6, e["args"]["running"], e["args"]["waiting"]) for e in events if e["ph"] == "C" and e["pid"] == 0
    ]
    assert counts == [(0, 0, 1), (0.25, 1, 0), (1, 2, 0), (2, 1, 0), (3, 0, 1), (3.5, 1, 0)]


def test_trace_slices_of_a_lane_never_collide(tmp_path):
    write_chrome_trace(random_run("edf", 60, seed=1), tmp_path / "run.trace.json")
    lanes = {}
    for e in load(tmp_path / "run.trace.json")["traceEvents"]:
        if e.get("cat") == "stage":
            lanes.setdefault((e["pid"], e["tid"]), []).append((e["ts"], e["ts"] + e["dur"]))
    assert sum(map(len, lanes.values())) == 180
    for slices in lanes.values():
        slices.sort()
        assert all(a[1] <= b[0] for a, b in pairwise(slices))


def test_failure_leaves_nothing(tmp_path):
    with pytest.raises(OSError):
        write_json(small_run(), tmp_path / "nowhere" / "run.json")
    run = small_run()
    run.stage["kind"] = 7
    with pytest.raises(IndexError):
        write_chrome_trace(run, tmp_path / "run.trace.json")
    assert not list(tmp_path.iterdir())
