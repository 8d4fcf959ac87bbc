"""Real vLLM servers do what the gateway and the profiles rely on."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest
from vllm_servers import MAX_MODEL_LEN, MAX_NUM_SEQS, NAME, VllmServers

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vllm")]
TOKENS = 100
QUEUED = 12 * MAX_NUM_SEQS


async def complete(session: aiohttp.ClientSession, url: str, priority: int) -> float:
    """Let it write a fixed number of tokens; when it was done."""
    body = {"model": NAME, "prompt": "select", "max_tokens": TOKENS, "ignore_eos": True, "priority": priority}
    async with session.post(f"{url}/v1/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        assert (await answer.json())["usage"]["completion_tokens"] == TOKENS
    return time.monotonic()


@pytest.mark.parametrize("k", [0, 1])
def test_both_serve_the_same_name_at_their_own_depth(vllm_servers: VllmServers, k: int) -> None:
    async def ask() -> dict:
        async with aiohttp.ClientSession() as session, session.get(f"{vllm_servers[k]}/v1/models") as answer:
            return (await answer.json())["data"][0]

    model = asyncio.run(ask())
    assert (model["id"], model["max_model_len"]) == (NAME, MAX_MODEL_LEN)
    assert model["root"].endswith(("llama-2-layers", "llama-8-layers")[k])


def test_priority_reorders_the_queue(vllm_servers: VllmServers) -> None:
    """Behind a full batch and a queue of priority 5, one of -3 overtakes the queue and one of 9 lets all pass."""

    async def race() -> tuple[list[float], float, float]:
        async with aiohttp.ClientSession() as session:
            queue = [asyncio.create_task(complete(session, vllm_servers[1], 5)) for _ in range(QUEUED)]
            await vllm_servers.see_queue(5 * MAX_NUM_SEQS, 1)
            last = asyncio.create_task(complete(session, vllm_servers[1], 9))
            first = asyncio.create_task(complete(session, vllm_servers[1], -3))
            return await asyncio.gather(*queue), await first, await last

    queued, urgent, patient = asyncio.run(race())
    # Five batches waited when it was sent; what ended while it was on its way may be before it, and its own batch.
    assert sum(end > urgent for end in queued) >= 2 * MAX_NUM_SEQS
    assert patient > max(queued)
