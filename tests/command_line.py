"""The ``hexopt`` command, called in this process or in one of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from hexopt.cli import main


class Result(NamedTuple):
    code: int
    out: str
    err: str


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Result:
    """``hexopt`` with these arguments, in this process: many calls stay fast."""
    monkeypatch.setattr(sys, "argv", ["hexopt", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return Result(int(end.value.code or 0), *capsys.readouterr())


def spawn(*arguments: object) -> Result:
    """``hexopt`` as a user starts it."""
    script = Path(sys.executable).with_name("hexopt")
    done = subprocess.run([script, *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False)
    return Result(done.returncode, done.stdout, done.stderr)
