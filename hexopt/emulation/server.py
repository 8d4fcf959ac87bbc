"""The emulated servers' HTTP side: vLLM's paths, one ASGI application for all of a process's instances.

Which instance is meant is told by the port that a request came in at.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from hexopt import __version__
from hexopt.emulation import tokens
from hexopt.emulation.engine import Call, Engine
from hexopt.emulation.requests import OUTPUT_HEADER, Request, RequestError, content_of, parse
from hexopt.emulation.responses import DONE, Answer, error

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

FAULTS = ("none", "hang", "error500", "break_stream")
_JSON = (b"content-type", b"application/json")
_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


class BrokenStream(ConnectionError):
    """An answer that is cut off on purpose."""


class Emulator:
    """One emulated server.

    Parameters
    ----------
    engine
        The instance behind it.
    model
        The name that it serves its LLM by.
    seed
        Of the answers' lengths, where a request sets none.
    """

    def __init__(self, engine: Engine, model: str, seed: int = 0) -> None:
        self.engine = engine
        self.model = model
        self.seed = seed
        self.fault = "none"
        self._answers = asyncio.Event()
        self._answers.set()
        self._routes: dict[tuple[str, str], Callable[[Scope, Receive, Send], Awaitable[None]]] = {
            ("POST", "/v1/completions"): self._completions,
            ("POST", "/v1/chat/completions"): self._completions,
            ("GET", "/v1/models"): self._models,
            ("GET", "/health"): self._health,
            ("GET", "/ping"): self._health,
            ("POST", "/ping"): self._health,
            ("GET", "/version"): self._version,
            ("GET", "/metrics"): self._metrics,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/emulator/fault"): self._set_fault,
        }
        self._paths = {path for _, path in self._routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        handler = self._routes.get((scope["method"], scope["path"]))
        try:
            if handler is None:
                known = scope["path"] in self._paths
                raise RequestError("Method Not Allowed" if known else "Not Found", None, 405 if known else 404)
            await handler(scope, receive, send)
        except RequestError as problem:
            await _reply(send, error(problem), problem.status)

    async def _completions(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _json(receive)
        header = next((value for name, value in scope["headers"] if name == OUTPUT_HEADER), None)
        chat = scope["path"] == "/v1/chat/completions"
        request = parse(body, chat, header, self.model, self.engine.longest, self.seed)
        if self.fault == "error500":
            raise RequestError("the emulator was told to fail", None, 500)
        news = asyncio.Event()
        calls = [
            Call(one.content, one.text, one.output, one.reason, request.priority, news.set if request.stream else None)
            for one in request.prompts
        ]
        for call in calls:
            self.engine.submit(call)
        # uvicorn says http.disconnect when the client goes, and also once the answer is complete.
        watch = asyncio.ensure_future(self._watch(receive, calls, news))
        try:
            if request.stream:
                await self._stream(send, request, calls, news)
            else:
                await self._whole(send, request, calls)
        finally:
            watch.cancel()
            for call in calls:
                if not call.done.done():
                    self.engine.abort(call)

    async def _watch(self, receive: Receive, calls: list[Call], news: asyncio.Event) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        for call in calls:
            if not call.done.done():
                self.engine.abort(call)
        news.set()

    async def _whole(self, send: Send, request: Request, calls: list[Call]) -> None:
        for call in calls:
            if not await call.done:
                return
        if not self._answers.is_set():
            await self._answers.wait()
        body = Answer(request, self.model).whole(sum(call.cached for call in calls))
        if self.fault == "break_stream":
            await _start(send, 200, [_JSON, (b"content-length", str(len(body)).encode())])
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            raise BrokenStream("the emulator was told to break off")
        await _reply(send, body)

    async def _stream(self, send: Send, request: Request, calls: list[Call], news: asyncio.Event) -> None:
        answer = Answer(request, self.model)
        await _start(send, 200, _EVENTS)
        sent = [0] * len(calls)
        while any(count < call.output for count, call in zip(sent, calls, strict=True)):
            await news.wait()
            news.clear()
            if not self._answers.is_set():
                await self._answers.wait()
            parts: list[bytes] = []
            for index, call in enumerate(calls):
                if call.done.done() and not call.done.result():
                    return
                if call.out > sent[index] == 0:
                    parts.append(answer.first(index))
                for k in range(sent[index], call.out):
                    text = call.text[k * tokens.TOKEN_BYTES : (k + 1) * tokens.TOKEN_BYTES]
                    parts.append(answer.part(index, text, k + 1 == call.output))
                sent[index] = call.out
            if parts:
                await send({"type": "http.response.body", "body": b"".join(parts), "more_body": True})
                if self.fault == "break_stream":
                    raise BrokenStream("the emulator was told to break off")
        end = answer.usage_event(sum(call.cached for call in calls)) + DONE
        await send({"type": "http.response.body", "body": end, "more_body": False})

    async def _models(self, scope: Scope, receive: Receive, send: Send) -> None:
        model = {"id": self.model, "object": "model", "created": 0, "owned_by": "vllm", "root": self.model}
        model |= {"parent": None, "max_model_len": self.engine.longest, "permission": []}
        await _reply(send, json.dumps({"object": "list", "data": [model]}).encode())

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _reply(send, b"", 500 if self.fault == "error500" else 200)

    async def _version(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _reply(send, json.dumps({"version": f"{__version__}+emulated"}).encode())

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _reply(send, self.engine.metrics(self.model).encode(), kind=_TEXT)

    async def _tokenize(self, scope: Scope, receive: Receive, send: Send) -> None:
        ids = tokens.to_ids(content_of(await _json(receive)))
        body = {"count": len(ids), "max_model_len": self.engine.longest, "tokens": ids, "token_strs": None}
        await _reply(send, json.dumps(body).encode())

    async def _set_fault(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _json(receive)
        kind = body.get("kind") if isinstance(body, dict) else None
        if kind not in FAULTS:
            raise RequestError(f"kind must be one of {', '.join(FAULTS)}, got {kind!r}", "kind")
        self.fault = kind
        if kind == "hang":
            self._answers.clear()
        else:
            self._answers.set()
        await _reply(send, json.dumps({"kind": kind}).encode())


class Ports:
    """The ASGI application of several emulators, each at its own port."""

    def __init__(self, emulators: Mapping[int, Emulator]) -> None:
        self._emulators = dict(emulators)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to the emulator of its port."""
        await self._emulators[scope["server"][1]](scope, receive, send)


async def _json(receive: Receive) -> Any:
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError("the client has gone")
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    try:
        return json.loads(b"".join(parts))
    except ValueError as problem:
        raise RequestError(f"the body is not JSON: {problem}") from problem


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _reply(send: Send, body: bytes, status: int = 200, kind: tuple[bytes, bytes] = _JSON) -> None:
    await _start(send, status, [kind, (b"content-length", str(len(body)).encode())])
    await send({"type": "http.response.body", "body": body})
