"""Workflows through the gateway and four emulated instances: is any call lost or run twice, is the memory flat?

    python benchmarks/service_load.py [--workflows 10000] [--together 150] [--speed-up 400]

Synthetic Text-to-SQL workflows, ``--together`` at a time: as one ends, the next begins. Every call has an id of its
own, by which the store knows it; the emulators count what they answered to its end. Memory is the gateway's resident
set, sampled each second and averaged over quarters of the run. Exit code 1 if a call failed, was lost, or ran twice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp
import numpy as np
from gateway_process import GatewayProcess, fetch

from hexopt.emulation.replay import prompt_text
from hexopt.emulation.requests import OUTPUT_FIELD
from hexopt.traces import Stage, Workflow
from hexopt.traces.synthesis import synthesize

CLUSTER, INSTANCES, MODEL = "hetero-1", 4, "llama-3.1-70b"


@contextlib.contextmanager
def emulated(file: Path, speed_up: float) -> Iterator[list[str]]:
    """URLs of ``hexopt emulate``, which writes the cluster file of them to ``file``."""
    script = str(Path(sys.executable).with_name("hexopt"))
    flags = ["--cluster", CLUSTER, "--port", "0", "--speed-up", str(speed_up), "--cluster-out", str(file)]
    process = subprocess.Popen([script, "emulate", *flags], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        urls = [process.stdout.readline().split()[0] for _ in range(INSTANCES)]
        while fetch(urls[-1] + "/version") is None:
            time.sleep(0.1)
        yield urls
    finally:
        process.terminate()
        process.wait()


def answered_upstream(urls: Sequence[str]) -> int:
    """Calls that the emulators answered to their end."""
    found = 0.0
    for url in urls:
        with urllib.request.urlopen(url + "/metrics") as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("vllm:request_success_total"):
                    found += float(line.rsplit(" ", 1)[1])
    return int(found)


class Load:
    """A closed loop of workflows.

    Parameters
    ----------
    url
        The gateway's.
    speed_up
        Of the emulated instances; tool delays shrink with it.
    slo
        Seconds on the wall that every workflow gets.
    """

    def __init__(self, url: str, workflows: Sequence[Workflow], speed_up: float, slo: float) -> None:
        self.answered: Counter[str] = Counter()
        self.problems: list[str] = []
        self.seconds: list[float] = []
        self._url, self._workflows, self._speed_up, self._slo = url, workflows, speed_up, slo

    async def run(self, together: int) -> None:
        """Run all, so many at a time."""
        waiting = iter(enumerate(self._workflows))
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
        timeout = aiohttp.ClientTimeout(total=300.0)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as self._session:

            async def client() -> None:
                for w, workflow in waiting:
                    started = time.monotonic()
                    await self._run(w, workflow)
                    self.seconds.append(time.monotonic() - started)

            await asyncio.gather(*(client() for _ in range(together)))

    async def _run(self, w: int, workflow: Workflow) -> None:
        said: dict[str, str] = {}
        running: dict[str, asyncio.Task[None]] = {}
        unsent = len(workflow.stages)

        async def call(stage: Stage) -> None:
            nonlocal unsent
            for parent in stage.parents:
                await running[parent]
            await asyncio.sleep(stage.tool_delay / self._speed_up)
            unsent -= 1
            text = await self._ask(f"{w}", stage, prompt_text(w, stage, said), unsent == 0)
            if stage.output_segment is not None:
                said[stage.output_segment] = text

        async with asyncio.TaskGroup() as group:
            for stage in workflow.stages:
                running[stage.id] = group.create_task(call(stage))

    async def _ask(self, workflow: str, stage: Stage, prompt: str, final: bool) -> str:
        name = f"{workflow}/{stage.id}"
        headers = {
            "x-hexopt-workflow": workflow,
            "x-hexopt-stage": name,
            "x-hexopt-kind": stage.kind,
            "x-hexopt-deadline": str(self._slo),
            "x-hexopt-final": str(int(final)),
        }
        if stage.parents:
            headers["x-hexopt-parents"] = ",".join(f"{workflow}/{parent}" for parent in stage.parents)
        body = {"model": MODEL, "prompt": prompt, "max_tokens": stage.output_tokens, OUTPUT_FIELD: stage.output_tokens}
        try:
            async with self._session.post(f"{self._url}/v1/completions", json=body, headers=headers) as response:
                table = await response.json()
                if response.status == 200:
                    self.answered[name] += 1
                    return str(table["choices"][0]["text"])
                self.problems.append(f"{name}: {response.status}: {table}")
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.problems.append(f"{name}: {type(error).__name__}: {error}")
        return " " * 4 * stage.output_tokens


async def sampled(gateway: GatewayProcess, load: Load, samples: list[tuple[int, float]]) -> None:
    """Calls answered so far and the gateway's megabytes, each second."""
    while True:
        samples.append((load.answered.total(), gateway.megabytes()))
        await asyncio.sleep(1.0)


