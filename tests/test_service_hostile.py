"""Hostile bodies, headers and API calls: the service never fails inside, and serves on."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from mock_server import MockServer
from running_service import Setup, running, wait_until
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from hexopt.service.prompts import prompt_of

pytestmark = [pytest.mark.xdist_group("servers"), pytest.mark.slow]

_numbers = itertools.count()


class Echo(MockServer):
    """Answers whatever it is asked, so that each 200 is a relay and each error the gateway's own."""

    async def _answer(self, table: dict[str, Any], send: Any, name: str) -> bool:
        if self.fault:
            text = json.dumps({"error": {"message": f"top_k is {table['top_k']!r}"}}).encode()
            head = [(b"content-length", str(len(text)).encode())]
            await send({"type": "http.response.start", "status": int(self.fault), "headers": head})
            await send({"type": "http.response.body", "body": text})
            return False
        text = json.dumps({"object": "echo", "usage": {"prompt_tokens": "many", "completion_tokens": -1}})
        stream = table.get("stream") is True
        body = f"data: {text}\n\ndata: [DONE]\n\n" if stream else text
        kind = b"text/event-stream" if stream else b"application/json"
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})
        return True


@pytest.fixture(scope="module")
def setup() -> Iterator[Setup]:
    with running(mock=Echo, max_body=2_000_000) as found:
        yield found


@pytest.fixture
def faults(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The service logs no fault of its own."""
    with caplog.at_level(logging.ERROR):
        yield
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def post(setup: Setup, path: str, body: bytes, headers: list[tuple[str, bytes]] = ()) -> tuple[int, Any, str]:  # type: ignore[assignment]
    """Status, body and id of one request; its bytes go out as they are."""
    name = f"hostile-{next(_numbers)}"
    connection = http.client.HTTPConnection("127.0.0.1", setup.gateway.port, timeout=20.0)
    try:
        connection.putrequest("POST", path)
        connection.putheader("content-length", str(len(body)))
        connection.putheader("x-request-id", name)
        for key, value in headers:
            connection.putheader(key, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read(), name
    finally:
        connection.close()


def judge(setup: Setup, status: int, answer: bytes, name: str, body: bytes) -> None:
    """A refusal in OpenAI's form that no server saw, or a relay of exactly what was sent, once."""
    seen = [row["body"] for row in setup.seen if row["headers"].get("x-request-id") == name]
    if status == 200:
        assert len(seen) == 1
        sent = json.loads(body.decode())
        assert isinstance(seen[0].pop("priority"), int)
        sent.pop("priority", None)
        assert seen[0] == sent
        return
    assert 400 <= status < 500, (status, answer, body[:200])
    assert seen == []
    error = json.loads(answer)["error"]
    assert error["code"] == status and error["message"] and error["type"]
    assert len(error["message"]) < 500


def attack(setup: Setup, path: str, body: bytes, headers: list[tuple[str, bytes]] = ()) -> int:  # type: ignore[assignment]
    """Send and judge; the status."""
    status, answer, name = post(setup, path, body, headers)
    judge(setup, status, answer, name, body)
    for mock in setup.mocks:
        mock.seen.clear()
    return status


def serves_on(setup: Setup) -> None:
    """Nothing hangs on the board, and a plain call is answered."""
    wait_until(lambda: setup.state()["running"] == setup.state()["waiting"] == 0)
    assert setup.complete().status_code == 200
    wait_until(lambda: not any(w.own for w in setup.service.workflows.all()))
    for mock in setup.mocks:
        mock.seen.clear()


PATHS = ("/v1/completions", "/v1/chat/completions")
PLAIN = {PATHS[0]: '"prompt":"x"', PATHS[1]: '"messages":[{"role":"user","content":"x"}]'}
FIELDS = (
    "messages", "prompt", "max_tokens", "max_completion_tokens", "stream", "stream_options", "n", "priority", "model",
    "tools", "nvext", "program_id", "prompt_cache_key", "user",
)  # fmt: skip
VALUES = (
    "null", "true", "false", "0", "-1", "-0.0", "1.5", "1e308", "1e400", "-1e400", "9223372036854775808",
    "18446744073709551616", "9" * 400, "NaN", "Infinity", '""', '"x"', '"\\u0000"', '"\\ud800"', '"\\udc00x"',
    '"' + "ü" * 300 + '"', '"' + "y" * 100_000 + '"', "[]", "{}", "[[]]", "[{}]", "[null]", "[1,{}]", "[[1],[2]]",
    '["a",1]', "[" + ",".join(["1"] * 300) + ",{}]", "[" + "1,[]," * 300 + "2]", '[{"role":[],"content":{}}]',
    '[{"role":"user","content":[{"text":1},{"text":"x"},7]}]', '[{"content":null,"tool_calls":[[[]]]}]',
    '{"agent_hints":{"osl":1e9,"priority":"x"}}', '{"agent_hints":[]}',
    *("[" * depth + "]" * depth for depth in (100, 900, 10_000)),
    *('{"a":' * depth + "1" + "}" * depth for depth in (100, 900, 10_000)),
    '[{"role":"user","tool_calls":' + "[" * 900 + "]" * 900 + "}]",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("field", FIELDS)
def test_every_field_may_hold_anything(setup: Setup, faults: None, path: str, field: str) -> None:
    statuses = []
    for value in VALUES:
        body = f'{{"model":"m",{PLAIN[path]},"{field}":{value}}}'
        statuses.append(attack(setup, path, body.encode()))
    assert 400 in statuses  # NaN, at the least
    serves_on(setup)


def test_prompts_nested_deeper_than_python_prints_have_a_length() -> None:
    nested = orjson.loads("[" * 1020 + "]" * 1020)
    for body in ({"tools": nested, "messages": []}, {"prompt": {"a": nested}}, {"messages": [{"tool_calls": nested}]}):
        assert prompt_of(body).chunks == ()


BODIES = (
    b'{"prompt":"x"} ',
    b'\t\r\n {"prompt":"x"}\n\n\t ',
    b'{"prompt":"}"}',
    b'{"prompt":"}","a":{}}',
    b'{"prompt":"x","a":{"b":"}"}  }   ',
    b'{"prompt":"x","priority":1,"priority":2}',
    b'{"priority":{"a":"}"},"priority":null,"prompt":"x"}',
    b'{"prompt":"x","prio\\u0072ity":-5}',
    b'{"prompt":"x","prompt":["y"]}',
    b'{"stream":true,"prompt":"x","stream":false}',
    b'{"prompt":"x"}}',
    b'{"prompt":"x"}{"prompt":"y"}',
    b'{"prompt":"x"},"priority":1}',
    b'{"prompt":"x"} // }',
    b'{"prompt":"x",}',
    b'{"prompt":"x"}\x00',
    b'\xef\xbb\xbf{"prompt":"x"}',
    b'{"prompt":"\xff\xfe"}',
    b'{"prompt":"\xed\xa0\x80"}',
    '{"prompt":"x"}'.encode("utf-16"),
    b"{'prompt':'x'}",
    b'{"prompt":x}',
    b"{}",
    b"{ }",
    b"}",
    b"[{}]",
    b'"{}"',
    b"0",
    b"\x00" * 100,
    b"[" * 10_000 + b"]" * 10_000,
    b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    b'{"prompt":"' + b"x" * 1_900_000 + b'"}',
    b'{"prompt":"' + b"x" * 2_100_000 + b'"}',
)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:24]))
def test_no_body_confuses_the_splice_of_the_priority(setup: Setup, faults: None, body: bytes) -> None:
    attack(setup, PATHS[0], body)
    serves_on(setup)


