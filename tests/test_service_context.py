"""Every header and field, who wins over whom, and what is refused."""

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hexopt.service.context import FIELDS, HEADERS, CallContext, ContextError, read_context

PAGE = Path(__file__).resolve().parent.parent / "docs" / "gateway.md"
PLAIN = CallContext()
ORDINARY = [
    (b"host", b"localhost:8000"), (b"accept", b"application/json"), (b"accept-encoding", b"gzip, deflate"),
    (b"content-type", b"application/json"), (b"content-length", b"100"), (b"authorization", b"Bearer x"),
    (b"user-agent", b"OpenAI/Python 1.50"), (b"x-stainless-lang", b"python"), (b"x-request-id", b"5"),
]  # fmt: skip


def read(body=None, **headers):
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return read_context([*ORDINARY, *sent], {"model": "m", **(body or {})})


def test_a_call_without_special_headers_is_a_workflow_of_its_own():
    assert read() == PLAIN
    assert dataclasses.astuple(PLAIN) == (None, None, "call", (), None, 1.0, "", None, None, False, None, False)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x_hexopt_workflow": "w1"}, {"workflow": "w1"}),
        ({"x_hexopt_stage": "s1"}, {"stage": "s1"}),
        ({"x_hexopt_kind": "revise"}, {"kind": "revise"}),
        ({"x_hexopt_workflow": "w", "x_hexopt_parents": "a, b,a"}, {"workflow": "w", "parents": ("a", "b")}),
        ({"x_hexopt_deadline": "2.5e1"}, {"deadline": 25.0}),
        ({"x_hexopt_weight": ".5"}, {"weight": 0.5}),
        ({"x_hexopt_tenant": "müller"}, {"tenant": "müller"}),
        ({"x_hexopt_output_tokens": "120"}, {"expected_output": 120}),
        ({"x_hexopt_prefix": "schema-7"}, {"prefix": "schema-7"}),
        ({"x_hexopt_final": "TRUE"}, {"final": True}),
        ({"x_hexopt_final": "0"}, {}),
        ({"x_hexopt_route_only": "1"}, {"route_only": True}),
        ({"x_hexopt_deadline": "", "x_hexopt_parents": " ", "x_hexopt_stage": ""}, {}),
        ({"x_claude_code_session_id": "c"}, {"workflow": "c", "prefix": "c"}),
        (
            {"x_claude_code_session_id": "c", "x_claude_code_agent_id": "a", "x_claude_code_parent_agent_id": "p"},
            {"workflow": "c", "prefix": "a"},
        ),
        ({"session_id": "s"}, {"workflow": "s", "prefix": "s"}),
        ({"session-id": "s", "thread-id": "t"}, {"workflow": "s", "prefix": "t"}),
        ({"thread-id": "t"}, {"workflow": "t", "prefix": "t"}),
        ({"thread-id": "t", "x-codex-parent-thread-id": "p"}, {"workflow": "p", "prefix": "t"}),
        ({"x_session_affinity": "o"}, {"workflow": "o", "prefix": "o"}),
        ({"x_session_id": "o", "x_parent_session_id": "p"}, {"workflow": "p", "prefix": "o"}),
        ({"x_dynamo_session_id": "d"}, {"workflow": "d", "prefix": "d"}),
        (
            {"x_dynamo_session_id": "d", "x_dynamo_session_final": "true"},
            {"workflow": "d", "prefix": "d", "final": True},
        ),
        (
            {"x_dynamo_session_id": "d", "x_dynamo_parent_session_id": "p", "x_dynamo_session_final": "true"},
            {"workflow": "p", "prefix": "d"},
        ),
        ({"x_smg_routing_key": "k"}, {"workflow": "k", "prefix": "k"}),
        ({"x_aibrix_session_key": "k"}, {"workflow": "k", "prefix": "k"}),
        ({"x_llm_d_inference_fairness_id": "f"}, {"tenant": "f"}),
        ({"x_gateway_inference_fairness_id": "f"}, {"tenant": "f"}),
        (
            {"x_llm_d_slo_ttft_ms": "500", "x_llm_d_slo_tpot_ms": "50", "x_hexopt_output_tokens": "101"},
            {"deadline": 5.5, "expected_output": 101},
        ),
        ({"x_llm_d_slo_ttft_ms": "500", "x_hexopt_output_tokens": "101"}, {"expected_output": 101}),
        ({"x_llm_d_slo_ttft_ms": "500", "x_llm_d_slo_tpot_ms": "50"}, {}),
    ],
)  # fmt: skip
def test_headers(headers, expected):
    underscored = [(b"session_id", headers["session_id"].encode())] if "session_id" in headers else []
    rest = {name: value for name, value in headers.items() if name != "session_id"}
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in rest.items()]
    assert read_context([*ORDINARY, *sent, *underscored], {}) == dataclasses.replace(PLAIN, **expected)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"program_id": "p"}, {"workflow": "p", "prefix": "p"}),
        ({"prompt_cache_key": "k"}, {"prefix": "k"}),
        ({"priority": -3}, {"priority": -3}),
        ({"nvext": {"agent_hints": {"osl": 77, "priority": 5}}}, {"expected_output": 77, "priority": -5}),
        ({"nvext": {"agent_hints": None}, "program_id": None, "priority": None, "prompt_cache_key": ""}, {}),
        ({"nvext": {}}, {}),
        ({"priority": 1, "nvext": {"agent_hints": {"priority": 5}}}, {"priority": 1}),
    ],
)
def test_fields_of_the_body(body, expected):
    assert read(body) == dataclasses.replace(PLAIN, **expected)


