"""Simulations a minute against workers: 1 and 2 processes of this machine, and a Ray cluster of 2 processors.

    python benchmarks/bench_parallel.py [--simulations 48] [--workflows 1000] [--rounds 3]

The ways take turns and each shows its best round, as the machine's other work only ever takes time away. Start-up is
not counted: every way has done all of it once before. Ray's cluster is of this machine, so its ratio shows what
going through it costs, not what more machines would bring.
"""

from __future__ import annotations

import argparse
import os
import time
from contextlib import ExitStack

from hexopt.cluster import load_cluster
from hexopt.parallel import Runner
from hexopt.policies.registry import make_policy
from hexopt.simulation.experiment import Experiment
from hexopt.traces import read_trace
from hexopt.traces.samples import sample_path


def attainment(shared: tuple[Experiment, int], seed: int) -> float:
    """Share of the workflows in time, in one simulation."""
    experiment, workflows = shared
    run = experiment.run(make_policy("greedy-urgency"), *experiment.sample(workflows, 0.3, seed))
    return float((run.workflow["finish"] <= run.workflow["deadline"]).mean())


def main() -> None:
    """Print the figures as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=48)
    parser.add_argument("--workflows", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    experiment = Experiment.of(read_trace(sample_path("text-to-sql")), load_cluster("hetero-1"))
    shared = (experiment, options.workflows)
    seeds = range(options.simulations)
    with ExitStack() as stack:
        head = {"num_cpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        stack.callback(cluster.shutdown)
        ways = {
            "1 process": stack.enter_context(Runner(1)),
            "2 processes": stack.enter_context(Runner(2)),
            "Ray, 2 processors": stack.enter_context(Runner(ray=cluster.address)),
        }
        expected = ways["1 process"].map(attainment, seeds, shared)
        for runner in ways.values():
            runner.map(attainment, seeds, shared)
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(options.rounds):
            for name, runner in ways.items():
                start = time.perf_counter()
                if runner.map(attainment, seeds, shared) != expected:
                    raise SystemExit(f"{name}: other results than in this process")
                best[name] = min(best[name], time.perf_counter() - start)
    print("| workers | simulations a minute | against 1 process |\n|---|---|---|")
    for name, seconds in best.items():
        a_minute = 60 * options.simulations / seconds
        print(f"| {name} | {a_minute:,.0f} | {best['1 process'] / seconds:.2f}x |")


if __name__ == "__main__":
    from bench_parallel import main  # so that workers know the function by the module's name

    main()
