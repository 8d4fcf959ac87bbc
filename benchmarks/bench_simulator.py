"""Speed of the simulator: LLM calls a CPU-second by policy, cost a call up to a million calls, memory a call.

    python benchmarks/bench_simulator.py [--traces ../shared/traces/hexgen-flow]

Processor seconds of the event loop, policy included; compilation is not counted. Without the real trace, the bundled
sample is run.
"""

from __future__ import annotations

import argparse
import tracemalloc
from pathlib import Path

from hexopt.cluster import load_cluster
from hexopt.policies.policy import Policy
from hexopt.policies.registry import POLICIES
from hexopt.simulation.experiment import Experiment
from hexopt.simulation.simulator import Run
from hexopt.traces import read_trace
from hexopt.traces.samples import sample_path

RUNS = 5


def fastest(experiment: Experiment, policy: Policy, workflows: int, rate: float, runs: int = RUNS) -> Run:
    """The run that took least, of ``runs`` with different seeds: the machine's other work only ever adds."""
    done = [experiment.run(policy, *experiment.sample(workflows, rate, seed)) for seed in range(runs)]
    return min(done, key=lambda run: run.engine_cpu_seconds / run.stage.shape[0])


def main() -> None:
    """Print the figures as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces/hexgen-flow"))
    options = parser.parse_args()
    path = options.traces / "input_file_trace1.json"
    workflows = read_trace(path if path.exists() else sample_path("text-to-sql"))

    print("| cluster | policy | calls | us a call | of it deciding | calls a CPU-second |\n|---|---|---|---|---|---|")
    for name, rate in (("a100", 0.2), ("hetero-1", 0.1)):
        experiment = Experiment.of(workflows, load_cluster(name))
        for policy in POLICIES.values():
            run = fastest(experiment, policy(), 2000, rate)
            each = run.engine_cpu_seconds / run.stage.shape[0]
            deciding = run.scheduler_cpu_seconds / run.decisions
            figures = f"{each * 1e6:.2f} | {deciding * 1e6:.2f} | {1 / each:,.0f}"
            print(f"| {name} | {run.policy} | {run.stage.shape[0]:,} | {figures} |", flush=True)

    print("\n| calls (round-robin, 4 x A100) | us a call | peak bytes a call |\n|---|---|---|")
    experiment = Experiment.of(workflows, load_cluster("a100"))
    policy = POLICIES["round-robin"]()
    for count in (500, 5_000, 52_000):
        run = fastest(experiment, policy, count, 0.2, runs=3)
        calls = run.stage.shape[0]
        tracemalloc.start()
        experiment.run(policy, *experiment.sample(count, 0.2, 0))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        print(f"| {calls:,} | {run.engine_cpu_seconds / calls * 1e6:.2f} | {peak / calls:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
