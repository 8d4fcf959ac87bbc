"""The gateway before two real vLLM servers: Text-to-SQL workflows through the stock OpenAI client."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from running_service import Running, wait_until
from vllm_servers import MAX_MODEL_LEN, MAX_NUM_BATCHED_TOKENS, MAX_NUM_SEQS, NAME, VllmServers

from hexopt.client import workflow
from hexopt.cluster import parse_cluster
from hexopt.policies import make_policy
from hexopt.service.app import Application
from hexopt.service.fleet import Server
from hexopt.service.settings import ServiceSettings
from hexopt.traces import Workflow, read_trace
from hexopt.traces.samples import sample_path

CALM = 12 * MAX_NUM_SEQS
pytestmark = pytest.mark.xdist_group("vllm")


@pytest.fixture(scope="module")
def gateway(vllm_servers: VllmServers) -> Iterator[Running]:
    # Named after GPUs of different speed: only their ratio matters, and that is learned.
    common = {
        "max_num_seqs": MAX_NUM_SEQS,
        "max_num_batched_tokens": MAX_NUM_BATCHED_TOKENS,
        "max_model_len": MAX_MODEL_LEN,
        "block_size": 128,
        "kv_tokens": 65_536,
    }
    rows = [
        {"name": name, "gpu": gpu, "url": url, **common}
        for name, gpu, url in zip(("fast", "slow"), ("h100", "l40s"), vllm_servers, strict=True)
    ]
    cluster = parse_cluster({"llm": "llama-3.1-8b", "instance": rows}, "test")
    settings = ServiceSettings(store="", health_every=0.5, health_patience=5.0, default_slo=120.0)
    app = Application(settings, [Server(i, i.url) for i in cluster.instances], make_policy("rolling-horizon"))
    running = Running(app)
    wait_until(lambda: len(httpx.get(running.url + "/readyz").json()["up"]) == 2, 60.0)
    yield running
    running.stop(at_once=True)


def text_to_sql(count: int) -> list[Workflow]:
    """Workflows of the bundled sample, the short ones first."""
    found = read_trace(sample_path("text-to-sql"))
    return sorted(found, key=lambda w: sum(s.prompt_tokens + s.output_tokens for s in w.stages))[:count]


async def run_workflow(client: openai.AsyncOpenAI, wanted: Workflow, deadline: float) -> list[Any]:
    """Send every call of ``wanted`` when its parents have ended; prompts and outputs are a tenth as long."""
    async with workflow(client, id=wanted.id, deadline=deadline) as flow:
        done: dict[str, asyncio.Task[Any]] = {}

        async def send(k: int) -> Any:
            stage = wanted.stages[k]
            for parent in stage.parents:
                await done[parent]
            bound = flow.stage(stage.kind, parents=stage.parents, id=stage.id)
            words = " ".join(["query"] * max(stage.prompt_tokens // 60, 1))
            tokens = max(stage.output_tokens // 20, 1)
            call = {"model": NAME, "prompt": words, "max_tokens": tokens, "extra_body": {"ignore_eos": True}}
            if k % 2:
                parts = await bound.completions.create(stream=True, stream_options={"include_usage": True}, **call)
                usage = [part.usage async for part in parts][-1]
            else:
                usage = (await bound.completions.create(**call)).usage
            assert usage.completion_tokens == tokens
            return tokens

        for k, stage in enumerate(wanted.stages):
            done[stage.id] = asyncio.create_task(send(k))
        return list(await asyncio.gather(*done.values()))


def test_workflows_of_the_stock_client_all_finish(gateway: Running, vllm_servers: VllmServers) -> None:
    client = openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key="none", max_retries=0, timeout=200.0)
    workflows = text_to_sql(4)
    before = httpx.get(gateway.url + "/v1/state").json()

    async def main() -> list[list[Any]]:
        return await asyncio.gather(*(run_workflow(client, w, 100.0) for w in workflows))

    answers = asyncio.run(main())
    assert [len(a) for a in answers] == [len(w.stages) for w in workflows]
    after = httpx.get(gateway.url + "/v1/state").json()
    sent = [a["sent"] - b["sent"] for a, b in zip(after["instances"], before["instances"], strict=True)]
    assert sum(sent) == sum(len(w.stages) for w in workflows)
    assert min(sent) > 0
    assert after["running"] == after["waiting"] == 0
    # The engines' own figures are read.
    assert all(i["reported_running"] is not None and i["kv_usage"] is not None for i in after["instances"])
    # A model of a hundredth of the size on a processor is not the GPU that it is named after: the scales have moved.
    assert any(not math.isclose(i["scale"], 1.0) for i in after["instances"])
    for w in workflows:
        httpx.delete(gateway.url + f"/v1/workflows/{w.id}")


def test_the_urgent_call_passes_those_that_wait_in_the_real_queue(gateway: Running, vllm_servers: VllmServers) -> None:
    """More seats are claimed than there are, so that calls queue in vLLM itself."""
    service = gateway.app.service
    board = service.dispatcher._board
    gateway.call(lambda: board.sim.instance["max_seqs"].__setitem__(slice(None), 64))
    client = openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key="none", max_retries=0, timeout=200.0)
    ended: list[str] = []

    async def call(name: str, deadline: float) -> None:
        async with workflow(client, deadline=deadline) as flow:
            stage = flow.stage("work", final=True, output_tokens=150)
            await stage.completions.create(model=NAME, prompt="go", max_tokens=150, extra_body={"ignore_eos": True})
            ended.append(name)

    async def main() -> None:
        calm = [asyncio.create_task(call(f"calm {k}", 900.0)) for k in range(CALM)]
        await vllm_servers.see_queue(5 * MAX_NUM_SEQS, 0, 1)
        await asyncio.gather(call("urgent", 3.0), *calm)

    asyncio.run(main())
    assert len(ended) == CALM + 1
    # Twenty waited when it was sent. Some begin while it is on its way; it passes the others.
    assert ended.index("urgent") <= CALM - MAX_NUM_SEQS


def test_killing_a_server_loses_nothing_that_had_not_begun(gateway: Running, vllm_servers: VllmServers) -> None:
    client = openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key="none", max_retries=0, timeout=200.0)

    async def call(k: int) -> str:
        answer = await client.completions.create(
            model=NAME, prompt=f"go {k}", max_tokens=60, extra_body={"ignore_eos": True}
        )
        return str(answer.choices[0].text)

    async def main() -> list[str]:
        calls = [asyncio.create_task(call(k)) for k in range(16)]
        await asyncio.sleep(0.3)
        await asyncio.to_thread(vllm_servers.kill, 0)
        return list(await asyncio.gather(*calls))

    try:
        assert len(asyncio.run(main())) == 16
        wait_until(lambda: httpx.get(gateway.url + "/readyz").json()["up"] == ["slow"], 30.0)
    finally:
        vllm_servers.restart(0)
    wait_until(lambda: len(httpx.get(gateway.url + "/readyz").json()["up"]) == 2, 60.0)
    started = time.monotonic()
    answer = httpx.post(gateway.url + "/v1/completions", json={"model": NAME, "prompt": "x"}, timeout=60.0)
    assert answer.status_code == 200
    assert time.monotonic() - started < 60.0
