"""HexAGenT's setting at fixed rates: Req95 and Req99 of rules on its clusters of prefill and decode instances.

``hexopt compare hexagent`` is the whole table, with loads as shares of capacity; this is a look at it in minutes.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from hexopt.cluster import load_cluster
from hexopt.policies.registry import make_policy
from hexopt.research.measuring import measured
from hexopt.simulation.experiment import Experiment
from hexopt.traces.synthesis import synthesize

AT_ONCE = {"think_median": 0.0}
PARTS = {"weights": dict.fromkeys(("chat", "tool-agent", "tree-search"), 1.0), "parameters": {"chat": AT_ONCE}}
FAMILIES = {"chat": AT_ONCE, "tool-agent": {}, "tree-search": {}, "mix": PARTS}
POLICIES = ("least-loaded", "workflow-fcfs", "llf", "autellix-atlas-style", "greedy-urgency", "hexagent-style")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="+", metavar="FAMILY:RATE:WORKFLOWS", help="chat:5:500; rates a second")
    parser.add_argument("--cluster", default="hexagent-hetero-1")
    parser.add_argument("--policy", action="append", dest="policies")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    cluster = load_cluster(options.cluster)
    print("| trace | rate | policy | Req95 | Req99 | mean s | prefix hits | s |\n|---|---|---|---|---|---|---|---|")
    for case in options.cases:
        family, rate, count = case.split(":")[0], float(case.split(":")[1]), int(case.split(":")[2])
        pool, known = (synthesize(family, 300, np.random.default_rng(s), **FAMILIES[family]) for s in (0, 1))
        experiment = Experiment.of(pool, cluster, training=known)
        for policy in options.policies or POLICIES:
            started, figures = time.perf_counter(), []
            for seed in range(options.seeds):
                picks, arrivals = experiment.sample(count, rate, seed)
                run = experiment.run(make_policy(policy), picks, arrivals)
                found = measured(run, experiment.standalone[picks], count // 5, 3 * count // 5)
                figures.append((found.req95, found.req99, found.mean_s, found.cache_hit_rate))
            req95, req99, mean, hits = np.mean(figures, axis=0)
            took = time.perf_counter() - started
            row = f"{req95:.2f} | {req99:.2f} | {mean:.1f} | {hits:.0%} | {took:.1f}"
            print(f"| {family} | {rate:g} | `{policy}` | {row} |", flush=True)


if __name__ == "__main__":
    main()
