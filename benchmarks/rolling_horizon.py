"""The rolling horizon end to end, against the policies that decide call by call.

    python benchmarks/rolling_horizon.py --traces ../shared/traces --seeds 10
    python benchmarks/rolling_horizon.py --traces ../shared/traces --seeds 10 --ablations
    python benchmarks/rolling_horizon.py --traces ../shared/traces --seeds 10 --solvers --only trace2
    python benchmarks/rolling_horizon.py --traces ../shared/traces --seeds 5 --sustained --workflows 600

Workloads are the real Text-to-SQL traces and coding-agent sessions, and synthetic families; loads are shares of the
capacity that is measured first (``Experiment.capacity``). HexGen-Flow's best is the alpha of its own grid with the
lowest mean P95 at each setting, in both variants. Intervals are 95% t-intervals over seeds, ratios and differences are
paired by seed. Solving takes no simulated time here unless a row says so: runs repeat bit for bit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from policies import ALPHAS, TRACES, interval, ratio, shown

from hexopt.cluster import load_cluster
from hexopt.policies.knowledge import Knowledge
from hexopt.policies.policy import Fleet, GreedyUrgency, HexGenFlow, Policy, RoundRobin, Training
from hexopt.policies.rolling_horizon import RollingHorizon
from hexopt.simulation.experiment import Experiment, that_fit
from hexopt.simulation.metrics import Summary, summarise
from hexopt.traces import read_trace
from hexopt.traces.synthesis import synthesize

LOADS = (0.8, 0.95, 1.1)
HORIZON = RollingHorizon(freeze=True)
LOST = replace(HORIZON, objective="attainment")
OURS: tuple[Policy, ...] = (
    GreedyUrgency(),
    HORIZON,
    replace(HORIZON, solver="greedy"),
    replace(HORIZON, solver="congestion-lp"),
    GreedyUrgency(lost=0.1),
    LOST,
)
FAMILIES = ("tool-agent", "tree-search", "map-reduce")
"""Synthetic ones."""


@dataclass(frozen=True)
class Mistaken(RollingHorizon):
    """A rolling horizon whose beliefs are wrong by a factor."""

    latency: float = 1.0
    """Of the step times of every second instance."""
    length: float = 1.0
    """Of all expected outputs."""

    @property
    def label(self) -> str:
        """What is wrong."""
        return f"latency of every second instance x {self.latency:g}, outputs x {self.length:g}"

    def prepare(self, fleet: Fleet, training: Training, workflows: int) -> Knowledge:
        """The usual knowledge, spoilt."""
        know = super().prepare(fleet, training, workflows)
        coef = know.coef.copy()
        coef[::2] *= self.latency
        # Means decide; a thousand copies of what was seen keep the run from correcting them.
        lengths = know.lengths._replace(total=know.lengths.total * self.length * 1e3, seen=know.lengths.seen * 1e3)
        return know._replace(coef=coef, lengths=lengths if self.length != 1.0 else know.lengths)


ABLATIONS: dict[str, Policy] = {
    "as it is": HORIZON,
    "epoch 50 ms": replace(HORIZON, epoch=0.05),
    "epoch 1 s": replace(HORIZON, epoch=1.0),
    "floor 0": replace(HORIZON, floor=0.0),
    "floor 100 ms": replace(HORIZON, floor=0.1),
    "floor 1 s": replace(HORIZON, floor=1.0),
    "no late binding": replace(HORIZON, late_binding=False),
    "no reassignment": replace(HORIZON, reassign=False),
    "no congestion term": replace(HORIZON, congestion=False),
    "due dates by the median tail": replace(HORIZON, tail_share=0.5),
    "due dates by the 80% tail": replace(HORIZON, tail_share=0.8),
    "due dates by the 95% tail": replace(HORIZON, tail_share=0.95),
    "successors expected 2 s ahead": replace(HORIZON, lookahead=2.0),
    "successors expected 5 s ahead": replace(HORIZON, lookahead=5.0),
    "successors expected 10 s ahead": replace(HORIZON, lookahead=10.0),
    "no step for being late": replace(HORIZON, objective="deadline:late=0"),
    "tardiness weighs 1": replace(HORIZON, objective="deadline:tardiness=1"),
    "solving takes 20 ms": replace(HORIZON, freeze=False, solve_seconds=0.02),
    "solving takes 100 ms": replace(HORIZON, freeze=False, solve_seconds=0.1),
    "solving takes 500 ms": replace(HORIZON, freeze=False, solve_seconds=0.5),
    "greedy insertion plans": replace(HORIZON, solver="greedy"),
    "latency believed 20% too long": Mistaken(freeze=True, latency=1.2),
    "latency believed 20% too short": Mistaken(freeze=True, latency=0.8),
    "outputs believed 20% too long": Mistaken(freeze=True, length=1.2),
    "outputs believed 20% too short": Mistaken(freeze=True, length=0.8),
}

SOLVED: dict[str, Policy] = {
    "annealing, 300 moves a stage": HORIZON,
    "greedy insertion": replace(HORIZON, solver="greedy"),
    "congestion LP, 20 ms": replace(HORIZON, solver="congestion-lp"),
    "portfolio, 20 ms": replace(HORIZON, solver="portfolio"),
    "CP-SAT, 20 ms": replace(HORIZON, solver="cp-sat"),
    "exact, 20 ms": replace(HORIZON, solver="exact"),
    "annealing, 20 ms, as long as it takes": RollingHorizon(),
    "congestion LP, 20 ms, as long as it takes": RollingHorizon(solver="congestion-lp"),
    "portfolio, 20 ms, as long as it takes": RollingHorizon(solver="portfolio"),
}
"""Limits of real time; *as long as it takes*: a plan comes as many simulated seconds later as solving really took."""


@cache
def experiment_of(name: str, cluster: str, traces: Path) -> tuple[Experiment, float]:
    """A workload on a cluster, and its capacity."""
    fleet = load_cluster(cluster)
    if name in TRACES:
        folder = traces / "hexgen-flow"
        pool = read_trace(folder / f"input_file_{name}.json")
        training = read_trace(folder / f"input_file_{TRACES[name]}.json")
    elif name == "coding-agents":
        pool = that_fit(read_trace(traces / "weka" / "weka_requests.csv.gz"), fleet)
        pool, training = pool[1::2], pool[::2]
    else:
        drawn = that_fit(synthesize(name, 400, np.random.default_rng(1)), fleet)
        pool, training = drawn[1::2], drawn[::2]
    experiment = Experiment.of(pool, fleet, training=training)
    return experiment, experiment.capacity()


def one(name: str, cluster: str, traces: Path, load: float, workflows: int, policy: Policy, seed: int) -> Summary:
    """Figures of one run."""
    experiment, capacity = experiment_of(name, cluster, traces)
    picks, times = experiment.sample(workflows, load * capacity, seed)
    return summarise(experiment.run(policy, picks, times), experiment.standalone[picks])


def rate(name: str, cluster: str, traces: Path, workflows: int, policy: Policy, seed: int) -> float:
    """Workflows a second up to which at least 95% of them are in time."""
    return experiment_of(name, cluster, traces)[0].capacity(workflows, seed, policy, share=0.95)


def rate_rows(rates: dict[str, list[float]], grid: int) -> Iterator[str]:
    """Markdown rows of rates, of the first ``grid`` only the best; ratios are to that."""
    labels = list(rates)
    best = max(labels[:grid], key=lambda label: float(np.mean(rates[label])))
    yield "| policy | workflows/s | its rate / HexGen-Flow's best | its rate / greedy urgency's |"
    yield "|---|---|---|---|"
    for label in (best, *labels[grid:]):
        mean, half = interval(rates[label])
        against = [ratio(rates[label], rates[base]) for base in (best, GreedyUrgency().label)]
        yield f"| {label} | {mean:.3f} ± {half:.3f} | {' | '.join(against)} |"


def figures(results: list[Summary], field: str, scale: float = 1.0) -> list[float]:
    """One figure of each seed."""
    return [getattr(s, field) * scale for s in results]


def difference(ours: list[Summary], base: list[Summary]) -> str:
    """Percentage points of attainment that ``ours`` has more, paired."""
    mean, half = interval(np.array(figures(ours, "attainment", 100)) - np.array(figures(base, "attainment", 100)))
    return f"{mean:+.1f} ± {half:.1f}"


def rows(named: dict[str, list[Summary]], base: str, hexgen: list[Summary] | None) -> Iterator[str]:
    """Markdown rows; ``base`` is what attainment and tardiness are compared with."""
    yield (
        (
            "| policy | mean s | P95 s | in time % | points over greedy urgency | mean tardiness s | greedy urgency's "
            "tardiness / its | HexGen-Flow's best P95 / its |"
        )
        if hexgen
        else "| change | P95 s | in time % | points more | mean tardiness s | P95 before / after |"
    )
    yield "|---|---|---|---|---|---|---|---|" if hexgen else "|---|---|---|---|---|---|"
    for label, results in named.items():
        p95, tardy = figures(results, "p95_s"), figures(results, "mean_tardiness_s")
        in_time, points = shown(figures(results, "attainment", 100)), difference(results, named[base])
        if hexgen:
            less = float(np.mean(figures(named[base], "mean_tardiness_s"))) / max(float(np.mean(tardy)), 1e-9)
            against = ratio(figures(hexgen, "p95_s"), p95)
            yield (
                f"| {label} | {shown(figures(results, 'mean_s'))} | {shown(p95)} | {in_time} | {points} "
                f"| {shown(tardy)} | {less:.2f} | {against} |"
            )
        else:
            before = ratio(figures(named[base], "p95_s"), p95)
            yield f"| {label} | {shown(p95)} | {in_time} | {points} | {shown(tardy)} | {before} |"


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workflows", type=int, default=400)
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS)
    parser.add_argument("--only", nargs="+", help="trace1, trace2, formula1, coding-agents, tree-search ...")
    parser.add_argument("--cluster", choices=("hetero-1", "hetero-2"))
    parser.add_argument("--ablations", action="store_true", help="switches of the rolling horizon, one at a time")
    parser.add_argument("--rows", nargs="+", help="of --ablations and --solvers, those with one of these words")
    parser.add_argument("--solvers", action="store_true", help="its solvers, frozen and in real time")
    parser.add_argument("--sustained", action="store_true", help="rates up to which 95%% of the workflows are in time")
    parser.add_argument("--busy", action="store_true", help="limits count processor time: others use the machine too")
    parser.add_argument("--processes", type=int, help="runs at a time; all cores by default")
    options = parser.parse_args()
    if options.busy:
        time.perf_counter = time.thread_time
    clusters = [options.cluster] if options.cluster else ["hetero-1", "hetero-2"]
    switches = ABLATIONS if options.ablations else SOLVED if options.solvers else {}
    if options.rows:
        first = next(iter(switches))
        switches = {k: v for k, v in switches.items() if k == first or any(word in k for word in options.rows)}
    if switches or options.sustained:
        settings = [(n, c) for n in options.only or ["trace1", "trace2"] for c in clusters[:1]]
    else:
        names = options.only or [*TRACES, "coding-agents", *FAMILIES]
        settings = [(n, c) for n in names for c in (["h100-l40s"] if n == "coding-agents" else clusters)]
    grid = [HexGenFlow(alpha, shipped) for alpha in ALPHAS for shipped in (True, False)]
    with ProcessPoolExecutor(options.processes) as pool:

        def measure(policy: Policy, run: Callable[..., Any]) -> list[Any]:
            return list(pool.map(partial(run, policy), range(options.seeds)))

        for name, cluster in settings:
            if options.sustained:
                run = partial(rate, name, cluster, options.traces, options.workflows)
                rates = {policy.label: measure(policy, run) for policy in (*grid, GreedyUrgency(), HORIZON)}
                print(f"### {name} on {cluster}\n\n" + "\n".join(rate_rows(rates, len(grid))), "\n", flush=True)
                continue
            capacity = experiment_of(name, cluster, options.traces)[1]
            for load in options.loads if not switches else (0.95,):
                print(f"### {name} on {cluster}, {load:.0%} of {capacity:.3f} workflows/s\n")
                run = partial(one, name, cluster, options.traces, load, options.workflows)
                if switches:
                    named = {label: measure(policy, run) for label, policy in switches.items()}
                    print("\n".join(rows(named, next(iter(switches)), None)), "\n", flush=True)
                    continue
                hexgen = {policy.label: measure(policy, run) for policy in grid}
                best = min(hexgen, key=lambda label: float(np.mean(figures(hexgen[label], "p95_s"))))
                named = {"round-robin": measure(RoundRobin(), run), best: hexgen[best]}
                named |= {policy.label: measure(policy, run) for policy in OURS}
                print("\n".join(rows(named, GreedyUrgency().label, hexgen[best])), "\n", flush=True)


if __name__ == "__main__":
    main()
