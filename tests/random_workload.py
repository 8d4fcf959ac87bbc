"""Small random workloads on small clusters: where queues build up, memory runs short and prompts share contents."""

from __future__ import annotations

from typing import Any

import numpy as np

from hexopt.cluster import Cluster, parse_cluster
from hexopt.policies.registry import POLICIES
from hexopt.simulation.experiment import Experiment
from hexopt.traces import Prefix, Stage, Workflow

KINDS = ("extract_keywords", "generate_candidate", "revise", "unit_tester", "summarise")
"""Kinds of HexGen-Flow's template, two of which close and are closed, and one that is none of its."""
ALL_POLICIES = (*POLICIES, "hexgen-flow:alpha=0.6,as_shipped=true", "greedy-urgency:affinity=false,imposed=0.3")


def random_workflow(rng: np.random.Generator, number: int) -> Workflow:
    """A random DAG of up to nine calls; prompts may start with a template, a history, or all that was said."""
    stages: list[Stage] = []
    for k in range(int(rng.integers(1, 10))):
        parents = tuple(str(p) for p in range(max(0, k - 4), k) if rng.random() < 0.4)
        kind = str(rng.choice(KINDS))
        own = int(rng.integers(1, 300))
        prefixes: list[Prefix] = []
        if rng.random() < 0.6:
            prefixes.append(Prefix(f"template/{kind}", int(rng.choice([16, 100, 101, 257]))))
        if rng.random() < 0.5:
            prefixes.append(Prefix("history", 40 * (k + 1), local=True))
        quoting = [s for s in stages if s.output_segment is not None]
        if quoting and rng.random() < 0.5:
            said = quoting[-1]
            prefixes = [*said.prefixes, Prefix(str(said.output_segment), said.output_tokens, local=True)]
        quoted = bool(prefixes) and rng.random() < 0.3
        prompt = sum(p.tokens for p in prefixes) + (0 if quoted else own)
        delay = float(rng.exponential(0.5)) if rng.random() < 0.3 else 0.0
        output = int(rng.integers(1, 120))
        stages.append(
            Stage(str(k), kind, prompt, output, parents, tuple(prefixes), f"said {k}" if quoted else None, delay)
        )
    return Workflow(
        f"w{number}",
        tuple(stages),
        arrival=float(rng.exponential(2.0)) + number,
        deadline=float(rng.uniform(0.2, 4.0)) if rng.random() < 0.4 else None,
        weight=float(rng.integers(1, 4)),
        tenant=str(rng.choice(["a", "b"])),
        family=str(rng.choice(["x", "y"])),
    )


def random_workflows(rng: np.random.Generator, count: int) -> list[Workflow]:
    return [random_workflow(rng, number) for number in range(count)]


def small_cluster(**limits: Any) -> Cluster:
    """Three unequal instances with little memory and small batches, unless ``limits`` say otherwise."""
    tight = {"kv_tokens": 2400, "max_num_seqs": 6, "max_num_batched_tokens": 256, **limits}
    rows = [{"gpu": gpu, **tight} for gpu in ("l40s", "h100", "a6000")]
    return parse_cluster({"llm": "llama-3.1-8b", "instance": rows}, "test")


def random_experiment(seed: int, count: int = 8, **limits: Any) -> Experiment:
    return Experiment.of(random_workflows(np.random.default_rng(seed), count), small_cluster(**limits))
