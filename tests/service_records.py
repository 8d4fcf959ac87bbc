"""Records for tests, and databases to keep them in."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hexopt.service.store import DecisionRecord, StageRecord

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


def stage(k: int = 0, **fields: Any) -> StageRecord:
    """A finished stage, with every field set to something of its own."""
    values = {
        "workflow": f"w{k}", "stage": f"s{k}", "parents": ("a,b", 'c"d'), "kind": "revise", "tenant": "müller",
        "weight": 2.5, "model": "m", "instance": "h100-0", "gpu": "h100", "arrival": 100.0 + k, "ready": 101.25 + k,
        "dispatched": 101.5 + k, "first_token": 102.0 + k, "finish": 103.0 + k, "deadline": 130.0 + k,
        "prompt_tokens": 100, "cached_tokens": 16, "output_tokens": 20, "prefix": "p", "status": "ok", "retries": 1,
        "decision_id": f"d{k}", "predicted_finish": 103.5 + k, "policy": "rolling-horizon",
    }  # fmt: skip
    return StageRecord(**(values | fields))


def decision(k: int = 0, **fields: Any) -> DecisionRecord:
    """A decision, with every field set."""
    values = {
        "id": f"d{k}", "time": 101.5 + k, "workflow": f"w{k}", "stage": f"s{k}", "policy": "rolling-horizon",
        "solver": "portfolio", "chosen": "h100-0", "receipt": '{"gap": 0.01}',
    }  # fmt: skip
    return DecisionRecord(**(values | fields))


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether ``condition`` comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def postgres() -> Iterator[PostgreSQL]:
    """A PostgreSQL server of its own, or a skipped test where none is installed."""
    if not BINARIES:
        pytest.skip("PostgreSQL's server is not installed")
    # Not below pytest's own folder, which other users may not enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = PostgreSQL(BINARIES[-1], Path(folder) / "postgres")
        try:
            yield server
        finally:
            server.stop()


class PostgreSQL:
    """A server in a temporary folder, run by an unprivileged user, as it refuses to be run by root."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self.data = folder / "data"
        self._user = "postgres" if os.getuid() == 0 else None
        folder.mkdir()
        if self._user is not None:
            try:
                owner = pwd.getpwnam(self._user)
            except KeyError:
                pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._run("initdb", "-D", self.data, "-A", "trust", "-U", "hexopt", "-E", "UTF8", "--no-sync")
        self.url = f"postgresql://hexopt@127.0.0.1:{self.port}/postgres"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._run("pg_ctl", "-D", self.data, "-o", options, "-l", self.data / "log", "-w", "start")

    def stop(self) -> None:
        """Stop it at once; nothing happens where it does not run."""
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop", check=False)

    def _run(self, program: str, *arguments: object, check: bool = True) -> None:
        command = [str(self._binaries / program), *map(str, arguments)]
        # A server keeps pipes open, so that waiting for the end of one would never end.
        with (self.data.parent / "output").open("ab") as output:
            subprocess.run(
                command, check=check, user=self._user, stdout=output, stderr=output, cwd=self.data.parent, timeout=60
            )
