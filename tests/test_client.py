"""What the client helper sends, seen by a server, as the gateway understands it."""

import asyncio
import copy
import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import openai
import pytest

from hexopt.client import ClientError, workflow
from hexopt.service.context import read_context

PAGE = Path(__file__).resolve().parent.parent / "docs" / "gateway.md"
EXAMPLES = [code for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "hexopt.client" in code]


class Server(ThreadingHTTPServer):
    """Answers every call, and keeps what the gateway would make of its headers."""

    def __init__(self):
        self.contexts = []
        self.headers = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        self.server.contexts.append(read_context(headers, body))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        message = {"role": "assistant", "content": "fine"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = json.dumps(
            {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.url, api_key="k", default_headers={"x-mine": "1"}, max_retries=0) as made:
        yield made


def say(caller, **more):
    answer = caller.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], **more)
    return answer.choices[0].message.content


def test_the_gateway_understands_every_stage(client, server):
    with workflow(client, deadline=60, tenant="acme", weight=2) as flow:
        plan = flow.stage("plan", output_tokens=7)
        assert say(plan) == "fine"
        left, right = flow.stage("draft", parents=[plan], prefix="p"), flow.stage("draft", parents=["plan-1"])
        assert say(left) == say(right) == "fine"
        assert say(flow.stage(parents=(s for s in (left, right)), id="end", final=True)) == "fine"
        say(flow)
    first, *drafts, end, loose = server.contexts
    assert {context.workflow for context in server.contexts} == {flow.id}
    assert all((c.deadline, c.tenant, c.weight) == (60.0, "acme", 2.0) for c in server.contexts)
    assert (first.stage, first.kind, first.parents, first.expected_output) == ("plan-1", "plan", (), 7)
    assert [(d.stage, d.kind, d.parents, d.prefix) for d in drafts] == [
        ("draft-1", "draft", ("plan-1",), "p"), ("draft-2", "draft", ("plan-1",), None),
    ]  # fmt: skip
    assert (end.stage, end.kind, end.parents, end.final) == ("end", "call", ("draft-1", "draft-2"), True)
    assert (loose.stage, loose.kind, loose.final) == (None, "call", False)


def test_the_clients_own_headers_stay_and_the_client_itself_sends_none_of_ours(client, server):
    with workflow(client) as flow:
        say(flow.stage("a"), extra_headers={"x-more": "2"})
        say(client)
    of_stage, of_client = server.headers
    assert (of_stage["x-mine"], of_stage["x-more"], of_stage["x-hexopt-kind"]) == ("1", "2", "a")
    assert of_client["x-mine"] == "1" and not any(name.startswith("x-hexopt") for name in of_client)


def test_an_async_client_works_the_same_way(server):
    async def main():
        async with (
            openai.AsyncOpenAI(base_url=server.url, api_key="k") as client,
            workflow(client, id="w") as flow,
        ):
            drafts = [flow.stage("draft") for _ in range(3)]
            await asyncio.gather(*(say_async(draft) for draft in drafts))
            return await say_async(flow.stage("choose", parents=drafts, final=True))

    async def say_async(stage):
        answer = await stage.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        return answer.choices[0].message.content

    assert asyncio.run(main()) == "fine"
    *drafts, choose = server.contexts
    assert {context.workflow for context in server.contexts} == {"w"}
    assert {d.stage for d in drafts} == {"draft-1", "draft-2", "draft-3"} == set(choose.parents)
    assert choose.final


def test_two_workflows_are_two_unless_they_name_the_same_id():
    assert workflow(None).id != workflow(None).id
    there, here = workflow(None, id="w"), workflow(None, id="w")
    assert here.stage(parents=[there.stage("a")]).headers["x-hexopt-parents"] == "a-1"


def test_headers_alone_serve_clients_that_cannot_be_bound():
    flow = workflow(None, id="w", deadline=1.5)
    assert flow.headers == {"x-hexopt-workflow": "w", "x-hexopt-deadline": "1.5"}
    assert flow.stage("a,b").headers == flow.headers | {"x-hexopt-stage": "a_b-1", "x-hexopt-kind": "a,b"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: workflow(None, deadline=0), "x-hexopt-deadline is '0', expected seconds > 0"),
        (lambda: workflow(None, weight=float("nan")), "x-hexopt-weight is 'nan', expected a number > 0"),
        (lambda: workflow(None, tenant="müller"), "tenant is 'müller', expected ASCII"),
        (lambda: workflow(None, tenant="a\r\nx: y"), r"x-hexopt-tenant is 'a\\r\\nx: y', expected printable"),
        (lambda: workflow(None, id=""), "workflow is '', expected text"),
        (lambda: workflow(None).stage("x" * 300), "x-hexopt-stage has 302 characters"),
        (lambda: workflow(None).stage(id="a", parents=["a"]), "x-hexopt-parents names 'a', which is this call's own"),
        (lambda: workflow(None).stage(parents="ab"), "parents is 'ab', expected a list"),
        (lambda: workflow(None).stage(output_tokens=0), "x-hexopt-output-tokens is '0'"),
        (lambda: workflow(None).stage(parents=[workflow(None, id="v").stage("a")]), "parent a-1 is of workflow v"),
        (lambda: workflow(object()), "client is a object, expected one with with_options"),
    ],
)
def test_what_the_gateway_would_refuse_is_refused_before_it_is_sent(make, message):
    with pytest.raises(ClientError, match=message):
        make()


def test_a_workflow_that_has_ended_has_no_further_stages():
    with workflow(None, id="w") as flow:
        flow.stage("a")
    with pytest.raises(ClientError, match="workflow w: has ended"):
        flow.stage("b")


def test_copies_work():
    flow = workflow(None, id="w")
    assert copy.deepcopy(flow).stage("a").headers == copy.copy(flow).stage("a").headers
    with pytest.raises(AttributeError, match="no_such"):
        _ = workflow(openai.OpenAI(api_key="k")).stage().no_such


def test_an_error_inside_is_not_swallowed():
    with pytest.raises(KeyError), workflow(None):
        raise KeyError


@pytest.mark.parametrize("code", EXAMPLES, ids=["sync", "async"])
def test_the_examples_of_the_page_run(server, code):
    names = {"BASE_URL": server.url}
    exec(compile(code, str(PAGE), "exec"), names)
    assert "fine" in (names.get("report"), names.get("best"))
    assert len(server.contexts) == 4
    assert server.contexts[-1].final and len(server.contexts[-1].parents) >= 2
    assert len({context.workflow for context in server.contexts}) == 1


def test_it_loads_nothing_but_itself():
    code = "import sys, hexopt.client; print(*{name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    heavy = {"openai", "numpy", "numba", "scipy", "sklearn", "pydantic", "sqlalchemy", "fastapi", "aiohttp", "typer"}
    assert "hexopt" in loaded.stdout.split() and not heavy & set(loaded.stdout.split())
