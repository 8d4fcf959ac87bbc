"""The policies to beat on the real Text-to-SQL traces: load x cluster x trace, with confidence intervals.

    python benchmarks/policies.py --traces ../shared/traces/hexgen-flow --seeds 10

Workflows are drawn without repetition until all of a file were used, arrivals are Poisson, deadlines are three times
the mean stand-alone latency; predictors (and HexGen-Flow's profile) are trained on another file. Loads are shares of
the capacity that is measured first (``Experiment.capacity``). Intervals are 95% t-intervals over seeds; ratios are
paired by seed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from hexopt.cluster import Cluster, load_cluster
from hexopt.policies.policy import (
    EarliestDeadline,
    GreedyUrgency,
    HexGenFlow,
    LeastLaxity,
    LeastLoaded,
    Policy,
    RoundRobin,
)
from hexopt.simulation.experiment import Experiment
from hexopt.simulation.metrics import Summary, summarise
from hexopt.traces import read_trace

TRACES = {"trace1": "trace2", "trace2": "trace1", "formula1": "trace1"}
"""Each trace with the one that its predictors are trained on."""
ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""HexGen-Flow's own grid."""
LOADS = (0.5, 0.8, 0.95, 1.1)
PLAIN: tuple[Policy, ...] = (RoundRobin(), LeastLoaded(), EarliestDeadline(), LeastLaxity(), GreedyUrgency())


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Mean and half width of its 95% t-interval."""
    x = np.array(list(values))
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)) if len(x) > 1 else math.nan
    return float(x.mean()), float(half)


def ratio(base: Sequence[float], other: Sequence[float]) -> str:
    """Geometric mean of the paired ratios base / other, with the 95% t-interval of its logarithm."""
    mean, half = interval(np.log(np.array(base) / np.array(other)))
    return f"{math.exp(mean):.2f} [{math.exp(mean - half):.2f}, {math.exp(mean + half):.2f}]"


def shown(values: Iterable[float]) -> str:
    """Mean ± half width, for a table."""
    mean, half = interval(values)
    return f"{mean:.3g} ± {half:.2g}" if mean < 1000 else f"{mean:,.0f} ± {half:,.0f}"


def measured(experiment: Experiment, policy: Policy, rate: float, workflows: int, seeds: int) -> list[Summary]:
    """One summary a seed."""
    results = []
    for seed in range(seeds):
        picks, times = experiment.sample(workflows, rate, seed)
        results.append(summarise(experiment.run(policy, picks, times), experiment.standalone[picks]))
    return results


def best_hexgen_flow(
    experiment: Experiment, shipped: bool, alphas: Sequence[float], rate: float, workflows: int, seeds: int
) -> tuple[HexGenFlow, list[Summary]]:
    """The alpha with the lowest mean P95 at this very setting: its best case, chosen after the fact."""
    runs = [
        (HexGenFlow(a, shipped), measured(experiment, HexGenFlow(a, shipped), rate, workflows, seeds)) for a in alphas
    ]
    return min(runs, key=lambda item: float(np.mean([s.p95_s for s in item[1]])))


def at_speeds(cluster: Cluster, speeds: dict[str, str]) -> Cluster:
    """``cluster`` with GPU types as fast as ``speeds`` says, against the latency model."""
    instances = [replace(i, speed=float(speeds.get(i.cell.cell.gpu, 1.0))) for i in cluster.instances]
    return replace(cluster, instances=tuple(instances))


HEAD = (
    "| policy | mean s | P95 s | P99 s | in time % | Req95 | Req99 | RR P95 / its P95 |",
    "|---|---|---|---|---|---|---|---|",
)


def row(policy: Policy, results: list[Summary], base: list[Summary]) -> str:
    """Markdown row of one policy, beside round-robin's results."""

    def cell(field: str, scale: float = 1.0) -> str:
        return shown(getattr(s, field) * scale for s in results)

    against = ratio([s.p95_s for s in base], [s.p95_s for s in results])
    return (
        f"| {policy.label} | {cell('mean_s')} | {cell('p95_s')} | {cell('p99_s')} | {cell('attainment', 100)} "
        f"| {cell('req95')} | {cell('req99')} | {against} |"
    )


