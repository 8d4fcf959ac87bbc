"""The gateway under load while everything around it fails: every request ends once, in an answer or a clear error.

    python benchmarks/service_faults.py [--seconds 12] [--clients 48]

``hexopt serve`` before three mock servers, each a process. Clients run workflows of four calls in a closed loop, half
of them streamed, while one fault after another happens. The mocks log the id of every call that they answered to its
end, the store has a row for every call that ended well. Exit code 1 unless every request got an answer of its own or a
clear error, no id was answered twice upstream, and the store knows each answered id once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
from gateway_process import GatewayProcess, fetch, free_port

MOCK = Path(__file__).parents[1] / "tests" / "mock_server.py"
DELAY = 0.15
"""Seconds that a mock server takes."""
SEATS, MAX_QUEUE = 16, 100
"""Of an instance; of the service."""
PATIENCE = 60.0
"""Seconds after which a request that has not ended is lost."""
OUTCOMES = ("ok", "error", "left", "refused", "unclear", "lost")
"""``left``: the client went on purpose. ``refused``: no connection, so nothing was sent."""


class Mocks:
    """Mock servers in processes of their own."""

    def __init__(self, folder: Path, count: int) -> None:
        self.ports = [free_port() for _ in range(count)]
        self._logs = [folder / f"mock{k}.log" for k in range(count)]
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        for k in range(count):
            self.start(k)

    def start(self, k: int) -> None:
        """Start server ``k`` and return when it answers."""
        self._running[k] = subprocess.Popen([sys.executable, str(MOCK), str(self.ports[k]), str(self._logs[k])])
        while fetch(self.url(k) + "/health") is None:
            time.sleep(0.05)
        self.set(k)

    def url(self, k: int) -> str:
        """Of server ``k``."""
        return f"http://127.0.0.1:{self.ports[k]}"

    def set(self, k: int, fault: str = "", delay: float = DELAY) -> None:
        """How server ``k`` behaves."""
        fetch(self.url(k) + "/mock", {"fault": fault, "delay": delay})

    def kill(self, k: int) -> None:
        """kill -9."""
        self._running[k].kill()
        self._running.pop(k).wait()

    def answered(self) -> Counter[str]:
        """How often each id was answered to its end."""
        return Counter(line for log in self._logs if log.exists() for line in log.read_text().split())

    def close(self) -> None:
        """End all."""
        for k in list(self._running):
            self.kill(k)


class Clients:
    """A closed loop of workflows.

    Parameters
    ----------
    url
        The gateway's.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.phase = ""
        self.manner = "plain"
        """``plain``, ``slow`` to send and read, or ``leaving`` before the answer is complete."""
        self.outcomes: dict[str, Counter[str]] = {}
        self.seconds: dict[str, float] = {}
        """That each phase took until its last call had ended."""
        self.problems: list[str] = []
        self.answered: set[str] = set()
        self._numbers = itertools.count()
        self._random = random.Random(1)
        # Shorter than a connection may idle at the gateway, which would otherwise close some under a request.
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0))

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def run(self, clients: int, until: Callable[[], bool]) -> None:
        """Run so many clients until ``until`` says so and their workflows have ended."""
        await asyncio.gather(*(self._client(until) for _ in range(clients)))

    async def _client(self, until: Callable[[], bool]) -> None:
        while not until():
            name = f"w{next(self._numbers)}"
            await self._call(name, "first")
            await asyncio.gather(self._call(name, "left"), self._call(name, "right"))
            await self._call(name, "last", final="1")

    async def _call(self, workflow: str, kind: str, final: str = "0") -> None:
        phase, name = self.phase, f"{workflow}-{kind}"
        stream = self._random.random() < 0.5
        try:
            outcome, what = await asyncio.wait_for(self._outcome(name, workflow, kind, final, stream), PATIENCE)
        except TimeoutError:
            outcome, what = "lost", "no end"
        self.outcomes.setdefault(phase, Counter())[outcome] += 1
        if outcome == "ok":
            self.answered.add(name)
        elif outcome in ("unclear", "lost"):
            self.problems.append(f"{phase}: {name}: {outcome}: {what}")
        elif outcome == "refused":
            await asyncio.sleep(0.2)

    async def _outcome(self, name: str, workflow: str, kind: str, final: str, stream: bool) -> tuple[str, str]:
        slow = self.manner == "slow"
        body = {"model": "m", "prompt": f"{name} " * 40, "stream": stream, "max_tokens": 2000 if slow else 20}
        headers = {"x-request-id": name, "x-hexopt-workflow": workflow, "x-hexopt-stage": name, "x-hexopt-kind": kind}
        headers |= {"x-hexopt-final": final, "x-hexopt-deadline": "30"}
        raw = json.dumps(body).encode()
        leaves = self._random.uniform(0.0, 2 * DELAY) if self.manner == "leaving" and self._random.random() < 0.5 else 0
        request = self._asked(headers, _trickle(raw) if slow else raw, slow)
        if not leaves:
            return await request
        try:
            return await asyncio.wait_for(request, leaves)
        except TimeoutError:
            return "left", ""

    async def _asked(self, headers: dict[str, str], data: Any, slow: bool) -> tuple[str, str]:
        status, heard = 0, bytearray()
        try:
            url = self.url + "/v1/completions"
            async with self._session.post(url, data=data, headers=headers, timeout=_NO_LIMIT) as answer:
                status = answer.status
                while part := await answer.content.read(2048 if slow else 1 << 20):
                    heard += part
                    if slow:
                        await asyncio.sleep(0.002)
        except aiohttp.ClientConnectorError as error:
            return "refused", str(error)
        except (aiohttp.ClientError, OSError) as error:
            return "unclear", f"status {status}, {len(heard)} bytes, {type(error).__name__}: {error}"
        return _judged(status, bytes(heard), headers["x-request-id"])


