"""One attempt: a call's bytes to its server, and the answer's back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from hexopt.service.calls import Call
from hexopt.service.errors import error_body
from hexopt.service.settings import ServiceSettings

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_PASSED_ON = frozenset({b"traceparent", b"tracestate", b"x-request-id"})
_KEPT = frozenset({"content-type", "x-request-id", "retry-after"})
_TAIL = 4096
"""Bytes of a stream's end that are kept to read the usage from."""
_EVERY = 16
"""Tokens between two notes of a stream's progress."""


class RelayFailed(Exception):
    """The server failed the call.

    Parameters
    ----------
    reason
        For people.
    answered
        Whether the client has had part of the answer, so that nothing can be tried again.
    at_once
        Whether the server is surely gone.
    response
        Status, body and headers that the server gave.
    same_server
        Whether the same server may be tried again: it did not fail, it was asked for what it does not do.
    """

    def __init__(
        self,
        reason: str,
        *,
        answered: bool = False,
        at_once: bool = False,
        response: tuple[int, bytes, list[tuple[bytes, bytes]]] | None = None,
        same_server: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answered = answered
        self.at_once = at_once
        self.response = response
        self.same_server = same_server


@dataclass(frozen=True, slots=True)
class Answered:
    """What the answer told; tokens are 0 where it did not say. ``refused`` if the server found the call wrong."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    refused: bool = False


class Relay:
    """Passes calls on.

    Parameters
    ----------
    session
        A pooled client.
    """

    def __init__(self, session: aiohttp.ClientSession, settings: ServiceSettings) -> None:
        self._session = session
        self._timeout = aiohttp.ClientTimeout(
            total=settings.call_timeout, sock_connect=settings.connect_timeout, sock_read=settings.stall_timeout
        )
        self._own_key = bool(settings.api_key)

    async def run(
        self,
        call: Call,
        server: Any,
        path: str,
        headers: list[tuple[bytes, bytes]],
        raw: bytes,
        send: Send,
        dispatcher: Any,
    ) -> Answered:
        """Send the call to ``server`` and the answer to the client.

        Raises
        ------
        RelayFailed
            If the server cannot be reached, answers 5xx or 429, or breaks off.
        """
        body = raw if call.priority is None else with_priority(raw, call.priority)
        try:
            request = self._session.post(
                server.url + path, data=body, headers=self._headers(headers, server.api_key), timeout=self._timeout
            )
            async with request as response:
                if response.status >= 500 or response.status == 429:
                    text = await response.read()
                    raise RelayFailed(
                        f"{server.name} answers {response.status}", response=(response.status, text, _kept(response))
                    )
                if response.status >= 400:
                    return await self._refused(call, server, response, send)
                own = _own_headers(call, server.name)
                if call.stream:
                    return await self._stream(call, response, send, own, server.name, dispatcher)
                text = await response.read()
        except RelayFailed:
            raise
        except aiohttp.ClientConnectorError as error:
            raise RelayFailed(f"{server.name} cannot be reached: {error}", at_once=True) from None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise RelayFailed(f"{server.name}: {error or type(error).__name__}") from None
        await send({"type": "http.response.start", "status": response.status, "headers": [*_kept(response), *own,
                    (b"content-length", str(len(text)).encode())]})  # fmt: skip
        await send({"type": "http.response.body", "body": text})
        return _usage(text)

    async def _refused(self, call: Call, server: Any, response: aiohttp.ClientResponse, send: Send) -> Answered:
        text = await response.read()
        if call.priority is not None and response.status == 400 and b"riority" in text:
            # Or the client's own words in the server's: it is believed once it takes the call without.
            call.doubted = server
            raise RelayFailed(f"{server.name} does not take priorities", same_server=True)
        own = [*_own_headers(call, server.name), (b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": response.status, "headers": [*_kept(response), *own]})
        await send({"type": "http.response.body", "body": text})
        return Answered(0, 0, 0, refused=True)

    async def _stream(
        self,
        call: Call,
        response: aiohttp.ClientResponse,
        send: Send,
        own: list[tuple[bytes, bytes]],
        name: str,
        dispatcher: Any,
    ) -> Answered:
        tokens = noted = 0
        tail = b""
        begun = False
        try:
            async for chunk in response.content.iter_any():
                if not begun:
                    # Only now: before the first byte the call could still go elsewhere.
                    begun = True
                    dispatcher.first_token(call)
                    head = {"type": "http.response.start", "status": response.status}
                    await send({**head, "headers": [*_kept(response), *own]})
                tokens += chunk.count(b"data: {")
                tail = chunk[-_TAIL:] if len(chunk) >= _TAIL else (tail + chunk)[-_TAIL:]
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                # Behind the client's bytes: with a long prompt the first note takes a moment.
                if noted == 0 or tokens - noted >= _EVERY:
                    noted = tokens
                    dispatcher.progressed(call, max(tokens, 1))
            problem = "" if b"data: [DONE]" in tail else "the stream ended before its end"
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            problem = f"the stream broke: {error or type(error).__name__}"
        if problem and not begun:
            raise RelayFailed(f"{name}: {problem}")
        if problem:
            message = f"{name}: {problem}; part of the answer was sent, so the call was not repeated"
            event = b"data: " + error_body(502, message, "server_error") + b"\n\n"
            await send({"type": "http.response.body", "body": event})
            raise RelayFailed(message, answered=True)
        await send({"type": "http.response.body", "body": b""})
        found = _usage_of_stream(tail)
        return found or Answered(0, 0, tokens)

    def _headers(self, headers: list[tuple[bytes, bytes]], key: str) -> dict[str, str]:
        found = {"content-type": "application/json"}
        for name, value in headers:
            if name in _PASSED_ON or (name == b"authorization" and not self._own_key):
                found[name.decode()] = value.decode("latin-1")
        if key:
            found["authorization"] = f"Bearer {key}"
        return found


def with_priority(raw: bytes, priority: int) -> bytes:
    """The JSON object ``raw`` with a ``priority`` behind all its fields: of two with a name, parsers take the last."""
    end = raw.rindex(b"}")
    return b'%b,"priority":%d}' % (raw[:end], priority)


def _kept(response: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    return [
        (name.lower().encode(), value.encode("latin-1"))
        for name, value in response.headers.items()
        if name.lower() in _KEPT
    ]


def _own_headers(call: Call, server: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-hexopt-decision", call.id.encode()),
        (b"x-hexopt-instance", server.encode("utf-8", "replace")),
        (b"x-hexopt-workflow", call.workflow.id.encode("utf-8", "replace")),
    ]


def _usage(text: bytes) -> Answered:
    try:
        return _counted(orjson.loads(text).get("usage"))
    except (orjson.JSONDecodeError, AttributeError):
        return Answered(0, 0, 0)


def _usage_of_stream(tail: bytes) -> Answered | None:
    at = tail.rfind(b'"usage":{')
    if at < 0:
        return None
    start = tail.rfind(b"data: ", 0, at)
    end = tail.find(b"\n", at)
    if start < 0 or end < 0:
        return None
    return _usage(tail[start + 6 : end])


def _counted(usage: Any) -> Answered:
    if not isinstance(usage, dict):
        return Answered(0, 0, 0)
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return Answered(*(n if isinstance(n, int) and n > 0 else 0 for n in (prompt, cached, output)))
