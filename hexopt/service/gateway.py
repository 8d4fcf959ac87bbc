"""The gateway's hot path: raw ASGI in, a pooled client out, bytes passed on as they come."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from hexopt.service.calls import Call
from hexopt.service.context import ContextError, read_context
from hexopt.service.dispatcher import Dispatcher
from hexopt.service.errors import ServiceError
from hexopt.service.prompts import prompt_of
from hexopt.service.relay import Relay, RelayFailed
from hexopt.service.settings import ServiceSettings
from hexopt.service.telemetry import Telemetry
from hexopt.service.workflows import Workflows

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
"""What the gateway schedules."""


@dataclass(slots=True)
class _Interrupt:
    """Why a request's task was cancelled by the service itself."""

    reason: str = ""
    relaying: bool = False
    """Whether the call is with a server, so that there is something to interrupt."""


class Gateway:
    """Answers the OpenAI calls.

    Parameters
    ----------
    dispatcher, workflows
        Who decides, and what belongs together.
    session
        The pooled client.
    finished
        Called with every call that has ended, its status (``ok``, ``error``, ``aborted``, ``rejected``), and its output
        and cached tokens.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        dispatcher: Dispatcher,
        workflows: Workflows,
        session: aiohttp.ClientSession,
        telemetry: Telemetry,
        server_failed: Callable[[Any, str, bool], None],
        finished: Callable[[Call, str, int, int], None],
    ) -> None:
        self._settings = settings
        self._dispatcher = dispatcher
        self._workflows = workflows
        self._telemetry = telemetry
        self._finished = finished
        self._server_failed = server_failed
        self._relay = Relay(session, settings)
        self._key = settings.api_key.encode()
        self._instance = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._tasks: dict[Call, tuple[asyncio.Task[Any], _Interrupt]] = {}
        self.draining = False

    def authorized(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether the request carries the service's key, if it has one."""
        if not self._key:
            return True
        for name, value in headers:
            if name == b"authorization" and hmac.compare_digest(value, b"Bearer " + self._key):
                return True
        return False

    def interrupt(self, server: Any) -> None:
        """``server`` is down: calls that it has not begun to answer go elsewhere."""
        for call, (task, interrupt) in list(self._tasks.items()):
            if (
                call.instance >= 0
                and self._dispatcher.servers_by_index[call.instance] is server
                and math.isnan(call.first_token)
                and interrupt.relaying
                and not interrupt.reason
            ):
                interrupt.reason = f"{server.name} is down: {server.reason}"
                task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call: Call | None = None
        watcher: asyncio.Task[None] | None = None
        interrupt = _Interrupt()
        try:
            if not self.authorized(scope["headers"]):
                raise ServiceError(401, "missing or wrong API key", "authentication_error")
            raw = await self._read(receive)
            call = self._call(scope, raw)
            if call.context.route_only:
                await self._dry_run(call, send)
                return
            task = asyncio.current_task()
            assert task is not None
            self._tasks[call] = (task, interrupt)
            watcher = asyncio.create_task(_watch(receive, task, interrupt))
            self._check_load()
            self._workflows.began(call, call.ready)
            self._dispatcher.admit(call)
            await self._serve(call, scope["path"], scope["headers"], raw, send, interrupt)
        except ServiceError as error:
            self._telemetry.refused(error.status)
            if call is not None:
                self._end(call, "rejected" if error.status in (429, 503) and call.attempts == 0 else "error")
            await _answer_error(send, error)
        except asyncio.CancelledError:
            if call is not None:
                self._end(call, "aborted")
            if interrupt.reason != _CLIENT_GONE:
                # The process ends and has waited long enough.
                ended = ServiceError(503, "the service is shutting down", "server_error", 1)
                await _answer_end(send, call, ended)
        except Exception:
            # A fault of ours: the client gets an answer all the same, and nothing stays on the board.
            _log.exception("call %s failed inside the service", call.id if call is not None else "without a name")
            self._telemetry.refused(500)
            if call is not None:
                self._end(call, "error")
            await _answer_end(send, call, ServiceError(500, "the service failed inside", "server_error"))
        finally:
            if watcher is not None:
                watcher.cancel()
            if call is not None:
                self._tasks.pop(call, None)

    def _end(self, call: Call, status: str) -> None:
        if call.row >= 0:
            self._dispatcher.give_up(call)
        if not call.context.route_only:
            # A call that was turned away was its workflow's only one, if it named none.
            call.workflow.final |= call.workflow.own
            self._workflows.settle(call.workflow)
            self._finished(call, status, 0, 0)

    async def _read(self, receive: Receive) -> bytes:
        message = await receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if message["type"] == "http.disconnect":
                raise asyncio.CancelledError
            return self._bounded(body)
        parts, size = [body], len(body)
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise asyncio.CancelledError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._settings.max_body:
                break
        return self._bounded(b"".join(parts))

    def _bounded(self, body: bytes) -> bytes:
        if len(body) > self._settings.max_body:
            raise ServiceError(413, f"the body is longer than {self._settings.max_body} bytes")
        return body

    def _call(self, scope: Scope, raw: bytes) -> Call:
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise ServiceError(400, f"the body is not JSON: {error}") from None
        if not isinstance(body, dict) or not body:
            raise ServiceError(400, "the body is not a JSON object with fields")
        wanted = "prompt" if scope["path"] == "/v1/completions" else "messages"
        if wanted not in body:
            raise ServiceError(400, f"{wanted} is missing")
        try:
            context = read_context(scope["headers"], body)
            now = time.time()
            name = f"{self._instance}-{next(self._numbers)}"
            if self.draining:
                raise ServiceError(503, "the service is shutting down", "server_error", 1)
            workflow = self._workflows.of(context, name, now)
        except ContextError as error:
            raise ServiceError(400, str(error)) from None
        occurrence = workflow.kinds.get(context.kind, 0)
        workflow.kinds[context.kind] = occurrence + 1
        prompt = prompt_of(body)
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        return Call(
            id=name,
            context=context,
            workflow=workflow,
            prompt=prompt,
            kind=self._dispatcher.kind_number(context.kind),
            occurrence=occurrence,
            prompt_tokens=self._dispatcher.tokens.tokens(prompt),
            max_tokens=asked if isinstance(asked, int) and 0 < asked < 1 << 30 else 0,
            ready=now,
            placed=asyncio.get_running_loop().create_future(),
            stream=body.get("stream") is True,
            model=model if isinstance(model := body.get("model"), str) else "",
            path=scope["path"],
            traceparent=_header(scope["headers"], b"traceparent"),
        )

    def _check_load(self) -> None:
        if not self._dispatcher.any_up():
            raise ServiceError(503, "no instance is up", "server_error", 5)
        if self._dispatcher.waiting >= self._settings.max_queue:
            wait = self._dispatcher.expected_wait()
            after = min(max(math.ceil(wait), 1), 600)
            raise ServiceError(
                429, f"{self._dispatcher.waiting} calls wait already; try again in {after} s", "rate_limit_error", after
            )

    async def _dry_run(self, call: Call, send: Send) -> None:
        try:
            if not self._dispatcher.any_up():
                raise ServiceError(503, "no instance is up", "server_error", 5)
            receipt = self._dispatcher.appraise_only(call)
            receipt.route_only = True
            await _answer(send, 200, orjson.dumps(receipt.as_dict()), [])
        finally:
            if call.workflow.arrival == call.ready:
                # The question began it; its time shall not run.
                self._workflows.end(call.workflow, "dry run")

    async def _serve(
        self,
        call: Call,
        path: str,
        headers: list[tuple[bytes, bytes]],
        raw: bytes,
        send: Send,
        interrupt: _Interrupt,
    ) -> None:
        dispatcher = self._dispatcher
        suspects: list[tuple[Any, str]] = []
        while True:
            interrupt.relaying = True
            try:
                await self._placed(call)
                server = dispatcher.servers_by_index[call.instance]
                done = await self._relay.run(call, server, path, headers, raw, send, dispatcher)
                break
            except RelayFailed as failure:
                interrupt.relaying = False
                if failure.response is not None and failure.response[0] == 500:
                    # It may be the call's fault; if so, it must not bring down one server after another.
                    suspects.append((server, failure.reason))
                elif not failure.same_server:
                    self._server_failed(server, failure.reason, failure.at_once)
                failed = failure
            except asyncio.CancelledError:
                interrupt.relaying = False
                if not interrupt.reason or interrupt.reason == _CLIENT_GONE:
                    raise
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
                server = dispatcher.servers_by_index[call.instance]
                failed = RelayFailed(interrupt.reason)
                interrupt.reason = ""
            if failed.answered:
                self._end(call, "error")
                return
            if failed.same_server:
                call.attempts -= 1
            elif call.attempts > self._settings.retries:
                if failed.response is not None:
                    self._telemetry.refused(failed.response[0])
                    await _answer(send, *failed.response)
                    self._end(call, "error")
                    return
                raise ServiceError(502, f"{call.attempts} instances failed; the last: {failed.reason}", "server_error")
            self._telemetry.retried(server.name)
            if failed.same_server:
                # Not the server's fault: it may have the call again.
                dispatcher.retry(call)
                call.excluded.discard(server.name)
            else:
                dispatcher.retry(call)
        for suspect, reason in suspects:
            self._server_failed(suspect, reason, False)
        if done.refused:
            self._end(call, "error")
            return
        if call.doubted is server:
            server.takes_priority = False
        dispatcher.finish(call, done.prompt_tokens, done.cached_tokens, done.output_tokens)
        self._workflows.settle(call.workflow)
        self._finished(call, "ok", done.output_tokens, done.cached_tokens)

    async def _placed(self, call: Call) -> None:
        loop = asyncio.get_running_loop()
        seconds = self._settings.queue_timeout
        timer = loop.call_later(seconds, _give_up_waiting, call.placed, seconds)
        try:
            await call.placed
        finally:
            timer.cancel()


