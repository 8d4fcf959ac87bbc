"""Mélange's own program, as an oracle: buckets cut into slices, each given whole to one GPU type (arXiv 2404.14527)."""

from __future__ import annotations

import pulp

from hexopt.planning.importers import ThroughputTable


def sliced_cost(table: ThroughputTable, slices: int) -> float:
    """Cost of the cheapest fleet when every bucket is cut into ``slices`` equal parts; infinite if there is none."""
    model = pulp.LpProblem("slices", pulp.LpMinimize)
    n = [pulp.LpVariable(f"n{g}", lowBound=0, cat="Integer") for g in range(len(table.gpus))]
    model += pulp.lpSum(float(p) * v for p, v in zip(table.price, n, strict=True))
    load: list[list[object]] = [[] for _ in table.gpus]
    for b, demand in enumerate(table.demand):
        for s in range(slices if demand > 0 else 0):
            taken = []
            for g, throughput in enumerate(table.throughput[:, b]):
                if throughput > 0:
                    x = pulp.LpVariable(f"x{g}_{b}_{s}", cat="Binary")
                    taken.append(x)
                    load[g].append(float(demand / slices / throughput) * x)
            model += pulp.lpSum(taken) == 1
    for g, terms in enumerate(load):
        model += pulp.lpSum(terms) <= n[g]
    model.solve(pulp.HiGHS(msg=False, gapRel=0.0, gapAbs=0.0, timeLimit=30))
    return float(pulp.value(model.objective)) if model.sol_status == pulp.LpSolutionOptimal else float("inf")
