"""``hexopt serve`` as a process of its own, for benchmarks: started, watched, ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(url: str, body: object = None, seconds: float = 10.0) -> Any:
    """The JSON at ``url``; None if it cannot be had."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(url, data, timeout=seconds) as answer:
            return json.loads(answer.read())
    except (urllib.error.URLError, OSError, ValueError):
        return None


class GatewayProcess:
    """The service before servers that run already.

    Parameters
    ----------
    cluster
        Cluster file with urls.
    log
        File that gets what it says.
    flags
        Further ones of ``hexopt serve``.
    """

    def __init__(self, cluster: Path, log: Path, *flags: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        script = str(Path(sys.executable).with_name("hexopt"))
        self._command = [script, "serve", "--cluster", str(cluster), "--port", str(self.port), *flags]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; :meth:`wait` tells when it serves."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def wait(self, instances: int, seconds: float = 280.0) -> None:
        """Return once so many instances are up; the first start after a change of HexOpt compiles its kernels."""
        end = time.monotonic() + seconds
        while len((fetch(self.url + "/readyz") or {"up": []})["up"]) < instances:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > end:
                sys.exit(f"hexopt serve does not serve {instances} instances, see {self._log}")
            time.sleep(0.1)

    def terminate(self) -> int:
        """SIGTERM; its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(120.0)

    def kill(self) -> None:
        """End it, whatever it does."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def solver(self) -> int:
        """Process id of the solver; 0 while there is none."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        return 0

    def megabytes(self) -> float:
        """Resident memory of the process, without its solver."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def processor_seconds(self) -> float:
        """User and system time of the process, without its solver."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
