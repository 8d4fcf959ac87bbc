"""The gateway as a process under load while everything around it fails: a short run of the benchmark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.xdist_group("servers"), pytest.mark.slow]
BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "service_faults.py"


def test_every_request_ends_once_whatever_fails() -> None:
    command = [sys.executable, str(BENCHMARK), "--seconds", "1", "--clients", "8", "--stall-timeout", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if "|" in line]
    table = {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}
    assert len(table) == 13
    assert all(int(row["ok"].replace(",", "")) > 0 for row in table.values())
    # The faults took place.
    for phase in ("an instance breaks streams", "a full queue"):
        assert table[phase]["error"] != "0", done.stdout
    assert table["clients that leave"]["left"] != "0"
    assert table["SIGTERM, and back"]["refused"] != "0"
