"""Looks after the servers: health, models, and what their metrics say."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable

import aiohttp

from hexopt.service.fleet import Server, State, failed, healthy

_log = logging.getLogger(__name__)

_METRIC = re.compile(
    rb"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc|prefix_cache_queries_total"
    rb"|prefix_cache_hits_total|num_preemptions_total)(?:\{[^}]*\})? ([0-9.eE+-]+)",
    re.MULTILINE,
)
_NAMES = {
    b"num_requests_running": "running",
    b"num_requests_waiting": "waiting",
    b"kv_cache_usage_perc": "kv_usage",
    b"prefix_cache_queries_total": "prefix_queries",
    b"prefix_cache_hits_total": "prefix_hits",
    b"num_preemptions_total": "preemptions",
}
_SCRAPES = 2
"""Health checks between two looks at the metrics."""


def parse_metrics(text: bytes) -> dict[str, float]:
    """vLLM's figures in a Prometheus text, summed over engines."""
    found: dict[str, float] = {}
    for name, value in _METRIC.findall(text):
        key = _NAMES[name]
        found[key] = found.get(key, 0.0) + float(value)
    return found


class Monitor:
    """Checks every server on its own, so that a hanging one holds up no other.

    Parameters
    ----------
    session
        The client to ask with.
    every, patience
        Seconds between checks, and until one counts as failed.
    changed
        Called with a server whose state has changed, or whose own load has.
    busy
        How many calls of ours a server has now.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        changed: Callable[[Server], None],
        busy: Callable[[Server], int],
        every: float = 1.0,
        patience: float = 2.0,
    ) -> None:
        self._session = session
        self._changed = changed
        self._busy = busy
        self._every = every
        self._timeout = aiohttp.ClientTimeout(total=patience)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def watch(self, servers: Iterable[Server]) -> None:
        """Look after exactly these from now on."""
        wanted = {server.name: server for server in servers}
        for name in [name for name in self._tasks if name not in wanted]:
            self._tasks.pop(name).cancel()
        for name, server in wanted.items():
            if name not in self._tasks:
                self._tasks[name] = asyncio.create_task(self._look_after(server), name=f"health {name}")

    def close(self) -> None:
        """Look after none."""
        self.watch(())

    async def _look_after(self, server: Server) -> None:
        turn = 0
        while True:
            try:
                await self.check(server, scrape=turn % _SCRAPES == 0)
            except Exception:  # whatever a server says, it is looked after
                _log.exception("health check of %s failed", server.name)
            turn += 1
            await asyncio.sleep(self._every)

    async def check(self, server: Server, scrape: bool = True) -> None:
        """Ask once for the health of ``server``, and for its metrics."""
        try:
            async with self._get(server, "/health") as response:
                await response.read()
                problem = "" if response.status < 400 else f"/health answers {response.status}"
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            problem = f"/health: {error or type(error).__name__}"
        server.checked = time.time()
        now = time.monotonic()
        if problem:
            if failed(server, problem, now):
                _log.warning("%s (%s) is down: %s", server.name, server.url, problem)
                self._changed(server)
            return
        if server.state is State.UP:
            server.failures = 0 if server.backoff == 0.0 else server.failures
        if not server.models:
            await self._read_models(server)
        if healthy(server, now):
            _log.info("%s (%s) is up", server.name, server.url)
            self._changed(server)
        if scrape and server.state is State.UP:
            await self._scrape(server)

    def _get(self, server: Server, path: str) -> aiohttp.client._RequestContextManager:
        headers = {"authorization": f"Bearer {server.api_key}"} if server.api_key else {}
        return self._session.get(server.url + path, headers=headers, timeout=self._timeout)

    async def _read_models(self, server: Server) -> None:
        try:
            async with self._get(server, "/v1/models") as response:
                found = await response.json(content_type=None)
            server.models = tuple(str(row["id"]) for row in found["data"])
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s does not list its models: %s", server.name, error)

    async def _scrape(self, server: Server) -> None:
        try:
            async with self._get(server, "/metrics") as response:
                text = await response.read() if response.status == 200 else b""
        except (TimeoutError, aiohttp.ClientError, OSError):
            return
        found = parse_metrics(text)
        if not found:
            return
        before = server.reported.get("foreign", 0.0)
        # Both numbers move while the answer is on its way: one call more or less is no news.
        foreign = found.get("running", 0.0) + found.get("waiting", 0.0) - self._busy(server)
        found["foreign"] = max(foreign - 1.0, 0.0)
        server.reported = found
        if found["foreign"] != before:
            self._changed(server)
