"""The process that serves: how it begins and ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn

from hexopt.service.app import Application

LINGER = 1.0
"""Seconds for which connections of clients stay open that have nothing running, so that each hears that this ends."""

_SWITCH = 0.0005
"""Seconds after which the threads of store and solver let the event loop go on."""


class Process(uvicorn.Server):
    """Serves an application until a signal comes; then no request is dropped without an answer.

    uvicorn's own end resets connections that wait to be accepted, and closes idle ones under what is just being sent.
    """

    def __init__(self, application: Application, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._application = application

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, and return when all is done."""
        # uvicorn raises the signal that ended it once more when all is done: to have ended well is no failure.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        sys.setswitchinterval(_SWITCH)
        super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        # What is there by now stays: looking through it for garbage would hold calls up for tens of milliseconds.
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come."""
        self._application.service.drain_all()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, tell the clients of those there are, and let what runs end."""
        waiting = [_doors(server) for server in self.servers]
        for server, doors in zip(self.servers, waiting, strict=True):
            server.close()
            for door in doors:
                await self._let_in(door)
        end = asyncio.get_running_loop().time() + LINGER
        while self.server_state.connections and not self.force_exit and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    async def _let_in(self, door: socket.socket) -> None:
        """Accept what has connected already, then close for good."""
        loop = asyncio.get_running_loop()
        let_in = []
        with door, contextlib.suppress(BlockingIOError):
            while True:
                let_in.append(door.accept()[0])
        for connection in let_in:
            connection.setblocking(False)
            with contextlib.suppress(OSError):  # it has gone meanwhile
                await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg, assignment]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


def _doors(server: asyncio.base_events.Server) -> list[socket.socket]:
    """The listening sockets once more: they stay open while the loop closes its own."""
    return [socket.socket(fileno=os.dup(listening.fileno())) for listening in server.sockets]
