"""The dashboard's page and files, served from here: nothing is fetched from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response

pages = APIRouter(include_in_schema=False)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of every file: nothing but this service's own files and API.

Styles may be inline because Plotly brings its own; what clients send only ever becomes text.
"""

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_PLOTLY = "plotly.min.js"


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    packed: bytes
    tag: str
    media_type: str


@pages.get("/")
def page(request: Request) -> Response:
    """The dashboard."""
    return _answer("index.html", request)


@pages.get("/dashboard/{name}")
def file(name: str, request: Request) -> Response:
    """A file of the dashboard."""
    return _answer(name, request)


def _answer(name: str, request: Request) -> Response:
    if name != _PLOTLY and name not in _names():
        raise HTTPException(404, f"the dashboard has no file {name!r}")
    found = _file(name)
    headers = {
        "cache-control": "no-cache",
        "content-security-policy": POLICY,
        "etag": found.tag,
        "referrer-policy": "no-referrer",
        "vary": "accept-encoding",
        "x-content-type-options": "nosniff",
    }
    if found.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.packed, headers=headers | {"content-encoding": "gzip"}, media_type=found.media_type)
    return Response(found.content, headers=headers, media_type=found.media_type)


@cache
def _names() -> frozenset[str]:
    return frozenset(path.name for path in (resources.files(__name__) / "assets").iterdir())


@cache
def _file(name: str) -> _File:
    if name == _PLOTLY:
        # Not through plotly itself: importing that takes more memory than all of the pages.
        spec = find_spec("plotly")
        if spec is None or not spec.submodule_search_locations:
            raise HTTPException(404, "plotly is not installed")
        content = (Path(spec.submodule_search_locations[0]) / "package_data" / _PLOTLY).read_bytes()
    else:
        content = (resources.files(__name__) / "assets" / name).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    return _File(content, gzip.compress(content, 6, mtime=0), tag, _TYPES[name.rpartition(".")[2]])
