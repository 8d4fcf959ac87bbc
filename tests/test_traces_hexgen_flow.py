import pytest
from trace_data import GOLDEN, shared_trace

from hexopt.traces import Prefix, TraceError, read_trace


def test_golden_structure():
    first, second = read_trace(GOLDEN / "hexgen_flow.json")
    assert [stage.kind for stage in first.stages] == [
        "information_retriever",
        "extract_keywords",
        "generate_candidate",
        "generate_candidate",
        "revise",
        "revise",
        "unit_tester",
        "generate_unit_test",
        "evaluate",
        "evaluate",
        "evaluate",
        "unit_tester",
    ]
    assert [stage.parents for stage in first.stages] == [
        (),
        ("0",),
        ("1",),
        ("1",),
        ("2", "3"),
        ("4",),
        ("5",),
        ("6",),
        ("7",),
        ("7",),
        ("7",),
        ("8", "9", "10"),
    ]
    assert [stage.prefixes[0].tokens for stage in first.stages] == [
        *(213, 600, 9158, 5000, 3059, 3059, 213, 436, 261, 261, 261, 213)
    ]
    assert first.stages[2].prefixes != first.stages[3].prefixes
    assert first.stages[4].prefixes == first.stages[5].prefixes
    assert second.stages[0].prefixes == (Prefix("text-to-sql/information_retriever", 100),)
    assert {workflow.family for workflow in (first, second)} == {"text-to-sql"}
    assert {workflow.arrival for workflow in (first, second)} == {0.0}


# Totals counted in the published files with a separate script.
@pytest.mark.parametrize(
    ("name", "workflows", "calls", "prompt", "output"),
    [
        ("trace1", 90, 1732, 4_542_946, 178_272),
        ("trace2", 96, 1984, 6_686_674, 229_094),
        ("formula1", 29, 504, 1_301_380, 49_943),
    ],
)
def test_published_traces(name, workflows, calls, prompt, output):
    trace = read_trace(shared_trace(f"hexgen-flow/input_file_{name}.json"))
    stages = [stage for workflow in trace for stage in workflow.stages]
    assert (len(trace), len(stages)) == (workflows, calls)
    assert sum(stage.prompt_tokens for stage in stages) == prompt
    assert sum(stage.output_tokens for stage in stages) == output


def test_templates_are_the_published_share_of_all_prompt_tokens():
    trace = read_trace(shared_trace("hexgen-flow/input_file_trace1.json"))
    stages = [stage for workflow in trace for stage in workflow.stages]
    held = sum(prefix.tokens for stage in stages for prefix in stage.prefixes)
    assert held / sum(stage.prompt_tokens for stage in stages) == pytest.approx(0.584, abs=5e-4)


def test_refusals_name_record_and_field(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text('[{"Text2SQLRequest": [{"step": "dance", "input_length": 1, "output_length": 1}]}]')
    with pytest.raises(TraceError, match=r"bad\.json: \[0\]: Text2SQLRequest\[0\]\.step is 'dance', expected one of"):
        read_trace(path)
    path.write_text('[{"Text2SQLRequest": [{"step": "revise", "input_length": -1, "output_length": 1}]}]')
    with pytest.raises(TraceError, match=r"Text2SQLRequest\[0\]\.input_length is -1, expected a whole number >= 1"):
        read_trace(path)
