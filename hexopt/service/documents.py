"""The API's documents at ``/docs``: Swagger UI from its package, so that nothing is fetched from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from swagger_ui_bundle import swagger_ui_path

_FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}

documents = APIRouter(include_in_schema=False)


@documents.get("/docs")
async def docs() -> HTMLResponse:
    """The page; what it tries out goes to this service, with the key that is entered there."""
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="HexOpt's API",
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="data:,",
    )


@documents.get("/docs/{name}")
async def file(name: str) -> FileResponse:
    """The page's script and style."""
    if name not in _FILES:
        raise HTTPException(404, f"there is no file {name!r}")
    return FileResponse(Path(swagger_ui_path) / name, media_type=_FILES[name])
