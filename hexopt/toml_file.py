"""TOML files of people's own, read and checked; what is wrong with one is said with its place."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def read_toml(path: Path, refused: type[ValueError]) -> dict[str, Any]:
    """The document in a TOML file; ``refused`` is raised, naming the file, if it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise refused(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise refused(f"{path}: is not a TOML file: {error}") from error


def place_of(parts: Iterable[int | str]) -> str:
    """A place in a document, as pydantic's errors have it under ``loc``, for people: ``instance[0].count``."""
    return ".".join(f"[{part}]" if isinstance(part, int) else part for part in parts).replace(".[", "[")
