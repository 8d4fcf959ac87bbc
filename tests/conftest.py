"""Shared by all tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "scripts")]

# After the path to it is known.
pytest_plugins = ("vllm_servers",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real servers, browsers and solvers share two cores and the clock: what fails there once may be tried again."""
    for item in items:
        marker = item.get_closest_marker("xdist_group")
        if marker is not None and marker.args[0] in ("servers", "vllm"):
            item.add_marker(pytest.mark.flaky(reruns=2))
