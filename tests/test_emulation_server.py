"""The emulated servers over sockets, as OpenAI's client and as a plain one see them."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from random_workload import small_cluster

from hexopt.emulation import tokens
from hexopt.emulation.fleet import Fleet, PortError, Settings

MODEL = "llama-3.1-8b"


@pytest.fixture(scope="module")
def urls() -> Iterator[tuple[str, ...]]:
    with Fleet(small_cluster(max_model_len=2000), Settings(speed_up=200.0)).running() as where:
        yield where


@pytest.fixture
def client(urls) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{urls[1]}/v1", api_key="none", max_retries=0) as made:
        yield made


def fetch(url: str, body: Any = None, **headers: str) -> tuple[int, str]:
    """GET, or POST of a JSON body: status and text."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metric(url: str, name: str, labels: str = "") -> float:
    for line in fetch(f"{url}/metrics")[1].splitlines():
        if line.startswith(f"vllm:{name}{{") and labels in line:
            return float(line.split()[-1])
    raise AssertionError(f"no metric {name}")


def test_completions(client):
    answer = client.completions.create(
        model=MODEL, prompt="Once upon a time", max_tokens=20, extra_body={"ignore_eos": True}
    )
    choice = answer.choices[0]
    assert choice.text == tokens.answer(b"Once upon a time", 20) and choice.finish_reason == "length"
    assert answer.usage is not None and answer.object == "text_completion" and answer.model == MODEL
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (4, 20, 24)


def test_several_prompts_have_a_choice_each(client):
    more = {"emulated_output_tokens": 6}
    answer = client.completions.create(model=MODEL, prompt=["One", "Another"], max_tokens=9, extra_body=more)
    assert [choice.text for choice in answer.choices] == [tokens.answer(b"One", 6), tokens.answer(b"Another", 6)]
    assert [choice.index for choice in answer.choices] == [0, 1] and answer.usage.completion_tokens == 12


def test_chats_and_their_cache(client):
    messages: Any = [{"role": "user", "content": "Tell me a story. " * 20}]
    more = {"emulated_output_tokens": 100}
    first = client.chat.completions.create(model=MODEL, messages=messages, max_completion_tokens=200, extra_body=more)
    assert first.choices[0].finish_reason == "stop" and first.usage.completion_tokens == 100
    messages += [first.choices[0].message.model_dump(include={"role", "content"}), {"role": "user", "content": "Go on"}]
    then = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=5)
    # All blocks of the first turn but that of the last token, which was never computed.
    turn = first.usage.total_tokens
    assert then.usage.prompt_tokens_details.cached_tokens == (turn - 1) // 16 * 16 > 100


def test_streams(client):
    more = {"ignore_eos": True}
    options: Any = {"include_usage": True}
    parts = list(
        client.completions.create(
            model=MODEL, prompt="Stream", max_tokens=30, stream=True, stream_options=options, extra_body=more
        )
    )
    texts = [part.choices[0].text for part in parts if part.choices]
    assert len(texts) == 30 and "".join(texts) == tokens.answer(b"Stream", 30)
    assert [part.choices[0].finish_reason for part in parts[:-1]] == [None] * 29 + ["length"]
    assert parts[-1].choices == [] and parts[-1].usage.completion_tokens == 30


def test_streamed_chats(client):
    messages: Any = [{"role": "user", "content": "Hi"}]
    parts = list(client.chat.completions.create(model=MODEL, messages=messages, max_tokens=7, stream=True,
                                                extra_body={"ignore_eos": True}))  # fmt: skip
    assert parts[0].choices[0].delta.role == "assistant" and len(parts) == 8
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == tokens.answer(tokens.from_messages(messages), 7)


def test_errors_in_openais_form(client, urls):
    with pytest.raises(openai.NotFoundError, match="`other` does not exist"):
        client.completions.create(model="other", prompt="x")
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=MODEL, prompt="x", max_tokens=5000)
    assert refused.value.param == "max_tokens" and refused.value.type == "BadRequestError"
    assert fetch(f"{urls[0]}/v1/completions", [1])[0] == 400
    assert fetch(f"{urls[0]}/nowhere")[0] == 404 and fetch(f"{urls[0]}/v1/completions")[0] == 405
    request = urllib.request.Request(f"{urls[0]}/v1/completions", b"{", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=20)


def test_small_endpoints(urls):
    status, text = fetch(f"{urls[1]}/v1/models")
    assert status == 200 and json.loads(text)["data"][0]["id"] == MODEL
    # Each port is a server of its own: the first one's context is shorter.
    lengths = [json.loads(fetch(f"{url}/v1/models")[1])["data"][0]["max_model_len"] for url in urls]
    assert lengths == [450, 2000, 2000, 2000]
    assert fetch(f"{urls[0]}/health") == (200, "") == fetch(f"{urls[0]}/ping")
    assert "emulated" in json.loads(fetch(f"{urls[0]}/version")[1])["version"]
    ids = json.loads(fetch(f"{urls[0]}/tokenize", {"prompt": "Hello, you"})[1])
    assert ids["count"] == 3 and tokens.from_ids(ids["tokens"]) == b"Hello, you\0\0"


