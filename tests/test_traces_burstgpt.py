import pytest
from trace_data import GOLDEN, shared_tokens

from hexopt.traces import TraceError, read_trace


def test_golden_sessions():
    notes: list[str] = []
    session, call, other = read_trace(GOLDEN / "burstgpt.csv", on_note=notes.append)
    assert (session.id, call.id, other.id) == ("session-aaaa", "call-3", "call-7")
    assert (session.arrival, call.arrival, other.arrival) == (0.0, 3.0, 30.0)
    stages = session.stages
    assert [stage.parents for stage in stages] == [(), ("0",), ("1",), ("2",)]
    # Starts minus ends: 1020.5 - 1004, then a row that began before the last one ended, then 1040 - 1030.
    assert [stage.tool_delay for stage in stages] == [0.0, 16.5, 0.0, 10.0]
    assert notes == ["skipped 1 failed calls (no request or response tokens)"]


def test_a_prompt_long_enough_quotes_the_turn_before_and_its_answer():
    stages = read_trace(GOLDEN / "burstgpt.csv")[0].stages
    assert shared_tokens(stages[0].prefixes, stages[1].prefixes) == 906
    assert stages[0].output_segment == stages[1].prefixes[1].segment
    assert stages[1].prefixes[1].tokens == 446
    assert sum(prefix.tokens for prefix in stages[1].prefixes) == 1400
    assert stages[1].output_segment is None
    assert shared_tokens(stages[1].prefixes, stages[2].prefixes) == 0
    assert [prefix.tokens for prefix in stages[3].prefixes] == [80, 20]


def test_without_chaining_every_row_is_a_workflow():
    trace = read_trace(GOLDEN / "burstgpt.csv", chain_sessions=False)
    assert [len(workflow.stages) for workflow in trace] == [1] * 6
    assert [workflow.arrival for workflow in trace] == [0.0, 3.0, 20.5, 25.0, 30.0, 40.0]


def test_version_one_has_neither_sessions_nor_elapsed_times(tmp_path):
    path = tmp_path / "v1.csv"
    path.write_text(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,230,1317,Conversation log\n"
    )
    assert [(w.arrival, w.stages[0].prompt_tokens) for w in read_trace(path)] == [(0.0, 472), (40.0, 1087)]


def test_refusal_names_the_line(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text((GOLDEN / "burstgpt.csv").read_text().replace("1003.0", "soon"))
    with pytest.raises(TraceError, match=r"bad\.csv: line 3: Timestamp is 'soon', expected a number >= 0"):
        read_trace(path)
