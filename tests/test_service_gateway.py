"""The gateway before mock servers, over sockets: what clients get, what servers are asked."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from command_line import spawn
from running_service import Running, Setup, running, wait_until

from hexopt.service.store import Store
from hexopt.traces import read_trace

pytestmark = pytest.mark.xdist_group("servers")


@pytest.fixture(scope="module")
def setup() -> Iterator[Setup]:
    with running() as found:
        yield found


@pytest.fixture(autouse=True)
def healthy(request: pytest.FixtureRequest) -> None:
    """Every test begins with servers that work."""
    if "setup" in request.fixturenames:
        found = request.getfixturevalue("setup")
        for mock in found.mocks:
            mock.fault, mock.delay = "", 0.0
            mock.seen.clear()
        wait_until(lambda: len(found.http.get("/readyz").json()["up"]) == 2)


def test_an_answer_passes_unchanged(setup: Setup) -> None:
    body = {"model": "m", "prompt": "Wörter and\nmore", "max_tokens": 3, "seed": 7}
    answer = setup.http.post("/v1/completions", json=body)
    direct = httpx.post(setup.servers[0].url + "/v1/completions", json=body)
    assert answer.status_code == 200
    assert answer.content == direct.content
    assert answer.headers["x-hexopt-instance"] == "fast"
    assert setup.seen[0]["body"] | {"priority": 0} == body | {"priority": 0}


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_stream_passes_unchanged(setup: Setup, path: str) -> None:
    what = {"prompt": "a"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "a"}]}
    body = {"model": "m", "max_tokens": 20, "stream": True, "stream_options": {"include_usage": True}, **what}
    answer = setup.http.post(path, json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content == httpx.post(setup.servers[0].url + path, json=body).content


def test_the_stock_client_works(setup: Setup) -> None:
    client = openai.OpenAI(base_url=setup.url + "/v1", api_key="none", max_retries=0)
    assert [m.id for m in client.models.list()] == ["m"]
    chat = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], max_tokens=3)
    assert chat.choices[0].message.content == "word word word"
    assert chat.usage is not None and chat.usage.completion_tokens == 3
    parts = client.completions.create(model="m", prompt="hi", max_tokens=4, stream=True)
    assert "".join(part.choices[0].text for part in parts) == "word " * 4
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.completions.create(model="other", prompt="hi")
    with pytest.raises(openai.BadRequestError, match="x-hexopt-deadline"):
        client.completions.create(model="m", prompt="hi", extra_headers={"x-hexopt-deadline": "soon"})


def test_a_workflow_is_known_by_its_header_and_ends_with_its_final_stage(setup: Setup) -> None:
    headers = {"x-hexopt-workflow": "wf/1", "x-hexopt-deadline": "30", "x-hexopt-tenant": "ann"}
    first = setup.complete(headers | {"x-hexopt-stage": "link", "x-hexopt-kind": "schema_linking"})
    assert first.headers["x-hexopt-workflow"] == "wf/1"
    found = setup.http.get("/v1/workflows").json()["workflows"]
    assert [(w["id"], w["tenant"], w["finished"]) for w in found] == [("wf/1", "ann", 1)]
    assert 28.0 < found[0]["remaining_seconds"] < 30.0
    setup.complete(headers | {"x-hexopt-kind": "revise", "x-hexopt-parents": "link", "x-hexopt-final": "true"})
    assert setup.http.get("/v1/workflows").json()["workflows"] == []
    ended = setup.state()["ended"][-1]
    assert (ended["id"], ended["stages"], ended["met"]) == ("wf/1", 2, True)
    assert {"schema_linking", "revise"} <= set(setup.service.dispatcher.kinds)


def test_urgency_is_passed_on_as_priority(setup: Setup) -> None:
    for name, deadline in (("calm", "500"), ("urgent", "5")):
        setup.complete({"x-hexopt-workflow": name, "x-hexopt-deadline": deadline, "x-hexopt-final": "1"}, user=name)
    found = {row["body"]["user"]: row["body"]["priority"] for row in setup.seen}
    assert found["urgent"] < found["calm"] - 400_000


def test_a_clients_own_priority_does_not_jump_the_queue(setup: Setup) -> None:
    setup.complete(priority=-1_000_000_000)
    assert setup.seen[0]["body"]["priority"] > -1_000_000


def test_a_server_without_priorities_is_asked_again_without(setup: Setup) -> None:
    for mock in setup.mocks:
        mock.fault = "no priority"
    try:
        assert setup.complete().status_code == 200
        assert [("priority" in row["body"]) for row in setup.seen] == [True, False]
        assert not any(s.state.value == "down" for s in setup.service.dispatcher.servers)
        assert setup.complete().status_code == 200
        assert "priority" not in setup.seen[-1]["body"]
    finally:
        for server in setup.service.dispatcher.servers:
            server.takes_priority = True


def test_a_failed_call_goes_elsewhere(setup: Setup) -> None:
    setup.mocks[0].fault = "500"
    answer = setup.complete()
    assert answer.status_code == 200
    assert answer.headers["x-hexopt-instance"] == "slow"
    assert [len(mock.seen) for mock in setup.mocks] == [1, 1]


def test_when_all_fail_the_last_ones_words_are_passed_on(setup: Setup) -> None:
    for mock in setup.mocks:
        mock.fault = "500"
    answer = setup.complete()
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "out of order"
    assert 2 <= len(setup.seen) <= 3


def test_a_broken_stream_ends_in_an_error_and_is_not_repeated(setup: Setup) -> None:
    for mock in setup.mocks:
        mock.fault = "break stream"
    client = openai.OpenAI(base_url=setup.url + "/v1", api_key="none", max_retries=0)
    heard = []
    with pytest.raises(openai.APIError, match="was sent, so the call was not repeated"):
        for part in client.completions.create(model="m", prompt="hi", max_tokens=9, stream=True):
            heard.append(part.choices[0].text)
    assert heard == ["word ", "word "]
    assert len(setup.seen) == 1


def test_a_client_that_goes_stops_its_call(setup: Setup) -> None:
    for mock in setup.mocks:
        mock.delay = 8.0
    before = setup.mocks[0].aborted + setup.mocks[1].aborted
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(setup.url + "/v1/completions", json={"model": "m", "prompt": "x"}, timeout=0.5)
    wait_until(lambda: setup.mocks[0].aborted + setup.mocks[1].aborted == before + 1)
    wait_until(lambda: setup.state()["running"] == 0)
    with httpx.stream(
        "POST", setup.url + "/v1/completions", json={"model": "m", "prompt": "x", "stream": True}
    ) as part:
        next(part.iter_bytes())
    wait_until(lambda: setup.mocks[0].aborted + setup.mocks[1].aborted == before + 2)
    assert setup.state()["workflows_alive"] == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b'{"model": "m"}', "prompt is missing"),
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_bad_bodies_are_refused_in_openais_form(setup: Setup, content: bytes, said: str) -> None:
    answer = setup.http.post("/v1/completions", content=content)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert said in error["message"] and error["type"] == "invalid_request_error"
    assert setup.seen == []


def test_a_dry_run_sends_nothing(setup: Setup) -> None:
    answer = setup.complete({"x-hexopt-route-only": "true", "x-hexopt-deadline": "9"}, max_tokens=50)
    receipt = answer.json()
    assert receipt["chosen"] == "fast" and receipt["route_only"]
    assert len(receipt["candidates"]) == 2
    assert setup.seen == []
    assert setup.state()["workflows_alive"] == 0


def test_a_decision_explains_itself(setup: Setup) -> None:
    answer = setup.complete(max_tokens=64)
    receipt = setup.http.get("/v1/decisions/" + answer.headers["x-hexopt-decision"]).json()
    assert receipt["chosen"] == answer.headers["x-hexopt-instance"]
    costs = {c["instance"]: c["cost"] for c in receipt["candidates"]}
    assert min(costs, key=lambda name: costs[name]) == receipt["chosen"]
    others = [cost for name, cost in costs.items() if name != receipt["chosen"]]
    assert receipt["margin"] == pytest.approx(min(others) - costs[receipt["chosen"]])
    assert receipt["plan"]["candidates"][0]["instance"] == receipt["chosen"]
    assert setup.http.get("/v1/decisions/none").status_code == 404


def test_siblings_that_come_together_are_planned_together(setup: Setup) -> None:
    for mock in setup.mocks:
        mock.delay = 0.2
    wait_until(lambda: setup.service.dispatcher.solver.free, 60.0)
    tally = setup.service.dispatcher.solver.tally
    before = tally.solved
    for _ in range(10):
        setup.mocks[0].seen.clear()
        setup.mocks[1].seen.clear()
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda k: setup.complete({"x-hexopt-workflow": f"w{k % 3}"}), range(48)))
        assert {a.status_code for a in answers} == {200}
        assert len(setup.seen) == 48
        # On a busy machine the solver may be late; then greedy insertion plans.
        if tally.solved > before:
            break
    assert tally.solved > before
    assert any(r.as_dict()["decided_by"] == "plan of annealing" for r in setup.service.dispatcher.receipts.latest(500))
    for k in range(3):
        assert setup.http.delete(f"/v1/workflows/w{k}").json()["ended"]


def test_metrics_count_what_happened(setup: Setup) -> None:
    def value(name: str) -> float:
        text = setup.http.get("/metrics").text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))

    before = value('hexopt_requests_total{outcome="ok"}')
    setup.complete()
    setup.http.post("/v1/completions", content=b"{")
    assert value('hexopt_requests_total{outcome="ok"}') == before + 1
    assert value('hexopt_errors_total{status="400"}') >= 1
    assert value("hexopt_decision_seconds_count") >= 1
    assert value('hexopt_instance_up{instance="fast"}') == 1


def test_calls_wait_here_until_their_instance_can_start_them() -> None:
    rows = [{"gpu": "a100", "name": "only", "max_num_seqs": 2}]
    with running("greedy-urgency", rows=rows) as setup:
        setup.mocks[0].delay = 0.4
        most = 0
        with ThreadPoolExecutor(6) as pool:
            answers = [pool.submit(setup.complete) for _ in range(6)]
            while not all(a.done() for a in answers):
                most = max(most, setup.mocks[0].running)
                time.sleep(0.01)
        assert [a.result().status_code for a in answers] == [200] * 6
        assert most == 2


def test_urgent_calls_pass_calm_ones_that_wait() -> None:
    rows = [{"gpu": "a100", "name": "only", "max_num_seqs": 1}]
    for policy in ("greedy-urgency", "rolling-horizon", "edf"):
        with running(policy, rows=rows) as setup:
            setup.mocks[0].delay = 0.3

            def send(name: str, deadline: str, setup: Setup = setup) -> None:
                setup.complete({"x-hexopt-workflow": name, "x-hexopt-deadline": deadline}, user=name)

            threads = []
            for name, deadline in (("first", "60"), ("calm", "900"), ("calmer", "1000"), ("urgent", "20")):
                threads.append(threading.Thread(target=send, args=(name, deadline)))
                threads[-1].start()
                time.sleep(0.05)
            for thread in threads:
                thread.join()
            assert [row["body"]["user"] for row in setup.seen] == ["first", "urgent", "calm", "calmer"], policy


def test_a_full_queue_turns_away_and_says_when_to_come_back() -> None:
    rows = [{"gpu": "a100", "name": "only", "max_num_seqs": 1}]
    with running("edf", rows=rows, max_queue=2) as setup:
        setup.mocks[0].delay = 1.0
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: setup.complete(), range(8)))
        codes = sorted(a.status_code for a in answers)
        assert codes == [200] * 3 + [429] * 5
        refused = next(a for a in answers if a.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"


def test_a_dead_server_is_noticed_and_comes_back() -> None:
    with running("least-loaded") as setup:
        port = setup.servers[0].port
        setup.servers[0].stop(at_once=True)
        assert [setup.complete().headers["x-hexopt-instance"] for _ in range(3)] == ["slow"] * 3
        wait_until(lambda: setup.http.get("/readyz").json()["up"] == ["slow"])
        setup.servers[1].stop(at_once=True)
        wait_until(lambda: setup.http.get("/readyz").status_code == 503)
        answer = setup.complete()
        assert (answer.status_code, answer.json()["error"]["message"]) == (503, "no instance is up")
        assert "retry-after" in answer.headers
        again = Running(setup.mocks[0], port)
        wait_until(lambda: setup.http.get("/readyz").json()["up"] == ["fast"], 15.0)
        assert setup.complete().status_code == 200
        again.stop(at_once=True)


def test_a_hanging_server_loses_what_it_has_not_begun() -> None:
    with running("greedy-urgency", health_patience=0.3) as setup:
        with ThreadPoolExecutor(4) as pool:
            setup.mocks[0].fault = "hang"
            answers = list(pool.map(lambda _: setup.complete(), range(4)))
        assert {a.status_code for a in answers} == {200}
        assert {a.headers["x-hexopt-instance"] for a in answers} == {"slow"}


def test_a_dead_solver_delays_nothing() -> None:
    with running() as setup:
        solver = setup.service.dispatcher.solver
        wait_until(lambda: solver.free, 120.0)
        first = solver.pid
        os.kill(first, signal.SIGKILL)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: setup.complete(), range(32)))
        assert {a.status_code for a in answers} == {200}
        wait_until(lambda: solver.tally.deaths == 1)
        wait_until(lambda: solver.free and solver.pid != first, 120.0)
        os.kill(solver.pid, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: setup.complete(), range(32)))
        finally:
            os.kill(solver.pid, signal.SIGCONT)
        assert {a.status_code for a in answers} == {200}


def test_a_key_is_asked_for_everywhere() -> None:
    with running("edf", api_key="s3cret") as setup:
        assert setup.complete().status_code == 200
        for key in (None, "wrong", "s3cret2"):
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            answer = httpx.post(setup.url + "/v1/completions", json={"model": "m", "prompt": "x"}, headers=headers)
            assert answer.status_code == 401
            for path in ("/v1/state", "/metrics", "/v1/models", "/v1/workflows", "/v1/policy"):
                assert httpx.get(setup.url + path, headers=headers).status_code == 401, path
        assert httpx.get(setup.url + "/healthz").status_code == 200
        # The service's key is its own: servers do not get it.
        assert all("authorization" not in row["headers"] for row in setup.seen)


def test_long_bodies_are_refused() -> None:
    with running("edf", max_body=10_000) as setup:
        assert setup.complete(prompt="x" * 9_000).status_code == 200
        answer = setup.complete(prompt="x" * 20_000)
        assert (answer.status_code, "longer than 10000" in answer.text) == (413, True)


def test_every_call_and_decision_is_written_down(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    with running(store=url) as setup:
        head = {"x-hexopt-workflow": "w", "x-hexopt-kind": "revise"}
        first = setup.complete(head | {"x-hexopt-stage": "a"}, max_tokens=5)
        setup.complete(head | {"x-hexopt-parents": "a", "x-hexopt-final": "1"}, max_tokens=6)
        wait_until(lambda: setup.service.store.stats.written >= 4)
    store = Store(url)
    receipt = store.decision(first.headers["x-hexopt-decision"])
    store.close()
    assert receipt is not None and receipt["workflow"] == "w"
    out = tmp_path / "out.jsonl"
    done = spawn("traces", "export", "--store", url, "--out", str(out))
    assert done.code == 0, done.err
    (found,) = read_trace(out)
    assert [s.output_tokens for s in found.stages] == [5, 6]
    assert [len(s.parents) for s in found.stages] == [0, 1]


def test_a_fault_of_the_scheduler_ends_the_calls_that_it_met_and_no_others(setup: Setup) -> None:
    dispatcher = setup.service.dispatcher
    usual = dispatcher._decide_on

    def broken(fresh: list[int], now: float) -> None:
        raise ArithmeticError("out of ideas")

    dispatcher._decide_on = broken
    try:
        answer = setup.complete()
    finally:
        dispatcher._decide_on = usual
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert setup.complete().status_code == 200
    assert setup.state()["waiting"] == setup.state()["workflows_alive"] == 0