def test_the_header_sets_the_length(urls):
    body = {"model": MODEL, "prompt": "x", "max_tokens": 50}
    text = fetch(f"{urls[0]}/v1/completions", body, **{"x-emulated-output-tokens": "23"})[1]
    assert json.loads(text)["usage"]["completion_tokens"] == 23


def test_metrics_are_valid_and_count(urls):
    url = urls[2]
    before = {name: metric(url, name) for name in ("prompt_tokens_total", "generation_tokens_total")}
    body = {"model": MODEL, "prompt": "word" * 100, "max_tokens": 40, "ignore_eos": True}
    for _ in range(3):
        assert fetch(f"{url}/v1/completions", body)[0] == 200
    assert metric(url, "prompt_tokens_total") - before["prompt_tokens_total"] == 300
    assert metric(url, "generation_tokens_total") - before["generation_tokens_total"] == 120
    assert metric(url, "prefix_cache_hits_total") == 2 * 96 and metric(url, "prefix_cache_queries_total") == 300
    assert metric(url, "request_success_total", 'finished_reason="length"') == 3
    assert metric(url, "num_requests_running") == metric(url, "num_requests_waiting") == 0
    assert (
        metric(url, "time_to_first_token_seconds_count")
        == 3
        == metric(url, "e2e_request_latency_seconds_bucket", "+Inf")
    )
    assert metric(url, "inter_token_latency_seconds_count") == 117
    assert metric(url, "iteration_tokens_total_count") == 120
    parser = pytest.importorskip("prometheus_client.parser")
    families = {family.name: family for family in parser.text_string_to_metric_families(fetch(f"{url}/metrics")[1])}
    assert families["vllm:e2e_request_latency_seconds"].type == "histogram"
    for family in families.values():
        assert all(re.fullmatch(r"vllm:\w+", sample.name) for sample in family.samples)
    labels = families["vllm:num_requests_running"].samples[0].labels
    assert labels == {"engine": "0", "model_name": MODEL}


def test_lower_priorities_go_first_and_the_client_may_leave():
    """Six seats are taken by streams; one client leaves, and those that wait follow one another on its seat."""
    with Fleet(small_cluster(), Settings(speed_up=2.0)).running() as where:
        url = where[1]
        order: list[int] = []

        def ask(priority: int) -> None:
            body = {"prompt": f"{priority}", "max_tokens": 20, "ignore_eos": True, "priority": priority}
            assert fetch(f"{url}/v1/completions", body)[0] == 200
            order.append(priority)

        body = {"max_tokens": 390, "ignore_eos": True, "stream": True}
        bodies = [json.dumps(body | {"prompt": f"b{k}"}).encode() for k in range(6)]
        streams = [urllib.request.urlopen(f"{url}/v1/completions", body, timeout=20) for body in bodies]
        waiting = [threading.Thread(target=ask, args=(priority,)) for priority in (5, 3, -2, 4)]
        for thread in waiting:
            thread.start()
        while metric(url, "num_requests_waiting") < 4:
            time.sleep(0.002)
        assert metric(url, "num_requests_running") == 6 and metric(url, "kv_cache_usage_perc") > 0
        streams.pop().close()
        for thread in waiting:
            thread.join()
        assert order == [-2, 3, 4, 5]
        for stream in streams:
            stream.close()
        while metric(url, "num_requests_running") > 0:
            time.sleep(0.002)
        assert metric(url, "request_success_total", 'finished_reason="abort"') >= 1


def test_faults(urls):
    url = urls[3]
    body = {"model": MODEL, "prompt": "x", "max_tokens": 9, "ignore_eos": True}

    def fault(kind: str) -> int:
        return fetch(f"{url}/emulator/fault", {"kind": kind})[0]

    assert fault("error500") == 200
    assert fetch(f"{url}/v1/completions", body)[0] == 500 == fetch(f"{url}/health")[0]
    assert fault("break_stream") == 200
    for stream in (True, False):
        data = json.dumps(body | {"stream": stream}).encode()
        with urllib.request.urlopen(f"{url}/v1/completions", data, timeout=20) as response:
            assert response.status == 200
            with pytest.raises((ConnectionError, http.client.IncompleteRead)):
                response.read()
    assert fault("hang") == 200
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(fetch(f"{url}/v1/completions", body)[0]))
    thread.start()
    assert fetch(f"{url}/health")[0] == 200
    thread.join(0.2)
    assert thread.is_alive() and not answers
    assert fault("none") == 200
    thread.join()
    assert answers == [200]
    assert fault("fire") == 400


def test_a_taken_port_is_refused():
    cluster = small_cluster()
    taken = Fleet(cluster, Settings())
    port = int(taken.urls[0].rsplit(":", 1)[1])
    with pytest.raises(PortError, match=f"127.0.0.1:{port} cannot be listened at"), taken.running():
        Fleet(cluster, Settings(), port=port)
    with pytest.raises(PortError, match="port is 70000, expected 0 to 65535"):
        Fleet(cluster, Settings(), port=70000)