def quarters(samples: Sequence[tuple[int, float]]) -> list[float]:
    """Mean megabytes over quarters of the calls."""
    calls, megabytes = np.array(samples).T
    part = np.minimum(4 * calls / max(calls[-1], 1), 3).astype(int)
    return [float(megabytes[part == q].mean()) if (part == q).any() else float("nan") for q in range(4)]


async def run(folder: Path, options: argparse.Namespace) -> int:
    """Print what happened; the exit code."""
    workflows = synthesize("text-to-sql", options.workflows, np.random.default_rng(0))
    names = {f"{w}/{stage.id}" for w, workflow in enumerate(workflows) for stage in workflow.stages}
    store, cluster = folder / "store.db", folder / "cluster.toml"
    with emulated(cluster, options.speed_up) as urls:
        gateway = GatewayProcess(cluster, folder / "serve.log", "--store", f"sqlite:///{store}")
        try:
            gateway.start()
            await asyncio.to_thread(gateway.wait, INSTANCES)
            load, samples = Load(gateway.url, workflows, options.speed_up, options.slo), list[tuple[int, float]]()
            watch = asyncio.create_task(sampled(gateway, load, samples))
            started, spent = time.monotonic(), gateway.processor_seconds()
            await load.run(options.together)
            wall, cpu = time.monotonic() - started, gateway.processor_seconds() - spent
            watch.cancel()
            upstream = answered_upstream(urls)
            alive = fetch(gateway.url + "/v1/state")["workflows_alive"]
            gateway.terminate()
        finally:
            gateway.kill()
    with contextlib.closing(sqlite3.connect(store)) as connection:
        kept = Counter(row[0] for row in connection.execute("SELECT stage FROM hexopt_stages WHERE status = 'ok'"))
    lost = names - load.answered.keys()
    stored_wrong = [name for name in names if kept[name] != 1]
    memory = quarters(samples)
    met = sum(seconds <= options.slo for seconds in load.seconds)
    print(f"{len(workflows):,} workflows, {len(names):,} calls, {options.together} workflows at a time, "
          f"speed-up {options.speed_up:g}, load of the machine {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"answered {load.answered.total():,}, failed {len(load.problems):,}, lost {len(lost):,}; "
          f"by the servers {upstream:,}; in the store {kept.total():,}, not once {len(stored_wrong):,}")  # fmt: skip
    print(f"workflows still alive at the end: {alive}")
    print(f"{load.answered.total() / wall:,.0f} calls a second on the wall, "
          f"{load.answered.total() / cpu:,.0f} a processor second of the gateway")  # fmt: skip
    print(f"in time ({options.slo:g} s): {met / len(workflows):.1%}; "
          f"median {np.median(load.seconds):.2f} s, P95 {np.percentile(load.seconds, 95):.2f} s")  # fmt: skip
    print("gateway's memory by quarters, MB: " + ", ".join(f"{x:.1f}" for x in memory)
          + f"; last over first {memory[-1] / memory[0] - 1:+.1%}")  # fmt: skip
    for problem in load.problems[:10]:
        print(problem)
    return int(bool(load.problems or lost or stored_wrong or upstream != len(names) or alive))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workflows", type=int, default=10_000)
    parser.add_argument("--together", type=int, default=150, help="workflows at a time")
    parser.add_argument("--speed-up", type=float, default=400.0)
    parser.add_argument("--slo", type=float, default=10.0, help="seconds on the wall")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(asyncio.run(run(Path(folder), options)))


if __name__ == "__main__":
    main()