ORDER = [
    "x-hexopt-workflow", "x-dynamo-session-id", "x-claude-code-session-id", "session-id", "session_id", "thread-id",
    "x-session-id", "x-session-affinity", "x-smg-routing-key", "x-aibrix-session-key",
]  # fmt: skip


def test_identities_come_in_a_fixed_order_whatever_the_order_of_the_headers():
    for first in range(len(ORDER)):
        sent = [(name.encode(), name.encode()) for name in ORDER[first:]]
        for headers in (sent, sent[::-1]):
            assert read_context(headers, {"program_id": "body"}).workflow == ORDER[first]


def test_own_headers_win_over_all_others():
    context = read(
        {"program_id": "p", "prompt_cache_key": "k", "nvext": {"agent_hints": {"osl": 9}}},
        x_hexopt_workflow="w", x_hexopt_prefix="x", x_hexopt_tenant="t", x_hexopt_output_tokens="5",
        x_hexopt_deadline="3", x_hexopt_final="false", x_dynamo_session_id="d", x_dynamo_session_final="true",
        x_llm_d_inference_fairness_id="f", x_llm_d_slo_ttft_ms="1", x_llm_d_slo_tpot_ms="1",
    )  # fmt: skip
    assert context == CallContext(
        workflow="w", tenant="t", prefix="x", expected_output=5, deadline=3.0, final=False
    )  # fmt: skip


def test_a_cache_key_wins_over_the_session_and_a_session_still_hints_under_an_own_workflow():
    assert read({"prompt_cache_key": "k"}, x_session_id="s").prefix == "k"
    assert read(x_session_id="s", x_hexopt_workflow="w") == dataclasses.replace(PLAIN, workflow="w", prefix="s")


def test_a_workflow_takes_no_deadline_from_the_pace_of_one_call():
    slo = {"x_llm_d_slo_ttft_ms": "500", "x_llm_d_slo_tpot_ms": "50", "x_hexopt_output_tokens": "101"}
    assert read(**slo, x_hexopt_workflow="w").deadline is None


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "0", "0.0", "1e400", "1_0", "٣", "x", "0x10", "1e-400"])
@pytest.mark.parametrize("name", ["x-hexopt-deadline", "x-hexopt-weight", "x-llm-d-slo-ttft-ms"])
def test_numbers_that_are_none_are_refused_by_name(name, value):
    with pytest.raises(ContextError, match=rf"^{name} is .*, expected .*> 0 \(at most"):
        read_context([(name.encode(), value.encode())], {})


@pytest.mark.parametrize("value", ["1.5", "0", "-4", "nan", "99999999999", "1" * 5000, "+5"])
def test_token_counts_are_whole_numbers(value):
    with pytest.raises(ContextError, match=r"x-hexopt-output-tokens is .* expected a whole number of 1 to"):
        read_context([(b"x-hexopt-output-tokens", value.encode())], {})


