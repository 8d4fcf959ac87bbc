"""Shared by all tests."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "scripts")]

# After the path to it is known.
pytest_plugins = ("vllm_servers",)
