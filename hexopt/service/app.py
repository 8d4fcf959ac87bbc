"""One application: the gateway's raw ASGI for the calls, FastAPI for everything else."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hexopt.policies.policy import Policy
from hexopt.service.api import probes, router
from hexopt.service.dashboard import pages
from hexopt.service.documents import documents
from hexopt.service.fleet import Server
from hexopt.service.gateway import PATHS, Receive, Scope, Send
from hexopt.service.service import Service
from hexopt.service.settings import ServiceSettings
from hexopt.service.solving import Solving
from hexopt.service.tuning import TuningConflict
from hexopt.traces import Workflow


class Application:
    """The ASGI application.

    Parameters
    ----------
    settings, servers, policy, training, shadow
        As :class:`hexopt.service.service.Service` takes them.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        servers: Sequence[Server],
        policy: Policy,
        training: Sequence[Workflow] = (),
        shadow: Policy | None = None,
    ) -> None:
        self.service = Service(settings, servers, policy, training, shadow)
        self.api = _api(self.service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.service.draining:
            send = _closing(send)
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in PATHS:
            await self.service.gateway(scope, receive, send)
        else:
            await self.api(scope, receive, send)


def _closing(send: Send) -> Send:
    """``send`` that tells the client to use its connection no more."""

    async def closing(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return closing


def _api(service: Service) -> FastAPI:
    from hexopt import __version__

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            app.state.solving.close()
            await service.stop()

    # FastAPI's own pages of the documents would load scripts from elsewhere.
    app = FastAPI(title="HexOpt", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.state.solving = Solving()
    app.include_router(probes)
    app.include_router(router)
    app.include_router(documents)
    app.include_router(pages)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ValueError, _wrong)
    app.add_exception_handler(TuningConflict, _conflict)
    app.add_exception_handler(HTTPException, _refused)
    return app


def _problem(status: int, detail: str, headers: Any = None) -> JSONResponse:
    body = {"type": "about:blank", "title": _TITLES.get(status, "Error"), "status": status, "detail": detail}
    return JSONResponse(body, status, headers=headers, media_type="application/problem+json")


_TITLES = {400: "Bad request", 401: "Unauthorized", 404: "Not found", 409: "Conflict", 422: "Invalid", 429: "Busy"}


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    return _problem(422, f"{where or 'body'}: {first['msg']}")


async def _wrong(request: Request, error: Exception) -> JSONResponse:
    return _problem(400, str(error))


async def _conflict(request: Request, error: Exception) -> JSONResponse:
    return _problem(409, str(error))


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _problem(error.status_code, str(error.detail), error.headers)
