import csv
import gzip
from collections import defaultdict

import pytest
from trace_data import GOLDEN, shared_tokens, shared_trace

from hexopt.traces import TraceError, read_trace


def test_table_and_json_of_one_session_agree():
    (table,) = read_trace(GOLDEN / "weka_table.csv")
    session = read_trace(GOLDEN / "weka.jsonl")[0]

    def shape(workflow):
        return [
            (
                s.id,
                s.kind,
                s.prompt_tokens,
                s.output_tokens,
                s.parents,
                s.tool_delay,
                sum(p.tokens for p in s.prefixes),
            )
            for s in workflow.stages
        ]

    assert shape(table) == shape(session)
    held = {stage.id: stage.prefixes for stage in table.stages}
    for stage in session.stages:
        for other in session.stages:
            assert shared_tokens(held[stage.id], held[other.id]) == shared_tokens(stage.prefixes, other.prefixes)


@pytest.fixture(scope="module")
def published():
    path = shared_trace("weka/weka_requests.csv.gz")
    with gzip.open(path, "rt", newline="") as stream:
        return read_trace(path), list(csv.DictReader(stream))


def test_published_table(published):
    trace, rows = published
    assert len(trace) == 500
    assert len(rows) == 31_505
    assert sum(len(workflow.stages) for workflow in trace) == 31_505 - sum(row["out_tokens"] == "0" for row in rows)
    assert sum(any(s.kind != "main" for s in workflow.stages) for workflow in trace) == len(
        {row["trace_id"] for row in rows if row["agent"] != "main"}
    )


def test_a_prompt_shares_its_cached_tokens_with_its_agents_last_prompt(published):
    trace, rows = published
    before: dict[tuple[str, str], tuple] = {}
    stages = {(w.id, s.id): s for w in trace for s in w.stages}
    checked = 0
    for row in rows:
        stage = stages.get((row["trace_id"], row["idx"]))
        agent = (row["trace_id"], row["agent"])
        if stage is None:
            before.pop(agent, None)
            continue
        if agent in before:
            held = sum(prefix.tokens for prefix in before[agent])
            cached = min(int(row["cached_prefix_tokens"]), held)
            assert shared_tokens(before[agent], stage.prefixes) == cached
            checked += 1
        before[agent] = stage.prefixes
    assert checked > 30_000


def test_callers_wait_for_their_sub_agents(published):
    """Every sub-agent with a recorded duration joins at the next call of the main agent."""
    trace, rows = published
    waited = {(row["trace_id"], row["agent"]) for row in rows if row["sub_duration_ms"]}
    last: dict[tuple[str, str], str] = {}
    following: dict[tuple[str, str], str] = {}
    by_trace = defaultdict(list)
    for row in rows:
        by_trace[row["trace_id"]].append(row)
    for name, held in by_trace.items():
        for place, row in enumerate(held):
            if row["agent"] != "main":
                last[name, row["agent"]] = row["idx"]
                after = [other["idx"] for other in held[place:] if other["agent"] == "main"]
                following[name, row["agent"]] = after[0] if after else ""
    parents = {(w.id, s.id): s.parents for w in trace for s in w.stages}
    joined = [agent for agent in waited if following[agent]]
    assert len(joined) > 50
    for agent in joined:
        assert last[agent] in parents[agent[0], following[agent]]


def test_rows_of_a_trace_have_to_stand_together(tmp_path):
    lines = (GOLDEN / "weka_table.csv").read_text().splitlines()
    torn = [*lines[:3], lines[3].replace("one", "other", 1), *lines[4:]]
    path = tmp_path / "torn.csv"
    path.write_text("\n".join(torn))
    with pytest.raises(TraceError, match="two workflows are named 'one'"):
        read_trace(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("one,0,main", ",0,main", "line 2: trace_id, idx or agent is empty"),
        (",1000,50,", ",0,50,", "line 2: in_tokens is '0', expected a whole number >= 1"),
        (",1000,50,", ",1000,nan,", "line 2: out_tokens is 'nan'"),
        (",110.0,", ",inf,", "line 6: t_s is 'inf', expected a number >= 0"),
        ("cached_prefix_tokens", "cached", "line 1: the header lacks the column 'cached_prefix_tokens'"),
        ("one,9,main,,,8,300.0,n,m,1000", "one,9", "line 11: has 9 cells, expected 17"),
    ],
)
def test_refusals(tmp_path, old, new, message):
    path = tmp_path / "bad.csv"
    path.write_text((GOLDEN / "weka_table.csv").read_text().replace(old, new, 1))
    with pytest.raises(TraceError, match=rf"bad\.csv: {message}"):
        read_trace(path, "weka-table")
