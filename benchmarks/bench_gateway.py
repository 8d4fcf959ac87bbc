"""What gateways add to a request: HexOpt's, and others beside it.

    python benchmarks/bench_gateway.py [--rivals DIR] [--seconds 1] [--rounds 5] [--only hexopt smg] [--json FILE]

Two model servers that answer at once, in a process of their own; closed-loop clients in another. Rounds go by turns
through all gateways and the servers themselves, so that a busy machine troubles all alike. *Added* is a gateway's
percentile less the servers' own in the same round; tables hold medians over rounds. ``DIR`` is what
``scripts/install-rival-gateways DIR`` made.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from gateway_load import MODEL, Cell, Clients, Seen, children, processor_seconds, resident, serve_mock, serve_relay

DIRECT = "direct"
HEXOPT = {
    "hexopt": ("rolling-horizon", ""),
    "hexopt, greedy-urgency": ("greedy-urgency", ""),
    "hexopt, with store": ("rolling-horizon", "sqlite"),
}
RELAY = "bare relay"
RIVALS = ("production-stack", "litellm", "smg", "vllm-router")
CLIENTS = (1, 32, 200)
PROMPTS = (2_000, 400_000)
FIGURES = ("first p50", "first p99", "total p50", "total p99", "requests/s", "processor")


@dataclass
class Target:
    """A gateway that runs."""

    name: str
    port: int
    process: Any = None
    found: dict[Cell, list[Seen]] = field(default_factory=dict)
    trouble: str = ""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def answers(port: int, patience: float, alive: Callable[[], bool]) -> bool:
    """Whether a completion is answered before ``patience`` seconds are over."""
    body = json.dumps({"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "hello"}]}).encode()
    headers = {"content-type": "application/json"}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    end = time.monotonic() + patience
    while time.monotonic() < end and alive():
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10.0) as response:
                response.read()
                return True
        except OSError:
            time.sleep(0.2)
    return False


def command(name: str, rivals: Path | None, urls: list[str], port: int, folder: Path) -> list[str] | None:
    """How the gateway is started; None if it is not installed."""
    if name in HEXOPT:
        policy, store = HEXOPT[name]
        rows = [
            f'[[instance]]\nname = "{k}"\ngpu = "{gpu}"\nurl = "{url}"\n'
            for k, (gpu, url) in enumerate(zip(("h100", "a100"), urls, strict=True))
        ]
        (folder / "cluster.toml").write_text('llm = "llama-3.1-8b"\n' + "".join(rows))
        return [
            str(Path(sys.executable).with_name("hexopt")), "serve", "--cluster", str(folder / "cluster.toml"),
            "--port", str(port), "--policy", policy, "--log-level", "error",
            "--store", f"sqlite:///{folder / 'store.db'}" if store else "",
        ]  # fmt: skip
    if rivals is None or not (rivals / name).exists():
        return None
    bin_ = rivals / name / "bin"
    where = ["--host", "127.0.0.1", "--port", str(port)]
    if name == "litellm":
        models = [
            {"model_name": MODEL, "litellm_params": {"model": f"hosted_vllm/{MODEL}", "api_base": f"{u}/v1"}}
            for u in urls
        ]
        open_ = {"dangerously_permit_weak_or_unset_master_key": True}
        (folder / "litellm.yaml").write_text(json.dumps({"model_list": models, "general_settings": open_}))
        return [str(bin_ / "litellm"), "--config", str(folder / "litellm.yaml"), *where]
    own_metrics = ["--prometheus-port", str(free_port())]
    if name == "smg":
        return [str(bin_ / "smg"), "launch", "--worker-urls", *urls, "--policy", "round_robin", *where, *own_metrics]
    if name == "vllm-router":
        return [str(bin_ / "vllm-router"), "--worker-urls", *urls, "--policy", "round_robin", *where, *own_metrics]
    return [
        str(bin_ / "vllm-router"), *where, "--service-discovery", "static", "--static-backends", ",".join(urls),
        "--static-models", f"{MODEL},{MODEL}", "--routing-logic", "roundrobin",
    ]  # fmt: skip


def started(name: str, rivals: Path | None, urls: list[str], folder: Path) -> Target | str:
    """The gateway, ready, or why there is none."""
    port = free_port()
    own = folder / name.replace(" ", "-").replace(",", "")
    own.mkdir()
    if name == RELAY:
        relay = get_context("spawn").Process(target=serve_relay, args=(port, urls), daemon=True)
        relay.start()
        target = Target(name, port, relay)
        return target if answers(port, 60.0, relay.is_alive) else "does not start"
    how = command(name, rivals, urls, port, own)
    if how is None:
        return "not installed"
    with (own / "log").open("w") as log:
        process = subprocess.Popen(how, stdout=log, stderr=log, cwd=own)
    if answers(port, 240.0, lambda: process.poll() is None):
        return Target(name, port, process)
    process.kill()
    return "does not start: " + " ".join((own / "log").read_text().splitlines()[-2:])[-300:]


def processor_times(target: Target) -> dict[int, float]:
    """Seconds of each of its processes."""
    return {pid: processor_seconds(pid) for pid in (target.process.pid, *children(target.process.pid))}


def settle(target: Target, patience: float = 60.0) -> None:
    """Wait until it does nothing: a solver may still start."""
    end = time.monotonic() + patience
    spent = sum(processor_times(target).values())
    while time.monotonic() < end:
        time.sleep(1.0)
        before, spent = spent, sum(processor_times(target).values())
        if spent - before < 0.1:
            return


def measure(target: Target, clients: Clients, cell: Cell, seconds: float) -> None:
    """One round; a gateway that fails is asked no more."""
    if target.trouble:
        return
    before = processor_times(target)
    try:
        seen = clients.load(target.port, cell, seconds)
    except OSError as error:
        target.trouble = f"{cell.label}: {error}"
        return
    if seen.failed or not len(seen.total):
        target.trouble = f"{cell.label}: {seen.failed} requests failed, {len(seen.total)} were answered"
        return
    after = processor_times(target)
    spent = sum(max(after[pid] - before.get(pid, 0.0), 0.0) for pid in after) / seen.answered
    target.found.setdefault(cell, []).append(replace(seen, processor=spent))


def figures(target: Target, direct: Target, cell: Cell) -> list[float] | None:
    """As :data:`FIGURES` names them, seconds and requests a second; None where nothing was measured."""
    if cell not in target.found:
        return None
    own = target is direct
    rounds = []
    for seen, base in zip(target.found[cell], direct.found[cell], strict=False):
        row = []
        for name in ("first", "total"):
            for q in (50, 99):
                beside = 0.0 if own else np.percentile(getattr(base, name), q)
                row.append(np.percentile(getattr(seen, name), q) - beside)
        rounds.append([*row, seen.rate, seen.processor])
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def table(targets: list[Target], cells: list[Cell]) -> str:
    """Markdown of one table a cell."""
    lines = []
    for cell in cells:
        lines += [
            "", f"**{cell.label}**", "",
            "| | added to first byte: p50 ms | p99 ms | added to all: p50 ms | p99 ms | requests/s | CPU ms each |",
            "|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for target in targets:
            row = figures(target, targets[0], cell)
            if row is None:
                lines.append(f"| {target.name} | - | - | - | - | - | - |")
                continue
            sign = "" if target is targets[0] else "+"
            times = [f"{1000.0 * seconds:{sign}.2f}" for seconds in row[:4]]
            name = "*no gateway*" if target is targets[0] else target.name
            lines.append(f"| {name} | {' | '.join(times)} | {row[4]:,.0f} | {1000.0 * row[5]:.2f} |")
    return "\n".join(lines[1:])


def memory(targets: list[Target]) -> tuple[str, dict[str, list[int]]]:
    """Markdown and bytes: of the serving process, and of those under it."""
    found = {}
    lines = ["| resident memory, MB | serving process | its other processes |", "|---|---|---|"]
    for target in targets[1:]:
        pid = target.process.pid
        own, others = resident(pid), [resident(child) for child in children(pid)]
        found[target.name] = [own, *others]
        lines.append(f"| {target.name} | {own / 1e6:.0f} | {', '.join(f'{o / 1e6:.0f}' for o in others) or '-'} |")
    return "\n".join(lines), found


def main() -> None:
    """Start all, go round, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*HEXOPT, RELAY, *RIVALS]
    parser.add_argument("--rivals", type=Path, help="folder of the other gateways")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--prompts", type=int, nargs="+", default=PROMPTS, help="bytes")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    given = parser.parse_args()
    cells = [Cell(c, p, s) for p in given.prompts for c in given.clients for s in (True, False)]

    context = get_context("spawn")
    ports = [free_port(), free_port()]
    mock = context.Process(target=serve_mock, args=(ports,), daemon=True)
    mock.start()
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    clients = Clients()
    targets = [Target(DIRECT, ports[0], mock)]
    absent = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            if not answers(ports[0], 30.0, mock.is_alive):
                raise SystemExit("the model servers do not start")
            for name in given.only:
                made = started(name, given.rivals and given.rivals.resolve(), urls, Path(folder))
                if isinstance(made, Target):
                    settle(made)
                    targets.append(made)
                else:
                    absent.append(f"{name}: {made}")
            load = os.getloadavg()[0]
            for cell in cells:
                for k in range(given.rounds):
                    turn = k % len(targets)
                    for target in targets[turn:] + targets[:turn]:
                        measure(target, clients, cell, given.seconds)
            memories, resident_bytes = memory(targets)
        finally:
            for target in targets[1:]:
                target.process.terminate()
            clients.close()
            for target in targets[1:]:
                (target.process.join if target.name == RELAY else target.process.wait)(20.0)
            mock.terminate()
    notes = [*absent, *(f"{t.name} left out from here on: {t.trouble}" for t in targets if t.trouble)]
    header = f"{given.rounds} rounds of {given.seconds:g} s; load before {load:.1f}, after {os.getloadavg()[0]:.1f}"
    text = "\n\n".join([header, table(targets, cells), memories, *notes])
    print(text)
    if given.markdown:
        given.markdown.write_text(text + "\n")
    if given.json:
        rows = {
            t.name: {c.label: dict(zip(FIGURES, row, strict=True)) for c in cells if (row := figures(t, targets[0], c))}
            for t in targets
        }
        given.json.write_text(
            json.dumps({"cells": rows, "resident": resident_bytes, "absent": absent}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
