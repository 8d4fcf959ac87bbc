"""The service before mock servers, over real sockets, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import uvicorn
from mock_server import MockServer

from hexopt.cluster import parse_cluster
from hexopt.policies import make_policy
from hexopt.service.app import Application
from hexopt.service.fleet import Server
from hexopt.service.settings import ServiceSettings


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Running:
    """An ASGI application on a port of its own, in a thread of its own."""

    def __init__(self, app: Any, port: int = 0) -> None:
        self.app = app
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            app, host="127.0.0.1", port=self.port, log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        wait_until(lambda: self._server.started or not self._thread.is_alive(), 240.0)
        assert self._thread.is_alive(), "the server did not start"

    def _run(self) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            await self._server.serve()

        asyncio.run(main())

    def call(self, function: Callable[[], Any]) -> Any:
        """``function`` in the server's own loop."""

        async def inside() -> Any:
            return function()

        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(inside(), self.loop).result(10.0)

    def stop(self, at_once: bool = False) -> None:
        """End it; ``at_once`` like a process that is killed."""
        self._server.should_exit = True
        self._server.force_exit = at_once
        self._thread.join(10.0)


def wait_until(happens: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait for something, or fail."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class Setup:
    """Mock servers and the service before them.

    Parameters
    ----------
    policy
        Of the service.
    rows
        Fields of each instance's row in the cluster file.
    mock
        Makes a mock server.
    settings
        Of the service.
    """

    def __init__(
        self,
        policy: str = "rolling-horizon",
        rows: list[dict[str, Any]] | None = None,
        mock: Callable[[], MockServer] = MockServer,
        **settings: Any,
    ) -> None:
        rows = rows or [{"gpu": "a100", "name": "fast"}, {"gpu": "l40s", "name": "slow"}]
        self.mocks = [mock() for _ in rows]
        self.servers = [Running(mock) for mock in self.mocks]
        shadow = settings.pop("shadow", None)
        settings = {"store": "", "health_every": 0.1, "health_patience": 3.0, **settings}
        table = {
            "llm": "llama-3.1-70b",
            "instance": [row | {"url": s.url} for row, s in zip(rows, self.servers, strict=True)],
        }
        cluster = parse_cluster(table, "test")
        self.app = Application(
            ServiceSettings(**settings),
            [Server(i, i.url) for i in cluster.instances],
            make_policy(policy),
            shadow=make_policy(shadow) if shadow else None,
        )
        self.gateway = Running(self.app)
        self.url = self.gateway.url
        headers = {"authorization": f"Bearer {settings['api_key']}"} if settings.get("api_key") else {}
        self.http = httpx.Client(base_url=self.url, timeout=200.0, headers=headers)

    @property
    def service(self) -> Any:
        """The service object, to look at."""
        return self.app.service

    @property
    def seen(self) -> list[dict[str, Any]]:
        """What the servers were asked, all of them."""
        return [row for mock in self.mocks for row in mock.seen]

    def complete(self, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        """One completion."""
        return self.http.post("/v1/completions", json={"model": "m", "prompt": "hello", **body}, headers=headers)

    def state(self) -> Any:
        """The service at a glance."""
        return self.http.get("/v1/state").json()

    def close(self) -> None:
        """End all of it."""
        self.http.close()
        self.gateway.stop(at_once=True)
        for server in self.servers:
            server.stop(at_once=True)


@contextlib.contextmanager
def running(policy: str = "rolling-horizon", **kwargs: Any) -> Iterator[Setup]:
    """A :class:`Setup` that ends with the block."""
    setup = Setup(policy, **kwargs)
    try:
        yield setup
    finally:
        setup.close()
