"""A cluster's worth of emulated servers in one process."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from hexopt.cluster import Cluster
from hexopt.emulation.engine import Engine
from hexopt.emulation.server import Emulator, Ports

_BACKLOG = 4096


class PortError(ValueError):
    """An address that cannot be listened at."""


@dataclass(frozen=True)
class Settings:
    """How a cluster is emulated.

    Parameters
    ----------
    speed_up
        Simulated seconds in a second.
    by_priority
        Whether queues go by priority, or first come first served.
    model
        Name that the LLM is served by; by default the cluster's own for it.
    seed
        Of the answers' lengths, where a request sets none.
    """

    speed_up: float = 1.0
    by_priority: bool = True
    model: str | None = None
    seed: int = 0


class _Server(uvicorn.Server):
    """uvicorn's server, that ends quietly when it is interrupted; its own way is to send itself the signal again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        main = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


class Fleet:
    """Emulated servers, bound to their ports and ready to run.

    Parameters
    ----------
    cluster
        Every instance of it is a server.
    settings
        How.
    host, port
        Address of the first one; the others have the ports behind it. Port 0: any free ones.

    Raises
    ------
    PortError
        If an address is taken or is none.
    """

    def __init__(self, cluster: Cluster, settings: Settings, host: str = "127.0.0.1", port: int = 0) -> None:
        self.names = tuple(instance.name for instance in cluster.instances)
        self._sockets: list[socket.socket] = []
        try:
            for k in range(len(cluster)):
                self._sockets.append(_listening(host, port + k if port else 0))
        except PortError:
            self._close()
            raise
        ports = [s.getsockname()[1] for s in self._sockets]
        shown = f"[{host}]" if ":" in host else host
        self.urls = tuple(f"http://{shown}:{p}" for p in ports)
        self._cluster, self._settings, self._ports = cluster, settings, ports
        app = Ports({p: self._emulator(k) for k, p in enumerate(ports)})
        self._server = _Server(
            uvicorn.Config(
                app, lifespan="off", log_level="critical", access_log=False, ws="none", server_header=False,
                date_header=False, proxy_headers=False, backlog=_BACKLOG, timeout_graceful_shutdown=1,
            )
        )  # fmt: skip

    def _emulator(self, k: int) -> Emulator:
        instance = self._cluster.instances[k]
        settings = self._settings
        engine = Engine(instance, settings.speed_up, settings.by_priority)
        return Emulator(engine, settings.model or instance.cell.cell.llm, settings.seed)

    def run(self) -> None:
        """Serve until interrupted."""
        try:
            self._server.run(sockets=self._sockets)
        finally:
            self._close()

    def _close(self) -> None:
        for s in self._sockets:
            s.close()

    @contextmanager
    def running(self) -> Iterator[tuple[str, ...]]:
        """Serve in a thread while the context lasts; its value is the URLs."""
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        while not self._server.started and thread.is_alive():
            time.sleep(0.005)
        try:
            yield self.urls
        finally:
            self._server.should_exit = True
            thread.join()


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port < 65536:
        raise PortError(f"port is {port}, expected 0 to 65535")
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host, port))
        # Small answers must not wait for their acknowledgements.
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Clients that come before the server runs wait for it.
        s.listen(_BACKLOG)
    except OSError as error:
        s.close()
        raise PortError(f"{host}:{port} cannot be listened at: {error.strerror or error}") from error
    return s
