"""Admission rules against the published simulator of Past-Future's artifact: steps, memory in use, evictions.

    python benchmarks/past_future.py

One instance of 120,000 tokens in blocks of one, without limits on calls or tokens a step, every step a second, 3,000
calls that wait from the start, first come first served; figures up to the admission of the last. The artifact
(WuSiYu/lightllm-ae, behavior-analysis, commit 0da617f) was run with Python's and NumPy's generators seeded by 0; the
lengths here are the same draws; for past-future, which draws samples between them, its run is repeated first.
"""

from __future__ import annotations

import argparse
import random
from bisect import bisect
from collections import deque
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

    steps: int
    memory: float
    evicted: float


def lengths(seed: int) -> dict[str, list[tuple[int, int]]]:
    """Prompt and output lengths of each distribution, drawn one after the other as the artifact does."""
    rng = random.Random(seed)
    return {
        name: [(rng.randint(*prompt), rng.randint(*output)) for _ in range(CALLS)]
        for name, (prompt, output) in LENGTHS.items()
    }


def measure(
    calls: list[tuple[int, int]], policy: PastFuture, seed: int = 0, capacity: int = CAPACITY, block: int = 1
) -> Figures:
    """Run ``calls`` (prompt, output) under ``policy``'s admission rule."""
    limits = {"max_num_seqs": 1024, "max_num_batched_tokens": 1 << 20, "block_size": block, "kv_tokens": capacity}
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
        100.0 * float(row["block_seconds"]) * block / float(row["steps"]) / capacity,
        100.0 * int(row["preemptions"]) / int(row["finished"]),
    )


def published_lengths() -> dict[str, list[tuple[int, int]]]:
    """Lengths of the calls in the published run of past-future, by its rule written anew.

    It draws lengths and samples from the same two generators, so they are known only once its run has been repeated,
    to its very figures. Takes a minute.
    """
    rng = random.Random(0)
    quantiles = np.random.RandomState(0)
    lengths: dict[str, list[tuple[int, int]]] = {}
    for name, ranges in LENGTHS.items():
        calls = lengths[name] = []
        history = deque([512] * 500, maxlen=1000)
        waiting: list[list[int]] = []
        batch: list[list[int]] = []
        steps = ended = evicted = 0
        while True:
            for _ in range(10):
                steps += 1
                for call in batch:
                    call[2] += 1
                history.extend(done for _, output, done in batch if done >= output)
                ended += sum(done >= output for _, output, done in batch)
                batch = [call for call in batch if call[2] < call[1]]
                while sum(prompt + done for prompt, _, done in batch) > CAPACITY:
                    evicted += 1
                    waiting.append(batch.pop())
            samples = _samples(batch, sorted(history), quantiles)
            admitted = 0
            while admitted < 32_768 and (waiting or len(calls) < CALLS):
                if not waiting:
                    calls.append((rng.randint(*ranges[0]), rng.randint(*ranges[1])))
                    waiting.append([*calls[-1], 0])
                prompt, _, done = waiting[-1]
                for sample in samples:
                    sample.append((prompt + done, rng.choice(history)))
                if max(map(_peak, samples)) >= CAPACITY * (1 - 0.03):
                    break
                batch.append(waiting.pop())
                admitted += prompt
            if admitted < 32_768 and not waiting:
                break
        assert (steps, round(100 * evicted / ended, 2)) == PUBLISHED["past-future"][name][::2]
    return lengths


def _samples(batch: list[list[int]], history: list[int], quantiles: Any) -> list[list[tuple[int, int]]]:
    samples: list[list[tuple[int, int]]] = [[] for _ in range(min(5, 200 // len(batch) + 1) if batch else 1)]
    for prompt, _, done in batch:
        points = [done, *history[bisect(history, done) :]]
        points.append(max(4096, points[-1]))
        for sample in samples:
            x = quantiles.random_sample() * (len(points) - 1)
            k = int(x)
            sample.append((prompt + done, round(points[k] + (points[k + 1] - points[k]) * (x - k)) - done))
    return samples


def _peak(sample: list[tuple[int, int]]) -> int:
    held = peak = 0
    for k, (a, b) in enumerate(sorted(sample, key=lambda call: -call[1]), 1):
        held += a
        peak = max(peak, held + k * b)
    return peak


def main() -> None:
    """Print the figures as Markdown."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("| rule | lengths | steps | published | memory % | published | evicted % | published |")
    print("|---|---|---|---|---|---|---|---|")
    drawn, sampled = lengths(0), published_lengths()
    for name in LENGTHS:
        for rule, policy in RULES.items():
            here = measure((sampled if rule == "past-future" else drawn)[name], policy)
            steps, memory, evicted = PUBLISHED[rule][name]
            print(
                f"| {rule} | {name} | {here.steps:,} ({100 * (here.steps / steps - 1):+.2f}%) | {steps:,} "
                f"| {here.memory:.2f} | {memory:.2f} | {here.evicted:.2f} | {evicted:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