@pytest.mark.parametrize("name", sorted(HEADERS))
@pytest.mark.parametrize("value", [b"\xff\xfe", b"a\x00b", b"x" * 10_000])
def test_hostile_values_are_refused_by_name_in_one_short_line(name, value):
    headers = [(b"x-hexopt-workflow", b"w")] if name == b"x-hexopt-parents" else []
    if name == b"x-claude-code-agent-id":
        headers.append((b"x-claude-code-session-id", b"c"))
    with pytest.raises(ContextError) as error:
        read_context([*headers, (name, value)], {})
    message = str(error.value)
    assert message.startswith(name.decode())
    assert message.isprintable() and len(message) < 200


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([("x-hexopt-workflow", "a"), ("x-hexopt-workflow", "b")], "x-hexopt-workflow was sent twice"),
        ([("session-id", "a"), ("session-id", "b")], "session-id was sent twice"),
        ([("x-hexopt-final", "yes")], "x-hexopt-final is 'yes', expected true, false, 1 or 0"),
        ([("x-hexopt-route-only", "2")], "x-hexopt-route-only is '2'"),
        ([("x-hexopt-stage", "a,b")], "x-hexopt-stage is 'a,b', expected no comma"),
        ([("x-hexopt-parents", "a")], "x-hexopt-parents was sent without a workflow"),
        ([("x-hexopt-workflow", "w"), ("x-hexopt-parents", "a,,b")], "x-hexopt-parents holds an empty id"),
        (
            [("x-hexopt-workflow", "w"), ("x-hexopt-parents", "a,b"), ("x-hexopt-stage", "b")],
            "x-hexopt-parents names 'b', which is this call's own",
        ),
        ([("x-hexopt-workflow", "w"), ("x-hexopt-parents", ",".join("abcde" * 100))], "more than 256 stages"),
        ([("x-hexopt-workflow", "w" * 257)], "x-hexopt-workflow has 257 characters, expected at most 256"),
    ],
)
def test_contradictions_are_refused(headers, message):
    with pytest.raises(ContextError, match=re.escape(message)):
        read_context([(name.encode(), value.encode()) for name, value in headers], {})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"program_id": 5}, "program_id is 5, expected a string"),
        ({"program_id": "a\ud800"}, "program_id is 'a\\ud800', expected printable"),
        ({"prompt_cache_key": ["a"]}, "prompt_cache_key is a list, expected a string"),
        ({"priority": True}, "priority is true, expected a whole number"),
        ({"priority": 1.5}, "priority is 1.5, expected a whole number"),
        ({"priority": 10**5000}, "priority is a number out of range"),
        ({"nvext": []}, "nvext is a list, expected an object"),
        ({"nvext": {"agent_hints": "x"}}, "nvext.agent_hints is 'x', expected an object"),
        ({"nvext": {"agent_hints": {"osl": 0}}}, "nvext.agent_hints.osl is 0, expected a whole number of 1 to"),
        ({"nvext": {"agent_hints": {"osl": math.nan}}}, "nvext.agent_hints.osl is nan"),
        ({"nvext": {"agent_hints": {"priority": {}}}}, "nvext.agent_hints.priority is an object"),
    ],
)
def test_fields_that_are_wrong_are_refused_by_name(body, message):
    with pytest.raises(ContextError, match=re.escape(message)):
        read(body)


def test_the_same_value_twice_is_once_and_parents_add_up():
    same = [(b"x-hexopt-workflow", b"w"), (b"x-hexopt-workflow", b"w ")]
    assert read_context(same, {}).workflow == "w"
    parents = [(b"x-hexopt-parents", b"a"), (b"x-hexopt-parents", b"b,c")]
    assert read_context([*same, *parents], {}).parents == ("a", "b", "c")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
hints = st.fixed_dictionaries({}, optional={"agent_hints": st.fixed_dictionaries(
    {}, optional={"osl": json_values, "priority": json_values}) | json_values})  # fmt: skip
bodies = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, json_values) | {"nvext": hints | json_values})
telling = st.sampled_from([b"true", b"1", b"0.5", b"a", b"a,b", b"nan", b"-1", b"\xc3\xbc", b" "])
header_lists = st.lists(st.tuples(st.sampled_from(sorted(HEADERS)) | st.binary(), st.binary() | telling), max_size=6)


@settings(deadline=None, max_examples=300)
@given(headers=header_lists, body=bodies)
@example(headers=[(b"x-hexopt-deadline", b"." * 10_000)], body={})
def test_anything_gives_a_context_or_a_clear_refusal(headers, body):
    try:
        context = read_context(headers, body)
    except ContextError as error:
        assert str(error).isprintable() and len(str(error)) < 250
        return
    assert isinstance(context, CallContext)
    assert context.weight > 0 and math.isfinite(context.weight)
    assert context.deadline is None or 0 < context.deadline < math.inf
    assert context.expected_output is None or context.expected_output >= 1
    assert not context.parents or context.workflow
    for text in (context.workflow, context.stage, context.kind, context.tenant, context.prefix, *context.parents):
        assert text is None or (text.isprintable() and len(text) <= 256)
    json.dumps(dataclasses.asdict(context), allow_nan=False)


def test_the_page_lists_every_header_and_field():
    page = PAGE.read_text()
    for name in (*(header.decode() for header in HEADERS), *FIELDS):
        assert f"`{name}" in page, name
