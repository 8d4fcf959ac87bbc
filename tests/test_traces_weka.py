import json
import shutil

import pytest
from trace_data import GOLDEN, shared_tokens

from hexopt.traces import Prefix, TraceError, read_trace


def test_golden_session():
    notes: list[str] = []
    one, two = read_trace(GOLDEN / "weka.jsonl", on_note=notes.append)
    assert notes == ["skipped 1 failed calls (no output tokens)"]
    stages = {stage.id: stage for stage in one.stages}
    assert [stage.kind for stage in one.stages] == [
        "main",
        "subagent:explore",
        "subagent:explore",
        "subagent:plan",
        "main",
        "main",
        "subagent:explore",
        "main",
        "main",
    ]
    # Two sub-agents fork from the first call (their time is when they came back) and join at the next.
    assert stages["1"].parents == stages["3"].parents == ("0",)
    assert stages["1"].tool_delay == stages["3"].tool_delay == 0.5
    assert stages["2"].parents == ("1",)
    assert stages["2"].tool_delay == 8.0
    assert stages["4"].parents == ("0", "2", "3")
    assert stages["4"].tool_delay == 110.0 - 104.5
    # Call 5 failed, so 6 follows 4, which ended at 115.
    assert stages["6"].parents == ("4",)
    assert stages["6"].tool_delay == 150.0 - 115.0
    # A sub-agent in the background, over at 260, joins not the next call but the one after it.
    assert stages["7"].parents == stages["8"].parents == ("6",)
    assert stages["9"].parents == ("8", "7")
    assert stages["9"].tool_delay == 40.0
    assert one.family == "coding-agent"
    # Absolute times inside a sub-agent that tells its start.
    assert [(stage.parents, stage.tool_delay) for stage in two.stages[1:]] == [(("0",), 8.0), (("1",), 1.0)]


def test_prefixes_are_the_hashed_blocks_behind_global_instructions():
    one, two = read_trace(GOLDEN / "weka.jsonl")
    stages = {stage.id: stage for stage in one.stages}
    instructions = Prefix("instructions:200+60", 256)
    assert stages["0"].prefixes == (instructions, Prefix("blocks-0", 704, local=True))
    assert two.stages[0].prefixes[0] == instructions
    assert stages["1"].prefixes[0] == Prefix("instructions:100+30", 128)
    assert shared_tokens(stages["0"].prefixes, stages["4"].prefixes) == 15 * 64
    assert shared_tokens(stages["4"].prefixes, stages["6"].prefixes) == 7 * 64
    assert shared_tokens(stages["6"].prefixes, stages["9"].prefixes) == 10 * 64
    assert shared_tokens(stages["0"].prefixes, stages["1"].prefixes) == 0


def test_a_folder_of_sessions(tmp_path):
    for index, line in enumerate((GOLDEN / "weka.jsonl").read_text().splitlines()):
        (tmp_path / f"{index}.json").write_text(json.dumps(json.loads(line), indent=1))
    (tmp_path / "notes.txt").write_text("ignored")
    assert read_trace(tmp_path) == read_trace(GOLDEN / "weka.jsonl")
    shutil.copy(tmp_path / "0.json", tmp_path / "again.json")
    with pytest.raises(TraceError, match=r"again\.json: two workflows are named 'one'"):
        read_trace(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"requests": 3}, "requests is 3, expected an array"),
        ({"requests": [{"t": 0, "in": 3, "out": "x"}]}, r"requests\[0\]\.out is 'x'"),
        ({"requests": [{"in": 3, "out": 1}]}, r"requests\[0\]\.t is missing"),
        ({"requests": [{"t": 0, "type": "subagent"}]}, r"requests\[0\]\.requests is missing"),
        (
            {"requests": [{"t": 0, "type": "subagent", "requests": [{"t": 0, "in": 0, "out": 1}]}]},
            r"requests\[0\]\.requests\[0\]\.in is 0, expected a whole number >= 1",
        ),
        ({"block_size": 0}, "block_size is 0"),
        ({"id": None}, "id is None"),
    ],
)
def test_refusals_name_line_and_path(tmp_path, change, message):
    path = tmp_path / "bad.jsonl"
    session = {"id": "a", "requests": [{"t": 0, "in": 3, "out": 1}]}
    path.write_text(json.dumps(session) + "\n" + json.dumps(session | {"id": "b"} | change) + "\n")
    with pytest.raises(TraceError, match=r"bad\.jsonl: line 2: " + message):
        read_trace(path)
