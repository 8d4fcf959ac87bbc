"""What a result came from, frozen beside it."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import hexopt
from hexopt.atomic import atomic_write

FORMAT = "hexopt-comparison"
PACKAGES = (
    "numpy",
    "numba",
    "scipy",
    "scikit-learn",
    "pydantic",
    "plotly",
    "pyarrow",
    "matplotlib",
    "highspy",
    "ortools",
)


class ManifestError(ValueError):
    """A folder that holds something else."""


def git_commit() -> dict[str, Any] | None:
    """The commit that HexOpt runs from and whether files differ from it; None where it is installed otherwise."""
    root = Path(hexopt.__file__).resolve().parent.parent
    if not (root / "pyproject.toml").is_file():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def software() -> dict[str, Any]:
    """Versions of what computed the results."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "hexopt": hexopt.__version__,
        "git": git_commit(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": packages,
    }


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_manifest(path: Path, about: dict[str, Any], files: Sequence[Path]) -> None:
    """Write ``about`` with the software and the digests of ``files``."""
    document = {"format": FORMAT, "version": 1, **about, "software": software()}
    document["files"] = {str(file.relative_to(path.parent)): digest(file) for file in files}
    with atomic_write(path) as stream:
        stream.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def refuse_other(path: Path, identity: dict[str, Any]) -> None:
    """Refuse to write over the results of another experiment than the one that ``identity`` tells.

    Raises
    ------
    ManifestError
        If there is a manifest at ``path`` that differs from it.
    """
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        same = before["format"] == FORMAT and identity.items() <= before["experiment"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        same = False
    if not same:
        raise ManifestError(f"--out {path.parent}: holds other results (manifest.json); give another folder")
