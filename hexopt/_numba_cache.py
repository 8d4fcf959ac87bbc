"""Where Numba keeps compiled kernels.

Numba invalidates a cached kernel when *its own* file changes, but not when a kernel that it calls does. The
cache folder is therefore named after a digest of every source file: an edited or upgraded HexOpt never runs
stale machine code, and a read-only installation still has a cache to write to.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

_OURS = "HEXOPT_NUMBA_CACHE_DIR"
_ROOMS = ("hexopt", "models", "solvers", "traces")


def source_files() -> list[Path]:
    """Every Python file of this HexOpt, in a checkout or as installed."""
    package = Path(__file__).parent
    checkout = package.parent
    in_checkout = (checkout / "pyproject.toml").is_file()
    roots = [checkout / room for room in _ROOMS] if in_checkout else [package]
    return sorted(path for root in roots for path in root.rglob("*.py"))


def use_cache_of_these_sources() -> None:
    """Point Numba's cache at this version's own folder, unless the user has chosen one."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    # A parent process may have set it for sources that were edited since.
    if chosen is not None and chosen != os.environ.get(_OURS):
        return
    digest = hashlib.sha256()
    for path in source_files():
        stat = path.stat()
        digest.update(f"{path}:{stat.st_mtime_ns}:{stat.st_size}\n".encode())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = str(base / "hexopt" / f"numba-{digest.hexdigest()[:16]}")
    os.environ["NUMBA_CACHE_DIR"] = os.environ[_OURS] = folder
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = folder
