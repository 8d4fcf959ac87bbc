"""What the tests of parallel runs give to workers; as a script, a run that a test breaks off.

python parallel_work.py FOLDER JOBS
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from hexopt.parallel import Runner
from hexopt.policies.registry import make_policy
from hexopt.simulation.experiment import Experiment

OPEN_ITEMS = 4
ITEMS = 10


def square(item: int) -> int:
    return item * item


def scaled(vector: Any, item: int) -> Any:
    return item * vector


def refuse(item: int) -> int:
    raise ValueError(f"no {item}")


def interrupts(item: int) -> tuple[bool, str | None, int]:
    """Whether this process would see Ctrl-C, its threads for kernels, and who it is."""
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return blocked, os.environ.get("NUMBA_NUM_THREADS"), os.getpid()


def simulated(experiment: Experiment, item: dict[str, Any]) -> str:
    """Digest of the finish times of a run."""
    run = experiment.run(make_policy(item["policy"]), *experiment.sample(30, item["rate"], item["seed"]))
    return hashlib.sha256(run.stage["finish"].tobytes() + run.workflow["finish"].tobytes()).hexdigest()


def killed_once(folder: Path, item: int) -> int:
    """Every third item's worker dies the first time."""
    marker = folder / f"died-{item}"
    if item % 3 == 0 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(item)


def always_killed(folder: Path, item: int) -> int:
    if item == 5:
        with (folder / "deaths").open("a") as log:
            log.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return square(item)


def gated(folder: str, item: int) -> int:
    """Beyond the first few, an item waits until the test lets it go on; all write down that they began."""
    Path(folder, f"began-{item}-{os.getpid()}").touch()
    while item >= OPEN_ITEMS and not Path(folder, "open").exists():
        time.sleep(0.02)
    return square(item)


def slow_simulated(folder_and_experiment: tuple[str, Experiment], item: dict[str, Any]) -> str:
    """As ``simulated``, noting the process that started this worker."""
    folder, experiment = folder_and_experiment
    Path(folder, f"machine-{os.getppid()}").touch()
    time.sleep(0.2)
    return simulated(experiment, item)


def main() -> None:
    """Print the results as JSON; Ctrl-C ends with 130."""
    folder, jobs, ray = Path(sys.argv[1]), int(sys.argv[2]), (*sys.argv[3:], None)[0]
    try:
        with Runner(jobs, ray=ray, store=folder / "kept") as runner:
            print(json.dumps(runner.map(gated, range(ITEMS), str(folder))))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    from parallel_work import main  # so that workers know the functions by the module's name

    main()
