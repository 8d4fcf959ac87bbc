"""Real coding-agent sessions on two H100 and two L40S: what prefix affinity buys.

    python benchmarks/coding_agents.py --table ../shared/traces/weka/weka_requests.csv.gz

Sessions longer than the context of every instance are left out and counted. Loads are shares of the measured capacity.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from policies import measured, ratio, shown

from hexopt.cluster import load_cluster
from hexopt.policies.policy import EarliestDeadline, GreedyUrgency, HexGenFlow, LeastLoaded, Policy, RoundRobin
from hexopt.simulation.experiment import Experiment, that_fit
from hexopt.simulation.simulator import longest_context
from hexopt.traces import read_trace

POLICIES: tuple[Policy, ...] = (
    RoundRobin(),
    LeastLoaded(),
    HexGenFlow(0.5),
    EarliestDeadline(),
    GreedyUrgency(affinity=False),
    GreedyUrgency(),
)
LOADS = (0.1, 0.25, 0.5, 0.8, 0.95)


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=Path("../shared/traces/weka/weka_requests.csv.gz"))
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    cluster = load_cluster("h100-l40s")
    every = read_trace(options.table)
    workflows = that_fit(every, cluster)
    experiment = Experiment.of(workflows[1::2], cluster, training=workflows[::2])
    capacity = experiment.capacity(600)
    print(
        f"{len(every)} sessions, {len(workflows)} within {longest_context(cluster):,} tokens; half train the "
        f"predictors, half run. Capacity {capacity:.4f} sessions/s.\n"
    )
    for load in LOADS:
        print(f"### {load:.0%} of capacity\n")
        print("| policy | cache hits % | mean s | P95 s | in time % | RR P95 / its P95 |")
        print("|---|---|---|---|---|---|")
        first: list[float] = []
        for policy in POLICIES:
            results = measured(experiment, policy, load * capacity, 500, options.seeds)
            p95 = [s.p95_s for s in results]
            first = first or p95
            cells = [
                shown(getattr(s, field) * scale for s in results)
                for field, scale in (("cache_hit_rate", 100), ("mean_s", 1), ("p95_s", 1), ("attainment", 100))
            ]
            print(f"| {policy.label} | {' | '.join(cells)} | {ratio(first, p95)} |", flush=True)
        print()


if __name__ == "__main__":
    main()