HEADERS: tuple[tuple[str, bytes], ...] = (
    *((name, value) for name in ("x-hexopt-workflow", "x-hexopt-stage", "x-hexopt-kind", "x-hexopt-parents",
       "x-hexopt-deadline", "x-hexopt-weight", "x-hexopt-output-tokens", "x-hexopt-tenant", "x-hexopt-final",
       "x-dynamo-session-id", "x-llm-d-slo-ttft-ms", "traceparent", "tracestate")
      for value in (b"\xff\xfe", b"x" * 10_000, b"1e400", b"-1", b"nan", b"0x10", b"\xc3\xbc", b"\xe2\x80\xae", b",,",
                    b"9" * 300, b"1" * 13, b"\t1\t", b"a\tb", b'"}', b"\xed\xa0\x80")),
    ("content-type", b"text/plain"),
    ("content-type", b"multipart/form-data; boundary=x"),
    ("content-type", b"\xff"),
    ("content-encoding", b"gzip"),
    ("accept-encoding", b"br;q=\xff"),
    ("authorization", b"Bearer \xff\xfe"),
    ("authorization", b"Bearer " + b"x" * 10_000),
    ("cookie", b"x" * 10_000),
    ("connection", b"close, upgrade"),
    ("x-unknown", b"\xff" * 10_000),
    ("host", b"\xff"),
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_any_header_is_refused_or_passed_over(setup: Setup, faults: None, path: str) -> None:
    statuses = {attack(setup, path, f"{{{PLAIN[path]}}}".encode(), [header]) for header in HEADERS}
    assert statuses == {200, 400}
    named = [w.id for w in setup.service.workflows.all()]
    for name in named:
        setup.http.request("DELETE", "/v1/workflows/" + httpx.URL("").copy_with(path="/" + name).raw_path[1:].decode())
    serves_on(setup)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner, max_size=5),
    max_leaves=20,
)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.sampled_from(PATHS),
    st.dictionaries(st.sampled_from(FIELDS), json_values, min_size=1),
    st.lists(st.tuples(st.sampled_from([name for name, _ in HEADERS[:195]]), st.binary(max_size=30)), max_size=3),
)
def test_random_calls(
    setup: Setup, faults: None, path: str, table: dict[str, Any], headers: list[tuple[str, bytes]]
) -> None:
    safe = [(name, bytes(b for b in value if b >= 32 and b != 127)) for name, value in headers]
    attack(setup, path, json.dumps(table).encode(), safe)