def _header(headers: list[tuple[bytes, bytes]], wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in headers if name == wanted), "")


_CLIENT_GONE = "the client has gone"


async def _watch(receive: Receive, task: asyncio.Task[Any], interrupt: _Interrupt) -> None:
    """Cancel the request's task when its client goes."""
    while (await receive())["type"] != "http.disconnect":
        pass
    interrupt.reason = _CLIENT_GONE
    task.cancel()


def _give_up_waiting(placed: asyncio.Future[int], seconds: float) -> None:
    if not placed.done():
        placed.set_exception(ServiceError(503, f"no instance took the call within {seconds:g} s", "server_error", 5))


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    base = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*base, *headers]})
    await send({"type": "http.response.body", "body": body})


async def _answer_end(send: Send, call: Call | None, error: ServiceError) -> None:
    """Tell a client whose call is cut off."""
    with contextlib.suppress(RuntimeError):  # what has begun otherwise cannot be answered any more
        if call is None or math.isnan(call.first_token):
            await _answer_error(send, error)
        else:
            await send({"type": "http.response.body", "body": b"data: " + error.body() + b"\n\n"})


async def _answer_error(send: Send, error: ServiceError) -> None:
    extra = [(b"retry-after", str(error.retry_after).encode())] if error.retry_after else []
    await _answer(send, error.status, error.body(), extra)
