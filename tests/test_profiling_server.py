"""A server seen from outside: how its tokens are timed, and what is said of those that cannot be measured."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from hexopt.profiling.server import Call, Server, ServerError

MODELS = {"data": [{"id": "m", "max_model_len": 4096}, {"id": "n"}]}
METRICS = """# HELP vllm:cache_config_info it
vllm:cache_config_info{block_size="128",num_gpu_blocks="100",engine="0"} 1.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 768.0
"""


class TestCall:
    def test_pace_is_the_mean_between_tokens(self) -> None:
        assert Call(0.0, [(1.0, 1), (1.5, 3), (3.0, 5)]).pace == pytest.approx(0.5)
        assert Call(0.0, [(1.0, 1)]).pace is None and Call(0.0).pace is None

    def test_tokens_at_a_moment(self) -> None:
        call = Call(0.0, [(1.0, 1), (1.5, 3)])
        assert [call.tokens_at(when) for when in (0.5, 1.0, 1.2, 2.0)] == [0, 1, 1, 3] and call.tokens == 3

    @pytest.mark.parametrize(
        ("moment", "gap"), [(3.9, 2.0), (4.1, 2.0), (2.2, 1.0), (1.0, None), (0.0, None), (9.0, None)]
    )
    def test_the_gap_is_that_before_the_nearest_token(self, moment: float, gap: float | None) -> None:
        """At 9 s two tokens were read together, so nobody knows when the first of them came."""
        assert Call(0.0, [(0.0, 1), (1.0, 2), (2.0, 3), (4.0, 4), (9.0, 6)]).gap_at(moment) == gap
        assert Call(0.0).gap_at(1.0) is None


def asked(handlers: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]], ask: Any, **how: Any) -> Any:
    """What ``ask(server)`` returns of a server with these handlers."""

    async def run() -> Any:
        app = web.Application()
        for path, handler in handlers.items():
            app.router.add_route("*", path, handler)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            async with aiohttp.ClientSession() as session:
                return await ask(Server(session, f"http://127.0.0.1:{port}/v1/", **how))
        finally:
            await runner.cleanup()

    return asyncio.run(run())


def says(document: object, status: int = 200) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        text = document if isinstance(document, str) else json.dumps(document)
        return web.Response(text=text, status=status)

    return handler


def streams(*chunks: object) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for chunk in chunks:
            data = f"data: {json.dumps(chunk)}\n\n".encode()
            # Cut in two, as networks do.
            await answer.write(data[:9])
            await asyncio.sleep(0.01)
            await answer.write(data[9:])
        await answer.write(b"data: [DONE]\n\n")
        return answer

    return handler


async def look(server: Server) -> tuple[str, int | None]:
    await server.look()
    return server.model, server.max_model_len


def test_it_tells_its_model_and_longest_context() -> None:
    assert asked({"/v1/models": says(MODELS)}, look) == ("m", 4096)
    assert asked({"/v1/models": says(MODELS)}, look, model="n") == ("n", None)
    with pytest.raises(ServerError, match=r"^http://127\.0\.0\.1:\d+: serves m, n, expected o$"):
        asked({"/v1/models": says(MODELS)}, look, model="o")
    with pytest.raises(ServerError, match="serves no model, expected one"):
        asked({"/v1/models": says([])}, look)
    with pytest.raises(ServerError, match="/v1/models: answered 401"):
        asked({"/v1/models": says("no", 401)}, look)
    with pytest.raises(ServerError, match="/v1/models: is not JSON"):
        asked({"/v1/models": says("<html>")}, look)


def test_it_tells_its_cache_where_it_has_metrics() -> None:
    async def cache(server: Server) -> tuple[int | None, int | None, str]:
        return await server.kv_tokens(), await server.prefix_hits(), await server.version()

    known = {"/metrics": says(METRICS), "/version": says({"version": "0.32.0"})}
    assert asked(known, cache) == (12800, 768, "vLLM 0.32.0")
    assert asked({}, cache) == (None, None, "an OpenAI-compatible server")


def test_the_key_is_sent() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(MODELS, status=200 if request.headers.get("Authorization") == "Bearer k" else 401)

    assert asked({"/v1/models": handler}, look, api_key="k")[0] == "m"


def test_tokens_are_counted_by_the_server_or_by_chunks() -> None:
    counted = streams(
        {"choices": [{"text": ""}], "usage": {"prompt_tokens": 7, "completion_tokens": 0}},
        {"choices": [{"text": "a"}], "usage": {"prompt_tokens": 7, "completion_tokens": 2}},
        {"choices": [{"text": ""}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
        {
            "choices": [],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
        },
    )
    call = asked({"/v1/completions": counted}, lambda server: server.stream("completion", "x", 3))
    assert [count for _, count in call.arrivals] == [2, 3]
    assert (call.prompt_tokens, call.cached_tokens) == (7, 4)
    assert call.sent < call.arrivals[0][0] < call.arrivals[1][0]
    plain = streams(
        {"choices": [{"delta": {"role": "assistant"}}]},
        {"choices": [{"delta": {"content": "a"}}]},
        {"choices": [{"delta": {"content": "b"}}]},
    )
    call = asked({"/v1/chat/completions": plain}, lambda server: server.stream("chat", "x", 2))
    assert [count for _, count in call.arrivals] == [1, 2] and call.cached_tokens is None


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (says("too long", 400), "/v1/completions: answered 400: too long"),
        (streams({"error": {"message": "out of memory"}}), "/v1/completions: .*out of memory"),
        (streams({"choices": [{"text": "a"}]}), "wrote 1 tokens, expected 2: does it know ignore_eos"),
    ],
)
def test_calls_that_fail_are_named(handler: Any, words: str) -> None:
    with pytest.raises(ServerError, match=words):
        asked({"/v1/completions": handler}, lambda server: server.stream("completion", "x", 2))
