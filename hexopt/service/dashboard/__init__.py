"""The dashboard's page and files, served from here: nothing is fetched from elsewhere."""

from __future__ import annotations

from fastapi import APIRouter

pages = APIRouter(include_in_schema=False)
