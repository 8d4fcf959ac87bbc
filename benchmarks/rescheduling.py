"""Llumnix's and Continuum's headline settings: relative gains over the same baselines, on this simulator.

    python benchmarks/rescheduling.py [--seeds 5] [--only llumnix]

*Llumnix* (arXiv 2406.03243, section 6.3): single calls with power-law lengths of mean 256 to 6,144 tokens at most for
prompts and outputs alike ("M-M"), on eight instances with 13,616 tokens of KV each, as many as its A10 have; Poisson
arrivals at rates where calls begin to be preempted. *Continuum* (arXiv 2511.02230): sessions of coding agents.
"""

from __future__ import annotations

import argparse

import numpy as np
from policies import shown

from hexopt.cluster import load_cluster, parse_cluster
from hexopt.policies.registry import make_policy
from hexopt.simulation.experiment import Experiment, that_fit
from hexopt.simulation.simulator import Run
from hexopt.traces import Stage, Workflow, read_trace
from hexopt.traces.samples import sample_path

LLUMNIX = ("round-robin", "infaas-style", "llumnix-style")
CONTINUUM = (
    *("least-loaded", "autellix-plas-style", "workflow-fcfs", "continuum-style:ttl=2", "continuum-style"),
    "continuum-style:host_gb=200",
)
LONGEST, MEAN = 6144, 256


def power_law(rng: np.random.Generator, count: int) -> np.ndarray:
    """Lengths of 8 to ``LONGEST`` tokens of density ``x ** -a``, a bisected so that their mean is ``MEAN``."""
    x = np.arange(8, LONGEST + 1, dtype=np.float64)
    low, high = 0.5, 3.0
    for _ in range(60):
        a = (low + high) / 2.0
        share = x**-a / (x**-a).sum()
        low, high = (a, high) if float(share @ x) > MEAN else (low, a)
    return rng.choice(x, size=count, p=share).astype(int)


def llumnix_experiment() -> Experiment:
    """Single calls on eight L40S with Llama-3.1-8B and the memory of Llumnix's A10."""
    rng = np.random.default_rng(0)
    lengths = zip(power_law(rng, 4000), power_law(rng, 4000), strict=True)
    calls = [Workflow(f"{k}", (Stage("0", "k", int(p), int(o)),)) for k, (p, o) in enumerate(lengths)]
    row = {"gpu": "l40s", "count": 8, "kv_tokens": 13616, "max_num_seqs": 256}
    cluster = parse_cluster({"llm": "llama-3.1-8b", "instance": [row]}, "llumnix", "8 x L40S")
    return Experiment.of(that_fit(calls, cluster), cluster)


def figures(run: Run) -> list[float]:
    """Mean and P99 of the calls' latency and time to the first token, seconds; preemptions, migrations a 100 calls."""
    first = run.stage["first_token"] - run.stage["ready"]
    whole = run.stage["finish"] - run.stage["ready"]
    count = len(run.stage)
    return [
        *(float(whole.mean()), float(np.quantile(whole, 0.99)), float(first.mean()), float(np.quantile(first, 0.99))),
        *(100.0 * float(run.stage[field].sum()) / count for field in ("preemptions", "migrations")),
    ]


def llumnix(seeds: int) -> None:
    """Print its table."""
    experiment = llumnix_experiment()
    print("| calls/s | policy | mean s | P99 s | first token mean s | P99 s | preempted % | moved % |")
    print("|---|---|---|---|---|---|---|---|")
    for rate in (6.0, 8.0, 9.0):
        for name in LLUMNIX:
            rows = [figures(experiment.run(make_policy(name), *experiment.sample(6000, rate, s))) for s in range(seeds)]
            print(
                f"| {rate:g} | {name} | {' | '.join(shown(column) for column in zip(*rows, strict=True))} |", flush=True
            )


def continuum(seeds: int) -> None:
    """Print its table."""
    cluster = load_cluster("a100")
    experiment = Experiment.of(that_fit(read_trace(sample_path("coding-agent")), cluster), cluster)
    capacity = experiment.capacity(300)
    print(f"\nCapacity {capacity:.3f} sessions/s.\n")
    print("| load | policy | mean s | P95 s | cache hits % | preemptions |\n|---|---|---|---|---|---|")
    for load in (0.8, 1.1, 1.4):
        for name in CONTINUUM:
            rows = []
            for seed in range(seeds):
                run = experiment.run(make_policy(name), *experiment.sample(300, load * capacity, seed))
                latency = run.workflow["finish"] - run.workflow["arrival"]
                found = run.instance["cached_tokens"].sum()
                share = 100.0 * found / (found + run.instance["computed_tokens"].sum())
                preempted = float(run.stage["preemptions"].sum())
                rows.append([float(latency.mean()), float(np.quantile(latency, 0.95)), float(share), preempted])
            cells = " | ".join(shown(column) for column in zip(*rows, strict=True))
            print(f"| {load:.0%} | {name} | {cells} |", flush=True)


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=("llumnix", "continuum"))
    options = parser.parse_args()
    for name, table in (("llumnix", llumnix), ("continuum", continuum)):
        if options.only in (None, name):
            table(options.seeds)


if __name__ == "__main__":
    main()
