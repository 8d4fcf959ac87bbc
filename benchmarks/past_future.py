"""Admission rules against the published simulator of Past-Future's artifact: steps, memory in use, evictions.

    python benchmarks/past_future.py [--seeds 10]

One instance of 120,000 tokens in blocks of one, without limits on calls or tokens a step, every step a second, 3,000
calls that wait from the start, first come first served; figures up to the admission of the last. The artifact
(WuSiYu/lightllm-ae, behavior-analysis, commit 0da617f) was run with Python's and NumPy's generators seeded by 0; the
lengths here are the same draws for the rules that draw nothing else. Past-Future is the mean of ``--seeds`` draws.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from hexopt.cluster import parse_cluster
from hexopt.policies.past_future import PastFuture
from hexopt.simulation.experiment import Experiment
from hexopt.simulation.simulator import advance, build, fleet_of, instance_table
from hexopt.traces import Stage, Workflow

CAPACITY = 120_000
CALLS = 3_000
LENGTHS = {
    "D1": ((32, 4096), (2048, 4096)),
    "D2": ((3000, 5000), (3000, 5000)),
    "D3": ((2048, 4096), (32, 4096)),
}
"""Ranges of the uniform prompt and output lengths."""
RULES = {
    "aggressive": PastFuture(rule="aggressive", share=0.99),
    "conservative": PastFuture(rule="conservative"),
    "past-future": PastFuture(),
    "true": PastFuture(rule="true"),
}
PUBLISHED = {
    "aggressive": {"D1": (284_160, 98.41, 93.74), "D2": (616_230, 97.83, 97.72), "D3": (227_250, 98.13, 34.30)},
    "conservative": {"D1": (485_650, 57.75, 0.0), "D2": (842_470, 71.71, 0.0), "D3": (374_250, 59.73, 0.0)},
    "past-future": {"D1": (304_160, 93.35, 8.17), "D2": (656_700, 91.74, 7.08), "D3": (245_090, 94.50, 2.86)},
    "true": {"D1": (294_250, 94.87, 0.0), "D2": (653_120, 92.57, 0.0), "D3": (230_690, 96.60, 0.0)},
}
"""Steps, memory in use (%), evictions of a hundred calls ended: the artifact's simulator, seed 0."""


@dataclass(frozen=True)
class Figures:
    """What a rule did until the last call was admitted."""

    steps: float
    memory: float
    evicted: float


def lengths(seed: int) -> dict[str, list[tuple[int, int]]]:
    """Prompt and output lengths of each distribution, drawn one after the other as the artifact does."""
    rng = random.Random(seed)
    return {
        name: [(rng.randint(*prompt), rng.randint(*output)) for _ in range(CALLS)]
        for name, (prompt, output) in LENGTHS.items()
    }


def measure(calls: list[tuple[int, int]], policy: PastFuture, seed: int = 0, capacity: int = CAPACITY) -> Figures:
    """Run ``calls`` (prompt, output) under ``policy``'s admission rule."""
    limits = {"max_num_seqs": 1024, "max_num_batched_tokens": 1 << 20, "block_size": 1, "kv_tokens": capacity}
    row = {"gpu": "a100", "prefix_caching": False, **limits}
    cluster = parse_cluster({"llm": "llama-3.1-8b", "instance": [row]}, "past-future")
    workflows = [Workflow(str(k), (Stage("0", "call", *call),), arrival=0.0) for k, call in enumerate(calls)]
    experiment = Experiment.of(workflows, cluster)
    coef = np.zeros_like(cluster.instances[0].coef)[None]
    coef[0, 0] = 1.0
    until = np.inf
    for _ in range(2):
        jobs = experiment.workload.draw(np.arange(len(calls)), np.zeros(len(calls)), experiment.deadline)
        instance: Any = instance_table(cluster, policy.by_priority)
        policy.configure(instance)
        instance["generator"] += np.uint64(seed * 1_000_003)
        sim: Any = build(jobs, instance, coef)
        know = policy.prepare(fleet_of(cluster), experiment.training, len(calls))
        advance(sim, know, policy, until)
        until = float(sim.stage["start"][-1])
    row = sim.instance[0]
    return Figures(
        int(row["steps"]),
        100.0 * float(row["block_seconds"]) / float(row["steps"]) / capacity,
        100.0 * int(row["preemptions"]) / int(row["finished"]),
    )


def main() -> None:
    """Print the figures as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="draws of lengths for past-future")
    options = parser.parse_args()
    print("| rule | lengths | steps | published | memory % | published | evicted % | published |")
    print("|---|---|---|---|---|---|---|---|")
    drawn = [lengths(seed) for seed in range(options.seeds)]
    for name in LENGTHS:
        for rule, policy in RULES.items():
            # The published run of past-future drew samples and lengths from one generator: its lengths are others.
            seeds = range(options.seeds if rule == "past-future" else 1)
            runs = [measure(drawn[seed][name], policy, seed) for seed in seeds]
            steps, memory, evicted = PUBLISHED[rule][name]
            here = Figures(*np.mean([(run.steps, run.memory, run.evicted) for run in runs], axis=0))
            print(
                f"| {rule} | {name} | {here.steps:,.0f} ({100 * (here.steps / steps - 1):+.2f}%) | {steps:,} "
                f"| {here.memory:.2f} | {memory:.2f} | {here.evicted:.2f} | {evicted:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
