import json

import pytest
from trace_data import GOLDEN, shared_trace

from hexopt.traces import Prefix, TraceError, read_trace


def span(id_, start, end, prompt="", says="", parent=None, trace="t", **attributes):
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return {
        "trace_id": trace,
        "span_id": id_,
        "parent_span_id": parent,
        "start_time": f"2026-01-01T00:00:{start:09.6f}",
        "end_time": f"2026-01-01T00:00:{end:09.6f}",
        "attributes": {
            "gen_ai.operation.name": "chat",
            "gen_ai.input.messages": json.dumps(messages),
            "gen_ai.output.text": says,
        }
        | attributes,
    }


def read(tmp_path, *spans, **options):
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"spans": list(spans)}))
    return read_trace(path, **options)


def parents(workflow):
    return {stage.id: stage.parents for stage in workflow.stages}


def test_golden_otlp():
    run, other = read_trace(GOLDEN / "otlp.json")
    assert (run.id, run.arrival, other.id, other.arrival) == ("t1", 0.0, "t2", 99.0)
    stages = {stage.id: stage for stage in run.stages}
    # Spans of agents and tools are no stages; inside an agent's span its calls follow each other, and the
    # call after the two agents quotes the plan only, but waited for both.
    assert {id_: stage.parents for id_, stage in stages.items()} == {
        "plan": (),
        "a1": ("plan",),
        "a2": ("a1",),
        "b1": ("plan",),
        "b2": ("b1",),
        "sum": ("plan", "b2", "a2"),
    }
    assert stages["sum"].tool_delay == pytest.approx(2.0)
    assert stages["a2"].tool_delay == pytest.approx(2.0)
    assert [stages[id_].kind for id_ in ("plan", "a1")] == ["planner", "worker"]
    assert (stages["plan"].prompt_tokens, stages["plan"].output_tokens) == (40, 12)


def test_messages_are_shared_from_the_first_on():
    run, other = read_trace(GOLDEN / "otlp.json")
    stages = {stage.id: stage for stage in run.stages}
    plan, total = stages["plan"], stages["sum"]
    assert sum(prefix.tokens for prefix in plan.prefixes) == 40
    assert total.prefixes == (*plan.prefixes, Prefix(plan.output_segment, 12, local=True))
    assert other.stages[0].prefixes == plan.prefixes[:1]
    assert [prefix.local for prefix in plan.prefixes] == [False, True]


def test_four_published_traces():
    notes: list[str] = []
    (chain,) = read_trace(shared_trace("otel-genai/simple_chain.json"), on_note=notes.append)
    assert notes == ["estimated the token counts of 3 spans from their text, 4 characters a token"]
    assert parents(chain) == {
        "capital_question": (),
        "landmarks_question": ("capital_question",),
        "eiffel_tower_height": ("landmarks_question",),
    }
    assert [stage.tool_delay for stage in chain.stages] == pytest.approx([0.0, 0.5, 1.0])

    (fan_in,) = read_trace(shared_trace("otel-genai/fan_in_dependencies.json"))
    assert fan_in.stages[-1].parents == ("span_001", "span_002", "span_003")
    assert fan_in.stages[-1].tool_delay == pytest.approx(1.0)

    (research,) = read_trace(shared_trace("otel-genai/multi_agent_research.json"))
    assert len(research.stages) == 12
    found = [tuple(int(parent[5:8]) for parent in stage.parents) for stage in research.stages]
    assert found == [(), (1,), (1,), (1,), (2, 3, 4), (5,), (6,), (6,), (6,), (7, 8, 9), (10,), (11,)]
    assert research.stages[1].kind == "market-analyst-agent"

    shared = read_trace(shared_trace("otel-genai/prefix_sharing_example.json"))
    assert [len(workflow.stages) for workflow in shared] == [1, 1, 4, 1]
    talk = shared[2].stages
    assert [stage.prompt_tokens for stage in talk] == [100, 180, 270, 380]
    assert [sum(p.tokens for p in stage.prefixes) for stage in talk] == [100, 180, 270, 270 + 70]


def test_a_folder_is_one_trace_set():
    folder = shared_trace("otel-genai")
    assert sum(len(workflow.stages) for workflow in read_trace(folder)) == 26


def test_calls_that_overlap_do_not_wait_for_each_other(tmp_path):
    (run,) = read(
        tmp_path,
        span("a", 0, 2, "q", "x"),
        span("b", 3, 6, "r", "y"),
        span("c", 4, 7, "s", "z"),
        span("d", 8, 9, "t", "w"),
    )
    assert parents(run) == {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
    assert [stage.tool_delay for stage in run.stages] == pytest.approx([0, 1, 2, 1])


def test_a_tool_message_that_gives_back_an_output_is_a_dependency(tmp_path):
    (run,) = read(
        tmp_path,
        span("a", 0, 2, "q", "long report"),
        span("b", 3, 6, "r", "other"),
        span("c", 7, 8, [{"role": "user", "content": "s"}, {"role": "tool", "content": "long report"}], "z"),
    )
    assert parents(run)["c"] == ("a",)


def test_a_call_that_ran_while_its_quote_was_made_does_not_wait_for_it(tmp_path):
    quoting = [{"role": "user", "content": "s"}, {"role": "assistant", "content": "same"}]
    (run,) = read(tmp_path, span("a", 0, 5, "q", "same"), span("b", 3, 6, quoting, "z"))
    assert parents(run) == {"a": (), "b": ()}


def test_recorded_counts_win_and_failed_spans_are_left_out(tmp_path):
    notes: list[str] = []
    (run,) = read(
        tmp_path,
        span("a", 0, 1, "q" * 40, "x" * 9, **{"gen_ai.usage.prompt_tokens": 7}),
        span("b", 2, 3, "q", ""),
        span("c", 2, 3, "q", "x", **{"gen_ai.operation.name": "execute_tool"}),
        on_note=notes.append,
    )
    assert [(stage.id, stage.prompt_tokens, stage.output_tokens) for stage in run.stages] == [("a", 7, 3)]
    assert notes == [
        "estimated the token counts of 1 spans from their text, 4 characters a token",
        "skipped 1 LLM spans without token counts and text (failed, or not recorded)",
    ]


def test_older_attribute_conventions(tmp_path):
    indexed = span("a", 0, 1)
    indexed["attributes"] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": "x" * 20,
        "gen_ai.completion.0.content": "y" * 8,
    }
    (run,) = read(tmp_path, indexed)
    assert (run.stages[0].prompt_tokens, run.stages[0].output_tokens) == (5, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_time": "noon"}, r"spans\[1\]: start_time is 'noon', expected a time like"),
        ({"end_time": None}, r"spans\[1\]: end_time is None"),
        ({"start_time": "2027-01-01T00:00:00"}, r"spans\[1\]: ends before it starts"),
        ({"startTimeUnixNano": "-5"}, r"startTimeUnixNano is '-5', expected nanoseconds"),
        ({"span_id": ""}, r"span_id is '', expected a string that is not empty"),
        ({"span_id": "a"}, r"trace 't': workflow 't': two stages are named 'a'"),
        ({"trace_id": 7}, r"trace_id is 7"),
        ({"attributes": [{"key": 3}]}, r"key is 3"),
        ({"attributes": {"gen_ai.usage.input_tokens": -3}}, r"gen_ai\.usage\.input_tokens is -3"),
    ],
)
def test_refusals_name_the_span(tmp_path, change, message):
    with pytest.raises(TraceError, match=r"trace\.json: .*" + message):
        read(tmp_path, span("a", 0, 1, "q", "x"), span("b", 0, 1, "q", "x") | change)
