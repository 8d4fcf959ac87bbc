import pytest
from trace_data import GOLDEN, shared_trace

from hexopt.traces import Stage, TraceError, Workflow, read_trace


def test_golden_2023():
    notes: list[str] = []
    first, second, last = read_trace(GOLDEN / "azure_2023.csv", on_note=notes.append)
    assert first == Workflow("call-2", (Stage("0", "chat", 4808, 10),), 0.0, family="chat")
    assert second.arrival == pytest.approx(0.052, abs=1e-9)
    assert last.arrival == 60.0
    assert notes == ["skipped 1 calls without prompt or output tokens"]


def test_golden_2024_with_time_zone():
    first, second = read_trace(GOLDEN / "azure_2024.csv")
    assert (first.arrival, second.arrival) == (0.0, pytest.approx(0.007405))


def test_published_trace():
    calls = read_trace(shared_trace("azure-llm-2023/AzureLLMInferenceTrace_conv.csv"))
    assert len(calls) == 19_366
    assert all(len(call.stages) == 1 for call in calls)
    assert sorted(call.arrival for call in calls) == [call.arrival for call in calls]
    prompts = sorted(call.stages[0].prompt_tokens for call in calls)
    assert prompts[len(prompts) // 2] == 1020
    assert 56 * 60 < calls[-1].arrival < 60 * 60


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("yesterday,1,1", "TIMESTAMP is 'yesterday', expected a time like"),
        (
            "2023-11-15 18:17:04.0319600,1,1",
            "TIMESTAMP is before that of the first row, 2023-11-16 18:17:03.979960",
        ),
        ("2023-11-16 18:17:04.0319600,-1,1", "ContextTokens is '-1', expected a whole number >= 0"),
        ("2023-11-16 18:17:04.0319600,1,1.5", "GeneratedTokens is '1.5'"),
        ("2023-11-16 18:17:04.0319600,1", "has 2 cells, expected 3"),
    ],
)
def test_refusals_name_the_line(tmp_path, row, message):
    path = tmp_path / "bad.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n" + row + "\n")
    with pytest.raises(TraceError, match=rf"bad\.csv: line 3: {message}"):
        read_trace(path)
    assert len(read_trace(path, strict=False)) == 1
