"""What a gateway is measured between: model servers that answer at once, closed-loop clients, and a relay that decides
nothing."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httptools
import numpy as np
import orjson
import uvloop
from numpy.typing import NDArray

MODEL = "m"
TOKENS = 32
"""Of an answer; a stream has one chunk each, one with the usage, and the end."""
_BODIES = 16
"""Prompts that clients take in turn."""


@dataclass(frozen=True)
class Cell:
    """A kind of load."""

    clients: int
    prompt_bytes: int
    stream: bool

    @property
    def label(self) -> str:
        """For tables."""
        kind = "stream" if self.stream else "whole"
        return f"{self.clients} client{'s' if self.clients > 1 else ''}, {self.prompt_bytes // 1000} KB, {kind}"


@dataclass(frozen=True)
class Seen:
    """What clients saw in one round: seconds of every request, shape (requests,), and how long the round took."""

    first: NDArray[np.float64]
    total: NDArray[np.float64]
    seconds: float
    failed: int
    answered: int
    """Requests, those before the round counted too."""
    processor: float = 0.0
    """Processor seconds of the gateway's processes a request."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.total) / self.seconds


def _head(kind: bytes, more: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%b\r\n\r\n" % (kind, more)


def _whole(text: bytes, kind: bytes = b"application/json") -> bytes:
    return _head(kind, b"content-length: %d" % len(text)) + text


class _Mock(asyncio.Protocol):
    """A model server that takes no time, as few lines of Python as HTTP needs."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.path, self.body = b"", []

    def on_url(self, url: bytes) -> None:
        self.path += url

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        if self.path == b"/metrics":
            self.transport.write(_whole(b"vllm:num_requests_running 0.0\n", b"text/plain"))
        elif self.path == b"/v1/models":
            self.transport.write(_whole(b'{"object":"list","data":[{"id":"m","object":"model","owned_by":"vllm"}]}'))
        elif not self.path.startswith(b"/v1/"):
            self.transport.write(_whole(b"{}"))
        else:
            body = b"".join(self.body)
            prompt = len(body) // 4
            usage = b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (
                prompt, TOKENS, prompt + TOKENS,
            )  # fmt: skip
            if b'"stream":true' in body[:200]:
                self.transport.write(_head(b"text/event-stream", b"transfer-encoding: chunked"))
                self._chunk(0, usage)
            else:
                choice = b'{"index":0,"finish_reason":"length","message":{"role":"assistant","content":"%b"}}'
                text = b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[%b],%b}'
                self.transport.write(_whole(text % (choice % (b"word " * TOKENS), usage)))

    def _chunk(self, k: int, usage: bytes) -> None:
        if self.transport.is_closing():
            return
        start = b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":['
        if k == TOKENS:
            event = b"%b],%b}\n\n" % (start, usage)
        elif k > TOKENS:
            event = b"data: [DONE]\n\n"
        else:
            reason = b'"length"' if k == TOKENS - 1 else b"null"
            event = b'%b{"index":0,"finish_reason":%b,"delta":{"content":"word "}}]}\n\n' % (start, reason)
        end = b"0\r\n\r\n" if k > TOKENS else b""
        self.transport.write(b"%x\r\n%b\r\n%b" % (len(event), event, end))
        if k <= TOKENS:
            # Every token in a write of its own, as servers send them.
            self.loop.call_soon(self._chunk, k + 1, usage)


def serve_mock(ports: list[int]) -> None:
    """Model servers on ``ports``, in this process, until it is killed."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servers = [await loop.create_server(_Mock, "127.0.0.1", port, backlog=1024) for port in ports]
        await asyncio.gather(*(server.serve_forever() for server in servers))

    uvloop.run(main())


def serve_relay(port: int, urls: list[str]) -> None:
    """A relay in front of ``urls`` that takes them in turn and looks at nothing: what Python costs at least."""
    import aiohttp
    import uvicorn

    sessions: list[aiohttp.ClientSession] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return
        message = await receive()
        parts = [message["body"]]
        while message.get("more_body"):
            message = await receive()
            parts.append(message["body"])
        urls.append(urls.pop(0))
        headers = {"content-type": "application/json"}
        async with sessions[0].request(scope["method"], urls[0] + scope["path"], data=b"".join(parts) or None,
                                       headers=headers) as response:  # fmt: skip
            kind = response.headers["content-type"].encode()
            begun = {"type": "http.response.start", "status": response.status, "headers": [(b"content-type", kind)]}
            await send(begun)
            async for chunk in response.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", access_log=False)


class _Client(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, requests: list[bytes], number: int, warm: Callable[[], None]) -> None:
        self.requests, self.turn = requests, number
        self.first: list[float] = []
        self.total: list[float] = []
        self.failed = self.answered = 0
        self.since = self.until = math.inf
        self.warm = warm
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.begun = 0.0
        self.turn += 1
        self.started = time.perf_counter()
        self.transport.write(self.requests[self.turn % len(self.requests)])

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        if not self.begun:
            self.begun = time.perf_counter()

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        self.answered += 1
        if self.answered == 1:
            self.warm()
        if self.started < self.since:
            pass
        elif self.parser.get_status_code() == 200:
            self.first.append(self.begun - self.started)
            self.total.append(now - self.started)
        else:
            self.failed += 1
        if now < self.until or not (self.total or self.failed):
            # A parser cannot be left from its own callback.
            asyncio.get_running_loop().call_soon(self.ask)
        else:
            self.finish()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.failed += 1
            self.warm()
            self.finish()

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        self.transport.close()


async def _round(port: int, requests: list[bytes], clients: int, seconds: float) -> Seen:
    """All connect and ask; what counts is asked in the ``seconds`` from when all were answered once."""
    loop = asyncio.get_running_loop()
    ready, warm = loop.create_future(), 0

    def one_warm() -> None:
        nonlocal warm
        warm += 1
        if warm == clients and not ready.done():
            ready.set_result(None)

    made = await asyncio.gather(
        *(
            loop.create_connection(lambda c=c: _Client(requests, c, one_warm), "127.0.0.1", port)  # type: ignore[misc]
            for c in range(clients)
        )
    )
    await asyncio.wait_for(ready, 120.0)
    started = time.perf_counter()
    for _, client in made:
        client.since, client.until = started, started + seconds
    await asyncio.wait_for(asyncio.gather(*(client.done for _, client in made)), seconds + 120.0)
    took = time.perf_counter() - started
    first = np.concatenate([client.first for _, client in made])
    total = np.concatenate([client.total for _, client in made])
    failed, answered = (sum(getattr(client, name) for _, client in made) for name in ("failed", "answered"))
    return Seen(first, total, took, failed, answered)


def _requests(cell: Cell) -> list[bytes]:
    found = []
    for k in range(_BODIES):
        text = "".join(f"{k} {n} " for n in range(cell.prompt_bytes))[: cell.prompt_bytes]
        table = {"model": MODEL, "max_tokens": TOKENS, "stream": cell.stream}
        if cell.stream:
            table |= {"stream_options": {"include_usage": True}}
        body = orjson.dumps(table | {"messages": [{"role": "user", "content": text}]})
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        found.append(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    return found


def _work(pipe: Connection) -> None:
    made: dict[Cell, list[bytes]] = {}
    while (asked := pipe.recv()) is not None:
        port, cell, seconds = asked
        if cell not in made:
            made = {cell: _requests(cell)}
        try:
            pipe.send(uvloop.run(_round(port, made[cell], cell.clients, seconds)))
        except (OSError, TimeoutError) as error:
            pipe.send(error)


class Clients:
    """Closed-loop clients in a process of their own."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()

    def load(self, port: int, cell: Cell, seconds: float) -> Seen:
        """Put ``cell`` on the gateway at ``port``.

        Raises
        ------
        OSError
            If it does not answer.
        """
        self._pipe.send((port, cell, seconds))
        found = self._pipe.recv()
        if isinstance(found, Exception):
            raise OSError(str(found) or "no answer in time")
        assert isinstance(found, Seen)
        return found

    def close(self) -> None:
        """End them."""
        self._pipe.send(None)
        self._process.join(10.0)


def resident(pid: int) -> int:
    """Bytes of physical memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def processor_seconds(pid: int) -> float:
    """User and system time of a process, all its threads; 0 if there is no such process any more."""
    try:
        # Linux: the clock that clock_getcpuclockid(3) names.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def children(pid: int) -> list[int]:
    """Processes under a process, all generations."""
    # A process is listed under the thread that started it.
    lists = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    own = [int(number) for numbers in lists for number in numbers]
    return [*own, *(grandchild for child in own for grandchild in children(child))]
