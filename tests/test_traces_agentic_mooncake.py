import json
import math

import pytest
from trace_data import GOLDEN

from hexopt.traces import Prefix, TraceError, read_trace

HEADER = {
    "schema": "dynamo.agentic_mooncake",
    "version": 2,
    "block_size": 64,
    "hash_id_scope": "local",
    "source": {"format": "test", "digest": "none"},
}


def row(request, play="p", dependencies=(), **fields):
    return {
        "request_id": request,
        "play_id": play,
        "session_id": "s",
        "model": "m",
        "input_length": 64,
        "output_length": 2,
        "hash_ids": [1],
        "not_before_ms": 0.0,
        "dependencies": [
            {"request_id": other, "trigger": trigger, "relation": "sequence", "delay_ms": delay}
            for other, trigger, delay in dependencies
        ],
    } | fields


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_golden_foreign_file_with_interleaved_plays():
    notes: list[str] = []
    first, second = read_trace(GOLDEN / "agentic_mooncake.jsonl", on_note=notes.append)
    assert (first.id, first.arrival, second.id, second.arrival) == ("a", 0.5, "b", 2.0)
    stages = {stage.id: stage for stage in first.stages}
    assert stages["a-left"].parents == ("a-root",)
    assert stages["a-left"].tool_delay == 0.02
    # Dispatched with a-left, which waits for a-root and 20 ms, and 5 ms later.
    assert stages["a-right"].parents == ("a-root",)
    assert math.isclose(stages["a-right"].tool_delay, 0.025)
    assert stages["a-join"].parents == ("a-left", "a-right")
    assert stages["a-join"].tool_delay == 0.03
    assert stages["a-join"].prefixes == (Prefix("blocks-0", 256, local=True),)
    assert [prefix.tokens for prefix in stages["a-right"].prefixes] == [64, 64]
    assert [stage.output_tokens for stage in second.stages] == [1, 7]
    assert second.stages[1].tool_delay == 1.5
    assert notes == [
        "took 1 requests without output tokens as one token long",
        "approximated 1 dispatch triggers by the parents of the request they wait for",
        "took the largest of several delays for 1 requests",
    ]


def test_rows_may_come_children_first(tmp_path):
    path = write(tmp_path / "t.jsonl", HEADER, row("b", dependencies=[("a", "completion", 0)]), row("a"))
    (workflow,) = read_trace(path)
    assert [stage.id for stage in workflow.stages] == ["a", "b"]


def test_dispatch_on_a_first_request_counts_from_the_arrival(tmp_path):
    path = write(
        tmp_path / "t.jsonl",
        HEADER,
        row("a", not_before_ms=3000),
        row("late", not_before_ms=4000),
        row("b", dependencies=[("late", "dispatch", 250)]),
    )
    (workflow,) = read_trace(path)
    assert workflow.arrival == 3.0
    assert [(stage.parents, stage.tool_delay) for stage in workflow.stages] == [
        ((), 0.0),
        ((), 1.0),
        ((), 1.25),
    ]


def test_global_scope_shares_across_plays(tmp_path):
    rows = [
        row("a", "p", hash_ids=[1, 2], input_length=128),
        row("b", "q", hash_ids=[1, 3], input_length=128),
    ]
    one, two = read_trace(write(tmp_path / "t.jsonl", HEADER | {"hash_id_scope": "global"}, *rows))
    assert two.stages[0].prefixes[0] == Prefix(one.stages[0].prefixes[0].segment, 64)
    one, two = read_trace(write(tmp_path / "t.jsonl", HEADER, *rows))
    assert two.stages[0].prefixes == (Prefix("blocks-0", 128, local=True),)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([HEADER | {"version": 1}], r"line 1: version is 1, expected 2; other versions are not read"),
        ([HEADER | {"version": True}], r"line 1: version is True"),
        ([HEADER | {"schema": "dynamo.agentic_mooncake2"}], r"line 1: schema is"),
        ([HEADER | {"hash_id_scope": "galaxy"}], r"hash_id_scope is 'galaxy', expected 'local' or 'global'"),
        ([HEADER | {"block_size": 0}], r"block_size is 0"),
        ([{"request_id": "a"}], r"line 1: schema is missing"),
        ([HEADER], r"holds no workflow"),
        ([HEADER, row("a"), row("a")], r"play 'p' \(line 2 on\): two requests are named 'a'"),
        (
            [HEADER, row("a", dependencies=[("z", "completion", 0)])],
            r"'a' depends on 'z', which is no request",
        ),
        (
            [
                HEADER,
                row("a", dependencies=[("b", "completion", 0)]),
                row("b", dependencies=[("a", "dispatch", 0)]),
            ],
            r"dependencies form a cycle",
        ),
        (
            [HEADER, row("a", dependencies=[("a", "later", 0)])],
            r"dependencies\[0\]\.trigger is 'later', expected",
        ),
        ([HEADER, row("a", dependencies=[("a", "completion", -1)])], r"dependencies\[0\]\.delay_ms is -1"),
        ([HEADER, row("a", x_hexopt={"kind": 3})], r"x_hexopt\.kind is 3, expected a string"),
        (
            [HEADER, row("a", x_hexopt={"prefixes": [{"segment": "s", "tokens": 65}]})],
            r"prefixes hold 65 tokens",
        ),
        (
            [HEADER, row("a", x_hexopt={"prefixes": [{"tokens": 65}]})],
            r"x_hexopt\.prefixes\[0\]\.segment is missing",
        ),
    ],
)
def test_refusals(tmp_path, records, message):
    with pytest.raises(TraceError, match=message):
        read_trace(write(tmp_path / "bad.jsonl", *records), "agentic-mooncake")


def test_a_file_that_promises_plays_kept_together_and_does_not(tmp_path):
    header = HEADER | {"x_hexopt": {"plays_together": True}}
    path = write(tmp_path / "t.jsonl", header, row("a", "p"), row("b", "q"), row("c", "p"))
    with pytest.raises(TraceError, match=r"line 4: play_id 'p' comes again"):
        read_trace(path)