_NO_LIMIT = aiohttp.ClientTimeout(total=None)


async def _trickle(raw: bytes) -> AsyncIterator[bytes]:
    size = len(raw) // 8 + 1
    for at in range(0, len(raw), size):
        yield raw[at : at + size]
        await asyncio.sleep(0.02)


def _judged(status: int, heard: bytes, name: str) -> tuple[str, str]:
    """Whether an answer that was read to its end is one."""
    own = f'"id": "{name}"'.encode()
    if status == 200 and heard.endswith(b"data: [DONE]\n\n"):
        return ("ok", "") if heard.count(b"data: {") == heard.count(own) else ("unclear", "another call's answer")
    if status == 200 and heard.startswith(b"data: "):
        last = heard.rstrip().rsplit(b"\n\n", 1)[-1]
        return ("error", "") if last.startswith(b'data: {"error":{') else ("unclear", f"truncated: {last[-80:]!r}")
    try:
        table = json.loads(heard)
    except ValueError:
        return "unclear", f"status {status}: {heard[-80:]!r}"
    if status == 200:
        return ("ok", "") if table.get("id") == name else ("unclear", "another call's answer")
    return ("error", "") if table.get("error", {}).get("message") else ("unclear", f"status {status}: {heard!r}")


class Faults:
    """What happens, one after another: each is what is awaited while the load goes on.

    Parameters
    ----------
    seconds
        That a fault lasts.
    """

    def __init__(self, mocks: Mocks, gateway: GatewayProcess, clients: Clients, store: Path, seconds: float) -> None:
        self._mocks, self._gateway, self._clients, self._store = mocks, gateway, clients, store
        self._seconds = seconds

    async def nothing(self) -> None:
        await asyncio.sleep(self._seconds)

    async def instance_killed(self) -> None:
        await asyncio.sleep(self._seconds / 4)
        self._mocks.kill(0)
        await asyncio.sleep(self._seconds / 2)
        await asyncio.to_thread(self._mocks.start, 0)
        await asyncio.sleep(self._seconds / 4)

    async def solver_killed(self) -> None:
        os.kill(await self._solver(), signal.SIGKILL)
        await asyncio.sleep(self._seconds)

    async def solver_stopped(self) -> None:
        solver = await self._solver()
        os.kill(solver, signal.SIGSTOP)
        await asyncio.sleep(self._seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(solver, signal.SIGCONT)

    async def _behaves(self, fault: str) -> None:
        self._mocks.set(1, fault)
        await asyncio.sleep(self._seconds)
        self._mocks.set(1)

    async def _solver(self) -> int:
        while not (found := self._gateway.solver()):
            await asyncio.sleep(0.1)
        return found

    async def instance_hangs(self) -> None:
        await self._behaves("hang")

    async def instance_fails(self) -> None:
        await self._behaves("500")

    async def streams_break(self) -> None:
        await self._behaves("break stream")

    async def _manner(self, manner: str) -> None:
        self._clients.manner = manner
        await asyncio.sleep(self._seconds)
        self._clients.manner = "plain"

    async def clients_slow(self) -> None:
        await self._manner("slow")

    async def clients_leave(self) -> None:
        await self._manner("leaving")

    async def database_locked(self) -> None:
        lock = sqlite3.connect(self._store, timeout=10.0, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        await asyncio.sleep(self._seconds)
        lock.execute("ROLLBACK")
        lock.close()

    async def queue_full(self) -> None:
        end = time.monotonic() + self._seconds / 2
        await self._clients.run(2 * (MAX_QUEUE + 3 * SEATS), lambda: time.monotonic() > end)

    async def restart(self) -> None:
        await asyncio.sleep(self._seconds / 4)
        code = await asyncio.to_thread(self._gateway.terminate)
        if code != 0:
            self._clients.problems.append(f"SIGTERM: exit code {code}, expected 0")
        self._gateway.start()
        await asyncio.to_thread(self._gateway.wait, 3)
        await asyncio.sleep(self._seconds / 4)


PHASES = {
    "nothing": Faults.nothing,
    "kill -9 of an instance, and back": Faults.instance_killed,
    "kill -9 of the solver": Faults.solver_killed,
    "SIGSTOP of the solver": Faults.solver_stopped,
    "an instance hangs": Faults.instance_hangs,
    "an instance answers 500": Faults.instance_fails,
    "an instance breaks streams": Faults.streams_break,
    "slow clients": Faults.clients_slow,
    "clients that leave": Faults.clients_leave,
    "the database is locked": Faults.database_locked,
    "a full queue": Faults.queue_full,
    "SIGTERM, and back": Faults.restart,
}


async def run(folder: Path, options: argparse.Namespace) -> int:
    """Print the table; the exit code."""
    mocks = Mocks(folder, 3)
    store = folder / "store.db"
    cluster = folder / "cluster.toml"
    rows = [
        f'[[instance]]\ngpu = "{gpu}"\nname = "i{k}"\nmax_num_seqs = {SEATS}\nurl = "{mocks.url(k)}"\n'
        for k, gpu in enumerate(("a100", "a100", "l40s"))
    ]
    cluster.write_text('llm = "llama-3.1-70b"\n' + "".join(rows))
    flags = ("--max-queue", str(MAX_QUEUE), "--drain-timeout", "20", "--store", f"sqlite:///{store}")
    gateway = GatewayProcess(cluster, folder / "serve.log", *flags, "--stall-timeout", str(options.stall_timeout))
    try:
        gateway.start()
        await asyncio.to_thread(gateway.wait, 3)
        found = Clients(gateway.url)
        faults = Faults(mocks, gateway, found, store, options.seconds)
        for phase, fault in ((name, fault) for name, fault in PHASES.items() if options.only in name):
            await asyncio.to_thread(gateway.wait, 3)
            started = time.monotonic()
            found.phase, ended = phase, asyncio.Event()
            load = asyncio.create_task(found.run(options.clients, ended.is_set))
            await fault(faults)
            ended.set()
            await load
            found.seconds[phase] = time.monotonic() - started
        await found.close()
        gateway.terminate()
        return _report(found, mocks.answered(), store)
    finally:
        gateway.kill()
        mocks.close()


def _report(clients: Clients, executed: Counter[str], store: Path) -> int:
    twice = [name for name, times in executed.items() if times > 1]
    with contextlib.closing(sqlite3.connect(store)) as connection:
        kept = Counter(row[0] for row in connection.execute("SELECT stage FROM hexopt_stages WHERE status = 'ok'"))
    columns = ("phase", "s", "sent", *OUTCOMES)
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    total: Counter[str] = sum(clients.outcomes.values(), Counter())
    for phase, counts in (clients.outcomes | {"all": total}).items():
        seconds = clients.seconds.get(phase, sum(clients.seconds.values()))
        row = (phase, f"{seconds:.0f}", f"{counts.total():,}", *(f"{counts[name]:,}" for name in OUTCOMES))
        print(f"| {' | '.join(row)} |")
    never = clients.answered - executed.keys()
    unkept = [name for name in clients.answered if kept[name] != 1]
    print(f"answered upstream: {executed.total():,} calls, {len(twice)} of them twice")
    print(f"answered to a client but by no server: {len(never)}; not once in the store: {len(unkept)}")
    for problem in clients.problems[:20]:
        print(problem)
    for name in [*twice[:10], *unkept[:10]]:
        print(f"{name}: answered {executed[name]} times, kept {kept[name]} times, client {name in clients.answered}")
    return int(bool(clients.problems or twice or never or unkept))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0, help="that each fault lasts")
    parser.add_argument("--clients", type=int, default=48)
    parser.add_argument("--stall-timeout", type=float, default=30.0, help="of the service")
    parser.add_argument("--only", default="", help="run the phases whose names hold this")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(asyncio.run(run(Path(folder), options)))


if __name__ == "__main__":
    main()