def table(
    experiment: Experiment, alphas: Sequence[float], load: float, capacity: float, workflows: int, seeds: int
) -> list[str]:
    """Markdown rows for one load."""
    rate = load * capacity
    rows: list[tuple[Policy, list[Summary]]] = [(p, measured(experiment, p, rate, workflows, seeds)) for p in PLAIN]
    hexgen = [best_hexgen_flow(experiment, shipped, alphas, rate, workflows, seeds) for shipped in (True, False)]
    rows[2:2] = hexgen
    ours = rows[-1][1]
    strongest = min(hexgen, key=lambda item: float(np.mean([s.p95_s for s in item[1]])))[1]
    lines = [*HEAD, *(row(policy, results, rows[0][1]) for policy, results in rows)]
    fields = ("p95_s", "req95", "req99")
    gains = [ratio([getattr(s, f) for s in strongest], [getattr(s, f) for s in ours]) for f in fields]
    lines += ["", "HexGen-Flow's best over greedy urgency: P95 **{}**, Req95 {}, Req99 {}".format(*gains), ""]
    return lines


def sustained(experiment: Experiment, alphas: Sequence[float], seeds: int) -> list[str]:
    """Markdown rows: highest rate at which 95% of the workflows are in time, workflows/s."""
    lines = ["| policy | sustained rate at 95% in time (workflows/s) |", "|---|---|"]
    hexgen: list[Policy] = [HexGenFlow(a, shipped) for shipped in (True, False) for a in alphas]
    rates = {
        p.label: interval(experiment.capacity(600, seed, p, share=0.95) for seed in range(seeds))
        for p in (*PLAIN, *hexgen)
    }
    best = max((p.label for p in hexgen), key=lambda label: rates[label][0])
    for label in (*(p.label for p in PLAIN), best):
        mean, half = rates[label]
        lines.append(f"| {label} | {f'{mean:.3f} ± {half:.3f}' if mean else 'none: late even on idle instances'} |")
    return [*lines, ""]


def burst(experiment: Experiment, rate: float, seeds: int) -> list[str]:
    """Markdown rows: every template once at the published rates, far above capacity; all must drain."""
    lines = [f"Burst of {len(experiment.workload)} workflows at {rate}/s", ""]
    lines += ["| policy | mean s | P95 s | makespan s | RR P95 / its P95 |", "|---|---|---|---|---|"]
    policies: list[Policy] = [RoundRobin(), LeastLoaded()]
    policies += [HexGenFlow(0.0, True), HexGenFlow(0.0), HexGenFlow(0.2), LeastLaxity(), GreedyUrgency()]
    first: list[float] = []
    for policy in policies:
        results = measured(experiment, policy, rate, len(experiment.workload), seeds)
        p95 = [s.p95_s for s in results]
        first = first or p95
        mean, makespan = shown(s.mean_s for s in results), shown(s.workflows / s.throughput for s in results)
        lines.append(f"| {policy.label} | {mean} | {shown(p95)} | {makespan} | {ratio(first, p95)} |")
    return [*lines, ""]


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces/hexgen-flow"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workflows", type=int, default=600)
    parser.add_argument("--alphas", type=float, nargs="+", default=ALPHAS, help="of HexGen-Flow")
    parser.add_argument("--speed", nargs="+", default=[], metavar="GPU=FACTOR", help="as if a GPU type were faster")
    parser.add_argument("--seats", type=int, help="as if every instance ran at most so many calls at once")
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS)
    parser.add_argument("--only", choices=sorted(TRACES))
    parser.add_argument("--cluster", choices=("hetero-1", "hetero-2"))
    options = parser.parse_args()
    for name in [options.only] if options.only else TRACES:
        workflows = read_trace(options.traces / f"input_file_{name}.json")
        training = read_trace(options.traces / f"input_file_{TRACES[name]}.json")
        for cluster in [options.cluster] if options.cluster else ("hetero-1", "hetero-2"):
            fleet = at_speeds(load_cluster(cluster), dict(item.split("=") for item in options.speed))
            if options.seats is not None:
                seats = [replace(i, max_num_seqs=options.seats) for i in fleet.instances]
                fleet = replace(fleet, instances=tuple(seats))
            experiment = Experiment.of(workflows, fleet, training=training)
            capacity = experiment.capacity()
            deadline = float(experiment.deadline[0])
            print(f"## {name} on {cluster}: capacity {capacity:.3f} workflows/s, deadline {deadline:.0f} s\n")
            for load in options.loads:
                print(f"### {load:.0%} of capacity ({load * capacity:.3f} workflows/s)\n")
                print(
                    "\n".join(table(experiment, options.alphas, load, capacity, options.workflows, options.seeds)),
                    flush=True,
                )
            print("\n".join(sustained(experiment, options.alphas, min(options.seeds, 5))), flush=True)
            if name != "formula1":
                for rate in (0.5, 1.0):
                    print("\n".join(burst(experiment, rate, options.seeds)), flush=True)


if __name__ == "__main__":
    main()
