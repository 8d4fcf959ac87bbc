"""Small experiments, and results made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hexopt.cluster import load_cluster
from hexopt.research import Definition
from hexopt.research.analysis import Analysis
from hexopt.research.grid import Setting, Shared
from hexopt.research.results import Cell, Results
from hexopt.traces import synthesize

SMALL: dict[str, Any] = {
    "title": "Small",
    "traces": ["made"],
    "clusters": ["hetero-1"],
    "rates": [0.1, 0.2],
    "slo_factors": [3.0],
    "policies": ["round-robin", "edf"],
    "baseline": "round-robin",
    "workflows": 20,
    "seeds": 2,
    "tuning_seeds": 2,
    "warm_up": 0.2,
    "drain": 0.2,
}
TUNED = [{"policy": "hexgen-flow", "parameter": "alpha", "values": [0.0, 0.5]}]


def small(**changes: Any) -> Definition:
    return Definition.model_validate({**SMALL, **changes})


def shared_for(definition: Definition, workflows: int = 30) -> Shared:
    made = synthesize("text-to-sql", workflows, np.random.default_rng(0))
    return Shared((Setting.of("made", "hetero-1", made, load_cluster("hetero-1"), None, definition),))


def toml(path: Path, *lines: str, **changes: str) -> Path:
    """An experiment file of some seconds; ``changes`` replace a field's text, an empty one removes it."""
    fields = {
        "title": '"Small"', "traces": '["text-to-sql"]', "clusters": '["hetero-1"]', "rates": "[0.1]",
        "slo_factors": "[3.0]", "policies": '["round-robin", "edf"]', "baseline": '"edf"', "workflows": "20",
        "seeds": "2", "warm_up": "0.2", "drain": "0.2", **changes,
    }  # fmt: skip
    path.write_text("\n".join([f"{k} = {v}" for k, v in fields.items() if v] + list(lines)), encoding="utf-8")
    return path


def made_results(
    p95: dict[str, list[float]], loads: tuple[float, ...] = (0.5, 1.0), deadlines: tuple[str, ...] = ("3x",)
) -> Results:
    """Results in which every figure follows from the P95 given for each policy and seed."""
    cells = [
        Cell(0, place, "made", "two", load * 0.4, load, deadline, 10, 5)
        for load in loads
        for place, deadline in enumerate(deadlines)
    ]
    results = Results(cells=cells, capacities=[0.4])
    for cell in cells:
        for policy, values in p95.items():
            for seed, value in enumerate(values):
                latency = value * np.linspace(0.1, 1.1, 50)
                row = {
                    "policy": policy, "workflows": 50, "p95_s": value, "p99_s": value * 1.1, "mean_s": value / 2,
                    "attainment": 10.0 / (10.0 + value), "req95": value / 10, "req99": value / 9,
                    "goodput": 1.0 / (10.0 + value), "utilisation": 0.5, "scheduler_us_per_call": value / 100,
                }  # fmt: skip
                columns = {
                    "template": np.arange(50), "latency_s": latency, "standalone_s": np.full(50, 10.0),
                    "allowed_s": np.full(50, 30.0), "arrival_s": np.arange(50.0),
                }  # fmt: skip
                results.add(cell, policy, policy, seed, row, columns)
    return results


def made_analysis(p95: dict[str, list[float]], baseline: str, **changes: Any) -> Analysis:
    results = made_results(p95, deadlines=tuple(f"{f:g}x" for f in changes.get("slo_factors", [3.0])))
    definition = small(
        policies=list(p95),
        baseline=baseline,
        seeds=len(next(iter(p95.values()))),
        loads=[0.5, 1.0],
        rates=[],
        **changes,
    )
    return Analysis(definition, results, baseline)