def test_after_random_calls_it_serves(setup: Setup) -> None:
    for workflow in setup.service.workflows.all():
        setup.gateway.call(lambda w=workflow: setup.service.workflows.end(w, "test"))
    serves_on(setup)


@pytest.fixture
def fault(setup: Setup) -> Iterator[Any]:
    """Sets what all servers answer."""

    def every(status: str) -> None:
        for mock in setup.mocks:
            mock.fault = status

    yield every
    every("")
    serves_on(setup)


def test_a_call_that_all_servers_fail_at_brings_none_down(setup: Setup, faults: None, fault: Any) -> None:
    fault("500")
    for _ in range(9):
        assert setup.complete(top_k="poison").status_code == 500
    assert [s.state.value for s in setup.service.dispatcher.servers] == ["up", "up"]


def test_a_clients_words_in_an_error_switch_no_priorities_off(setup: Setup, faults: None, fault: Any) -> None:
    fault("400")
    for _ in range(3):
        answer = setup.complete(top_k="Priority scheduling is not enabled")
        assert answer.status_code == 400 and "Priority" in answer.json()["error"]["message"]
    assert [s.takes_priority for s in setup.service.dispatcher.servers] == [True, True]


RAW = (
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n{}",
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}    ",
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n{}    ",
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-hexopt-workflow: a\x00b\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /v1/completions HTTP/9.9\r\n\r\n",
    b"GARBAGE\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n" + b"x: " + b"y" * 200_000,
    b"GET /v1/completions HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /v1/completions?a=%ff%00 HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}",
    b"GET /v1/workflows/%ed%a0%80%00%ff HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /v1/decisions/%ed%a0%80%00%ff HTTP/1.1\r\nhost: x\r\n\r\n",
)


@pytest.mark.parametrize("raw", RAW, ids=lambda raw: repr(raw[:60]))
def test_broken_http_ends_in_a_refusal(setup: Setup, faults: None, raw: bytes) -> None:
    async def send() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", setup.gateway.port)
        writer.write(raw)
        with contextlib.suppress(TimeoutError, ConnectionError):
            found = await asyncio.wait_for(reader.read(100_000), 1.0)
            writer.close()
            return found
        writer.close()
        return b""

    answer = asyncio.run(send())
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert setup.seen == []
    serves_on(setup)


def test_a_body_may_come_in_chunks_of_any_size(setup: Setup, faults: None) -> None:
    body = json.dumps({"prompt": "}ü" * 500, "a": {}}).encode()

    def parts() -> Iterator[bytes]:
        for k in range(0, len(body), 7):
            yield body[k : k + 7]

    answer = setup.http.post(PATHS[0], content=parts())
    assert answer.status_code == 200
    assert setup.seen[-1]["body"]["prompt"] == "}ü" * 500

    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b"[" * 100_000

    answer = setup.http.post(PATHS[0], content=endless())
    assert answer.status_code == 413
    serves_on(setup)


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_the_api_keeps_to_its_document(setup: Setup, faults: None, mode: schemathesis.GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(setup.url + "/openapi.json")
    found = [result.ok() for result in schema.get_all_operations()]
    assert len(found) > 20
    for operation in found:
        if (operation.method, operation.path) == ("delete", "/v1/instances/{name}"):
            continue

        @settings(max_examples=6, deadline=None, derandomize=True, database=None,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(operation.as_strategy(generation_mode=mode))
        def probe(case: schemathesis.Case) -> None:
            _probe(setup, case)

        with contextlib.suppress(Unsatisfiable):  # nothing negative can be said where there are no parameters
            probe()


def _probe(setup: Setup, case: schemathesis.Case) -> None:
    body = case.body
    if case.path == "/v1/instances" and isinstance(body, dict) and "url" in body:
        # No strangers are asked for their health.
        body["url"] = setup.servers[0].url
    if case.path == "/v1/solve" and isinstance(body, dict) and isinstance(body.get("time_limit"), float):
        body["time_limit"] = min(body["time_limit"], 0.05)
    response = case.call()
    if case.path == "/v1/instances" and response.status_code == 201:
        setup.gateway.call(lambda: setup.service.remove(setup.service.server(body["name"])))
    case.validate_response(response, checks=CHECKS)


def test_after_the_api_was_fuzzed_it_serves(setup: Setup) -> None:
    for server in setup.service.dispatcher.servers:
        setup.http.post(f"/v1/instances/{server.name}/resume")
    setup.http.put("/v1/policy", json={"policy": "rolling-horizon", "shadow": ""})
    wait_until(lambda: len(setup.http.get("/readyz").json()["up"]) == 2)
    time.sleep(0.1)
    serves_on(setup)
