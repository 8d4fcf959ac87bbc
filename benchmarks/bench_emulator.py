"""The emulator: does it agree with the simulator, and how many calls does a core answer?

    python benchmarks/bench_emulator.py [--speed-up 20] [--rate 0.5] [--workflows 60]

Agreement: Text-to-SQL workflows on one emulated instance over HTTP, and in the simulator with the same arrivals.
``server`` is the latency by the emulated instance's own clock, from its metrics; ``client`` is what the client saw,
times the speed-up: what HTTP and a busy machine add is multiplied by it, too.
Throughput: short calls to four instances in one process, by wall clock, client included, and by the processor time
of the emulator alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import numpy as np

from hexopt.cluster import parse_cluster
from hexopt.emulation.replay import replay
from hexopt.policies.registry import make_policy
from hexopt.simulation.experiment import Experiment
from hexopt.traces import read_trace
from hexopt.traces.samples import sample_path

GPU, LLM = "a100", "llama-3.1-8b"
CALLS = 4000
CONNECTIONS = 64


@contextmanager
def emulated(*arguments: str, servers: int) -> Iterator[tuple[list[str], int]]:
    """URLs and process of ``hexopt emulate``."""
    command = [str(Path(sys.executable).with_name("hexopt")), "emulate", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield [process.stdout.readline().split()[0] for _ in range(servers)], process.pid
    finally:
        process.terminate()
        process.wait()


def metrics(url: str) -> dict[str, float]:
    """Metrics without labels that tell several of a name apart."""
    text = urllib.request.urlopen(f"{url}/metrics").read().decode()
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name.split("{")[0].removeprefix("vllm:"): float(value) for name, value in pairs}


def agreement(speed_up: float, rate: float, workflows: int) -> None:
    """Print stage latencies, simulated and emulated."""
    cluster = parse_cluster({"llm": LLM, "instance": [{"gpu": GPU}]}, "benchmark")
    pool = read_trace(sample_path("text-to-sql"))
    experiment = Experiment.of(pool, cluster)
    picks, arrivals = experiment.sample(workflows, rate, seed=0)
    stage = experiment.run(make_policy("round-robin"), picks, arrivals).stage
    simulated = stage["finish"] - stage["ready"]
    flags = ("--gpu", GPU, "--llm", LLM, "--scheduling-policy", "fcfs", "--speed-up", str(speed_up))
    with emulated(*flags, servers=1) as (urls, _):
        answered = asyncio.run(replay(urls[0], LLM, [pool[pick] for pick in picks], arrivals, speed_up))
        counted = metrics(urls[0])
    client = np.array([one.finish - one.ready for one in answered])
    server = counted["e2e_request_latency_seconds_sum"] / counted["e2e_request_latency_seconds_count"] * speed_up
    print(
        f"{len(stage)} calls, {GPU}, {LLM}, {rate:g} workflows/s, speed-up {speed_up:g}, load {os.getloadavg()[0]:.1f}"
    )
    print("| stage latency | mean s | P95 s |\n|---|---|---|")
    for name, mean, p95 in (
        ("simulated", simulated.mean(), np.percentile(simulated, 95)),
        ("emulated, server", server, np.nan),
        ("emulated, client", client.mean(), np.percentile(client, 95)),
    ):
        changes = (mean / simulated.mean() - 1, p95 / np.percentile(simulated, 95) - 1)
        print(
            f"| {name} | {mean:.3f} ({changes[0]:+.1%}) | {p95:.3f} ({changes[1]:+.1%}) |".replace("nan (+nan%)", "-")
        )
    cached = sum(one.cached for one in answered) / len(answered)
    print(f"cached prompt tokens a call: simulated {stage['cached'].mean():.1f}, emulated {cached:.1f}")


async def burst(urls: list[str]) -> None:
    """``CALLS`` calls of 16 tokens over ``CONNECTIONS`` connections."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def connection(c: int) -> None:
            url = f"{urls[c % len(urls)]}/v1/completions"
            for k in range(CALLS // CONNECTIONS):
                body = {"prompt": f"A short question, number {c} {k}", "max_tokens": 16, "ignore_eos": True}
                async with session.post(url, json=body) as response:
                    await response.read()
                    assert response.status == 200

        await asyncio.gather(*(connection(c) for c in range(CONNECTIONS)))


def processor_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def throughput() -> None:
    """Print calls a second."""
    with emulated("--cluster", "hetero-1", "--speed-up", "1000", servers=4) as (urls, pid):
        asyncio.run(burst(urls))
        started, spent = time.perf_counter(), processor_seconds(pid)
        asyncio.run(burst(urls))
        wall, cpu = time.perf_counter() - started, processor_seconds(pid) - spent
    calls = CALLS // CONNECTIONS * CONNECTIONS
    print(f"4 instances, {calls} calls: {calls / wall:,.0f} a second, {calls / cpu:,.0f} a processor second")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed-up", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=0.5)
    parser.add_argument("--workflows", type=int, default=60)
    given = parser.parse_args()
    agreement(given.speed_up, given.rate, given.workflows)
    throughput()


if __name__ == "__main__":
    main()
