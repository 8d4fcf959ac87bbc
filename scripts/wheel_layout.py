"""The package as it is installed.

The checkout has the libraries at its top level, the package has them inside ``hexopt``: tools that look for modules in
folders can follow only the layout of the built wheel.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NOT_COPIED = (
    ".git",
    ".venv",
    "venv",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "build",
    "dist",
    "*.egg-info",
    "*.db*",
)


def build_wheel(folder: Path) -> Path:
    """Build the checkout's wheel into ``folder``, by way of its source distribution: nothing that lies about slips in.

    Builds with the setuptools of this environment, so it needs no package index; and from a copy, as builds leave their
    work in the folder that they build.

    Raises
    ------
    RuntimeError
        With what the build printed, if it fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "hexopt"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*_NOT_COPIED), symlinks=True)
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(copy)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the wheel could not be built:\n{done.stdout}\n{done.stderr}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def unpacked_wheel(folder: Path) -> Path:
    """Build the wheel into ``folder`` and unpack it there; returns the folder to import from."""
    site = folder / "site"
    with zipfile.ZipFile(build_wheel(folder)) as archive:
        archive.extractall(site)
    return site
