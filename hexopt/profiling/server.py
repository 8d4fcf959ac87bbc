"""A model server seen from outside: what it says of itself, and calls whose tokens are timed as they come."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp

Endpoint = Literal["chat", "completion"]
ENDPOINTS: tuple[Endpoint, ...] = ("chat", "completion")
_PATHS = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}


class ServerError(ValueError):
    """A server that cannot be measured; the message is one line and names its URL."""


@dataclass(slots=True)
class Call:
    """A streamed call.

    Parameters
    ----------
    sent
        When it was sent (seconds of ``time.perf_counter``).
    arrivals
        When tokens were read, and how many there were then.
    prompt_tokens
        By the server's count; 0 until it was told.
    cached_tokens
        Of them, found in the prefix cache; None until, or unless, the server tells.
    """

    sent: float
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int | None = None

    @property
    def tokens(self) -> int:
        """Tokens that came so far."""
        return self.arrivals[-1][1] if self.arrivals else 0

    def tokens_at(self, moment: float) -> int:
        """Tokens that had come by then."""
        return max((count for when, count in self.arrivals if when <= moment), default=0)

    @property
    def pace(self) -> float | None:
        """Mean seconds between tokens; None before they came at two times."""
        if len(self.arrivals) < 2:
            return None
        (first, before), (last, count) = self.arrivals[0], self.arrivals[-1]
        return (last - first) / (count - before)

    def gap_at(self, moment: float) -> float | None:
        """Seconds between two tokens, the later of which came with ``moment``; None if they did not come one by one.

        Tokens that are read together came at different times, but nobody knows at which.
        """
        times = [when for when, _ in self.arrivals]
        k = min(range(len(times)), key=lambda i: abs(times[i] - moment), default=0)
        counts = [count for _, count in self.arrivals[max(k - 2, 0) : k + 1]]
        return times[k] - times[k - 1] if len(counts) == 3 and counts[2] - counts[0] == 2 else None


class Server:
    """An OpenAI-compatible server.

    Parameters
    ----------
    session
        To ask it with.
    url
        Without ``/v1``.
    model
        Name of the model; the first that it serves by default.
    api_key
        Sent as a bearer token.
    """

    def __init__(
        self, session: aiohttp.ClientSession, url: str, model: str | None = None, api_key: str | None = None
    ) -> None:
        self._session = session
        self.url = url.rstrip("/").removesuffix("/v1")
        self.model = model or ""
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self.max_model_len: int | None = None

    async def look(self) -> None:
        """Learn the model's name and longest context.

        Raises
        ------
        ServerError
            If it does not answer, or serves no such model.
        """
        try:
            listed = json.loads(await self._get("/v1/models"))
        except json.JSONDecodeError as error:
            raise ServerError(f"{self.url}/v1/models: is not JSON: {error}") from error
        rows = {str(row["id"]): row for row in listed.get("data", [])} if isinstance(listed, dict) else {}
        if not rows or (self.model and self.model not in rows):
            raise ServerError(f"{self.url}: serves {', '.join(rows) or 'no model'}, expected {self.model or 'one'}")
        self.model = self.model or next(iter(rows))
        self.max_model_len = rows[self.model].get("max_model_len")

    async def version(self) -> str:
        """The engine and its version, as far as the server tells."""
        try:
            return f"vLLM {json.loads(await self._get('/version'))['version']}"
        except (ServerError, ValueError, KeyError):
            return "an OpenAI-compatible server"

    async def kv_tokens(self) -> int | None:
        """Tokens of its KV cache by vLLM's metrics; None where it does not tell."""
        labels = dict(re.findall(r'(\w+)="([^"]*)"', _line(await self._metrics(), "vllm:cache_config_info")))
        for names in (("kv_cache_size_tokens",), ("num_gpu_blocks", "block_size")):
            values = [labels.get(name, "") for name in names]
            if all(value.isdigit() for value in values):
                product = 1
                for value in values:
                    product *= int(value)
                return product
        return None

    async def prefix_hits(self) -> int | None:
        """Prompt tokens found in the prefix cache so far, by vLLM's metrics; None where it does not tell."""
        line = _line(await self._metrics(), "vllm:prefix_cache_hits_total")
        return int(float(line.rsplit(" ", 1)[1])) if line else None

    async def _metrics(self) -> str:
        try:
            return await self._get("/metrics")
        except ServerError:
            return ""

    async def _get(self, path: str) -> str:
        try:
            async with self._session.get(self.url + path, headers=self._headers) as answer:
                if answer.status != 200:
                    raise ServerError(f"{self.url}{path}: answered {answer.status}")
                return await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerError(f"{self.url}{path}: {str(error) or type(error).__name__}") from error

    async def stream(self, endpoint: Endpoint, text: str, tokens: int, call: Call | None = None) -> Call:
        """Let it write exactly so many tokens; ``call`` is filled as they come.

        Raises
        ------
        ServerError
            If it refuses, or stops early.
        """
        call = call or Call(time.perf_counter())
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        body |= {"messages": [{"role": "user", "content": text}]} if endpoint == "chat" else {"prompt": text}
        where = self.url + _PATHS[endpoint]
        try:
            async with self._session.post(where, json=body, headers=self._headers) as answer:
                if answer.status != 200:
                    raise ServerError(f"{where}: answered {answer.status}: {(await answer.text())[:200]}")
                rest = b""
                async for block in answer.content.iter_any():
                    now = time.perf_counter()
                    *lines, rest = (rest + block).split(b"\n")
                    for line in lines:
                        if line.startswith(b"data: {"):
                            _note(call, json.loads(line[6:]), now, where)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerError(f"{where}: {str(error) or type(error).__name__}") from error
        if call.tokens < tokens:
            raise ServerError(f"{where}: wrote {call.tokens} tokens, expected {tokens}: does it know ignore_eos?")
        return call


def _note(call: Call, chunk: dict[str, Any], now: float, where: str) -> None:
    if "error" in chunk:
        raise ServerError(f"{where}: {chunk['error']}")
    usage = chunk.get("usage") or {}
    call.prompt_tokens = usage.get("prompt_tokens", call.prompt_tokens)
    details = usage.get("prompt_tokens_details") or {}
    call.cached_tokens = details.get("cached_tokens", call.cached_tokens)
    if not chunk.get("choices"):
        return
    choice = chunk["choices"][0]
    # A chunk of a chat that only names the role holds no token; servers that count none send a token a chunk.
    wrote = bool(choice.get("text") or (choice.get("delta") or {}).get("content"))
    count = usage.get("completion_tokens", call.tokens + wrote)
    if count > call.tokens:
        if call.arrivals and call.arrivals[-1][0] == now:
            call.arrivals.pop()
        call.arrivals.append((now, count))


def _line(metrics: str, name: str) -> str:
    return next((line for line in metrics.splitlines() if line.startswith((f"{name}{{", f"{name} "))), "")


async def ended(task: asyncio.Task[Call]) -> None:
    """Cancel a call and wait until its connection is closed, upon which the server drops it."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
