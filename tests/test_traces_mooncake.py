import json
from collections import Counter

import pytest
from trace_data import GOLDEN, shared_tokens, shared_trace

from hexopt.traces import TraceError, read_trace


def test_golden_sessions():
    notes: list[str] = []
    sessions = read_trace(GOLDEN / "mooncake.jsonl", on_note=notes.append)
    assert [workflow.id for workflow in sessions] == ["call-1", "call-2", "call-3", "call-9"]
    assert [workflow.arrival for workflow in sessions] == [0.0, 0.0, 1.0, 9.999]
    first = sessions[0].stages
    # The second turn, the first turn edited and sent again, the third turn.
    assert [(stage.prompt_tokens, stage.parents, stage.tool_delay) for stage in first] == [
        (1100, (), 0.0),
        (1600, ("0",), 5.0),
        (1300, ("0",), 7.0),
        (2100, ("1",), 4.5),
    ]
    assert [len(workflow.stages) for workflow in sessions] == [4, 1, 2, 1]
    assert notes == ["skipped 1 calls without prompt or output tokens"]


def test_a_prompt_that_is_only_the_common_template_starts_no_session():
    template_alone = read_trace(GOLDEN / "mooncake.jsonl")[1]
    assert len(template_alone.stages) == 1
    assert [prefix.tokens for prefix in template_alone.stages[0].prefixes] == [512]


def test_without_chaining_every_call_is_a_workflow_with_the_same_prefixes():
    single = read_trace(GOLDEN / "mooncake.jsonl", chain_sessions=False)
    assert len(single) == 8
    assert [workflow.arrival for workflow in single] == [0.0, 0.0, 1.0, 5.0, 7.0, 9.0, 9.5, 9.999]


@pytest.fixture(scope="module")
def conversation():
    return shared_trace("mooncake/conversation_trace.jsonl")


def test_published_trace(conversation):
    sessions = read_trace(conversation)
    calls = [stage for workflow in sessions for stage in workflow.stages]
    assert len(calls) == 12_031
    assert 0.25 < 1 - len(sessions) / len(calls) < 0.4
    assert Counter(not prefix.local for stage in calls for prefix in stage.prefixes).keys() == {True}


def test_prefixes_share_what_the_blocks_say(conversation):
    records = [json.loads(line) for line in conversation.read_text().splitlines()[:1500]]
    single = [w.stages[0] for w in read_trace(conversation, chain_sessions=False)[:1500]]
    for start in range(0, 1500, 37):
        for other in range(start, 1500, 11):
            one, two = (records[i]["hash_ids"][: records[i]["input_length"] // 512] for i in (start, other))
            blocks = next(
                (i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two))
            )
            assert shared_tokens(single[start].prefixes, single[other].prefixes) == 512 * blocks


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"timestamp": 0, "input_length": 1, "output_length": 1}', "hash_ids is missing"),
        (
            '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [1, "x"]}',
            "hash_ids holds 'x'",
        ),
        ('{"timestamp": -1, "input_length": 1, "output_length": 1, "hash_ids": []}', "timestamp is -1"),
        (
            '{"timestamp": 0, "input_length": NaN, "output_length": 1, "hash_ids": []}',
            "NaN is no JSON number",
        ),
        ('{"timestamp": 0, "input_length": 1.5, "output_length": 1, "hash_ids": []}', "input_length is 1.5"),
    ],
)
def test_refusals_name_the_line(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": [1]}\n\n' + line + "\n")
    with pytest.raises(TraceError, match=rf"bad\.jsonl: line 3: .*{message}"):
        read_trace(path)
    notes: list[str] = []
    assert len(read_trace(path, strict=False, on_note=notes.append)) == 1
    assert notes == ["skipped 1 malformed records"]
