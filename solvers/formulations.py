"""The models as one reads them, in PuLP: for study, for other back ends, and for export as LP and MPS files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from hexopt.solvers.arcflow import arcflow_model
from hexopt.solvers.arcs import surviving_arcs
from hexopt.solvers.congestion import congestion_of
from hexopt.solvers.extras import extra
from hexopt.solvers.insertion import greedy
from hexopt.solvers.lagrangian import Lagrangian
from hexopt.solvers.problem import EpochProblem

_MOST_ARCS = 200_000


def congestion_model(problem: EpochProblem, *, integer: bool = True) -> Any:
    """The congestion model (:mod:`hexopt.solvers.congestion`) as a ``pulp.LpProblem``; ``x_r_i``, ``x_r_held``."""
    pulp = extra("pulp")

    p: Any = problem
    weights = problem.weights
    c = congestion_of(problem)
    m = problem.instances
    model = pulp.LpProblem("congestion", pulp.LpMinimize)
    category = "Binary" if integer else "Continuous"
    places = {r: [int(i) for i in np.flatnonzero(np.isfinite(c.place[r]))] for r in range(problem.stages)}
    x = {(r, i): pulp.LpVariable(f"x_{r}_{i if i < m else 'held'}", 0, 1, category) for r in places for i in places[r]}
    tardiness = [pulp.LpVariable(f"tardiness_{w}", 0) for w in range(len(p.due))]
    late = [pulp.LpVariable(f"late_{w}", 0) for w in range(len(p.due))]
    over = {(i, j): pulp.LpVariable(f"over_{i}_{j}", 0) for i in range(m) for j in range(c.kind.size)}
    worst = pulp.LpVariable("worst_tenant", 0)

    model += (
        pulp.lpSum(float(c.place[r, i]) * x[r, i] for r, i in x)
        + pulp.lpSum(
            float(w) * (weights.tardiness * t + weights.late * step)
            for w, t, step in zip(p.weight, tardiness, late, strict=True)
        )
        + pulp.lpSum(float(c.slope[i, j]) * over[i, j] for i, j in over)
        + weights.fairness * worst
    )
    for r, w in enumerate(p.workflow.tolist()):
        if places[r]:
            model += pulp.lpSum(x[r, i] for i in places[r]) == 1, f"once_{r}"
        model += pulp.lpSum(float(c.late[r, i]) * x[r, i] for i in places[r]) <= tardiness[w], f"tardy_{r}"
        model += pulp.lpSum(x[r, i] for i in places[r] if c.late[r, i] > 0) <= late[w], f"step_{r}"
    for i, j in over:
        load = c.load[c.kind[j]]
        placed = pulp.lpSum(float(load[r, i]) * x[r, i] for r in places if (r, i) in x)
        model += placed - over[i, j] <= float(c.room[i, j]), f"load_{i}_{j}"
    for t, share in enumerate(p.share.tolist()):
        his = pulp.lpSum(float(p.weight[w]) / share * tardiness[w] for w in np.flatnonzero(p.tenant == t).tolist())
        model += his <= worst, f"tenant_{t}"
    return model


def epoch_model(problem: EpochProblem) -> Any:
    """The whole epoch problem as an arc-flow ``pulp.LpProblem``, over all starts that the bound does not rule out.

    Raises
    ------
    ValueError
        If that is more than 200,000 starts.
    """
    plan = greedy(problem)
    search = Lagrangian(problem, plan, 48)
    search.ascend(plan.objective, iterations=300)
    arcs = surviving_arcs(search, plan.objective, _MOST_ARCS)
    if arcs is None:
        raise ValueError(f"the arc-flow model has more than {_MOST_ARCS} arcs; export the congestion model instead")
    return arcflow_model(problem, arcs)[0]


def export(model: Any, path: Path) -> None:
    """Write a model as .lp or .mps; nothing is left half-written.

    Raises
    ------
    ValueError
        If the name ends otherwise.
    """
    if path.suffix not in (".lp", ".mps"):
        raise ValueError(f"{path}: expected a name that ends in .lp or .mps")
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    try:
        model.writeLP(part) if path.suffix == ".lp" else model.writeMPS(part)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
