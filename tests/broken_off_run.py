"""Runs of :mod:`parallel_work` in processes of their own, to be broken off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import parallel_work as work
import pytest


def heed_ctrl_c() -> None:
    """In a new process: Ctrl-C counts, also where the tests themselves run in the background and ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def started(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """A run in a process group of its own, as a terminal starts it, which has finished all that it can."""
    command = (sys.executable, work.__file__, folder, *map(str, arguments))
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )
    waiting = range(work.OPEN_ITEMS, work.OPEN_ITEMS + int(str(arguments[0])))
    while not all(any(folder.glob(f"began-{item}-*")) for item in waiting):
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    return run


def wait_until_gone(group: int) -> None:
    """Return once no process of the group is left."""
    for _ in range(400):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("processes were left behind")


def began(folder: Path) -> list[int]:
    return [int(path.name.split("-")[1]) for path in folder.glob("began-*")]
