"""Which experiments come with HexOpt: apart from what reads them, which the help of a command need not load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

EXPERIMENTS: Mapping[str, Path] = MappingProxyType(
    {path.stem: path for path in sorted((Path(__file__).parent / "research" / "experiments").glob("*.toml"))}
)
"""Files of the bundled experiments, by name."""
