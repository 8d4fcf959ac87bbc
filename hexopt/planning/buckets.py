"""The cheapest fleet for a throughput table, as a mixed integer program with continuous shares.

Mélange (arXiv 2404.14527) cuts each bucket of requests into slices and gives each slice to one GPU type by a binary
variable. The slices of a bucket are alike, so binaries only make the program symmetric. With ``z[g, b]`` the share of
bucket b that GPU type g serves, and ``n[g]`` how many there are,

``min sum_g price[g] n[g]``, ``sum_g z[g, b] = 1``, ``sum_b z[g, b] demand[b] / throughput[g, b] <= n[g]``,
``z >= 0``, ``n`` integer, ``n <= max_gpus``.

Its optimum is never dearer than that of the slices, and their limit as they grow finer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hexopt.planning.importers import ThroughputTable
from hexopt.solvers.extras import extra


class InfeasibleError(ValueError):
    """No fleet can serve the workload; the message is one line and says what is missing."""


@dataclass(frozen=True, slots=True, eq=False)
class ThroughputPlan:
    """A fleet for a throughput table.

    Parameters
    ----------
    counts
        How many of each GPU type, 0 where none is needed.
    cost
        Money an hour.
    bound
        Money an hour that no fleet can undercut.
    shares
        Share of each bucket that each GPU type serves, shape (g, b); nothing where there is no demand.
    seconds
        That solving took.
    """

    counts: dict[str, int]
    cost: float
    bound: float
    shares: NDArray[np.float64] = field(repr=False)
    seconds: float

    @property
    def gap(self) -> float:
        """How far the cost may be above the optimum, relative to the cost."""
        return 0.0 if self.cost <= self.bound else (self.cost - self.bound) / self.cost


def cheapest_by_throughput(
    table: ThroughputTable,
    *,
    max_gpus: Mapping[str, int] | None = None,
    backend: Literal["highs", "cbc"] = "highs",
    time_limit: float = 60.0,
) -> ThroughputPlan:
    """The cheapest fleet that has the throughput.

    Parameters
    ----------
    max_gpus
        How many there are at most of the GPU types that it names.
    backend
        Which solver, through PuLP.
    time_limit
        Seconds; the best fleet found by then is returned with its bound.

    Raises
    ------
    InfeasibleError
        Naming a bucket that no GPU type serves, or how much of the rate the inventory can serve.
    ValueError
        If an argument is wrong, or the time is too short to find any fleet.
    """
    started = time.perf_counter()
    most = _inventory(table, max_gpus or {})
    load = _loads(table, most)
    pulp = extra("pulp")
    if np.isfinite(most).any():
        _check_inventory(table, most, load, pulp, _solver(pulp, backend, time_limit))
    model = pulp.LpProblem("fleet", pulp.LpMinimize)
    count = [
        pulp.LpVariable(f"n{g}", lowBound=0, upBound=int(most[g]) if np.isfinite(most[g]) else None, cat="Integer")
        for g in range(len(table.gpus))
    ]
    model += pulp.lpSum(float(price) * n for price, n in zip(table.price, count, strict=True))
    share = _shares(model, load, count, pulp)
    for terms in _by_bucket(share, load.shape[1]):
        model += pulp.lpSum(terms) == 1
    model.solve(_solver(pulp, backend, time_limit - (time.perf_counter() - started)))
    if model.sol_status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
        raise ValueError(f"{_source(table)}{backend} found no fleet in {time_limit:g} s, give it more time")
    found = np.array([round(n.varValue) for n in count])
    cost = float(table.price @ found)
    bound = cost if model.sol_status == pulp.LpSolutionOptimal else max(_floor(table, load), _proven(model, backend))
    shares = np.zeros(load.shape)
    for (g, b), variable in share.items():
        shares[g, b] = variable.varValue
    counts = {gpu: int(n) for gpu, n in zip(table.gpus, found, strict=True)}
    return ThroughputPlan(counts, cost, min(bound, cost), shares, time.perf_counter() - started)


def _source(table: ThroughputTable) -> str:
    return f"{table.source}: " if table.source else ""


def _inventory(table: ThroughputTable, max_gpus: Mapping[str, int]) -> NDArray[np.float64]:
    """How many there are at most of each GPU type, shape (g,)."""
    for name, most in max_gpus.items():
        if name not in table.gpus:
            raise ValueError(f"max_gpus: unknown GPU {name!r}, expected one of {', '.join(table.gpus)}")
        if most < 0:
            raise ValueError(f"max_gpus: {name} is {most}, expected at least 0")
    return np.array([float(max_gpus.get(gpu, math.inf)) for gpu in table.gpus])


def _loads(table: ThroughputTable, most: NDArray[np.float64]) -> NDArray[np.float64]:
    """GPUs that each type needs for the whole of each bucket, infinite where it serves none of it, shape (g, b)."""
    demand = table.demand
    serves = (table.throughput > 0) & (most > 0)[:, None]
    load = np.where(serves, demand / np.where(serves, table.throughput, 1.0), np.inf)
    load[:, demand <= 0] = 0.0
    lost = np.flatnonzero((demand > 0) & ~serves.any(axis=0))
    if lost.size:
        b = lost[0]
        others = f", nor {lost.size - 1} more buckets" if lost.size > 1 else ""
        none = "its throughput is 0 on every GPU type" if not table.throughput[:, b].any() else "max_gpus allows none"
        raise InfeasibleError(
            f"{_source(table)}no GPU type serves bucket {table.buckets[b]!r} "
            f"({table.share[b]:.1%} of the requests){others}: {none}"
        )
    return load


def _shares(model: Any, load: NDArray[np.float64], count: Any, pulp: Any) -> dict[tuple[int, int], Any]:
    """Share variables where a type can serve a bucket with demand; adds what they need of the GPUs to ``model``.

    ``count`` is a number or a variable a type, None where there is no end of them.
    """
    share = {
        (int(g), int(b)): pulp.LpVariable(f"z{g}_{b}", lowBound=0)
        for g, b in zip(*np.nonzero(np.isfinite(load) & (load > 0)), strict=True)
    }
    for g in range(load.shape[0]):
        terms = [float(load[key]) * variable for key, variable in share.items() if key[0] == g]
        if terms and count[g] is not None:
            model += pulp.lpSum(terms) <= count[g]
    return share


def _by_bucket(share: dict[tuple[int, int], Any], buckets: int) -> list[list[Any]]:
    terms: list[list[Any]] = [[] for _ in range(buckets)]
    for (_, b), variable in share.items():
        terms[b].append(variable)
    return [those for those in terms if those]


def _check_inventory(
    table: ThroughputTable, most: NDArray[np.float64], load: NDArray[np.float64], pulp: Any, solver: Any
) -> None:
    """Refuse an inventory that cannot serve everything, saying which part of the rate it can."""
    model = pulp.LpProblem("inventory", pulp.LpMaximize)
    part = pulp.LpVariable("part", lowBound=0, upBound=1)
    model += part
    share = _shares(model, load, [float(n) if np.isfinite(n) else None for n in most], pulp)
    for terms in _by_bucket(share, load.shape[1]):
        model += pulp.lpSum(terms) == part
    model.solve(solver)
    if part.varValue is not None and part.varValue < 1.0 - 1e-7:
        had = ", ".join(f"{int(n)} {gpu}" for gpu, n in zip(table.gpus, most, strict=True) if np.isfinite(n))
        raise InfeasibleError(
            f"{_source(table)}the inventory is too small: {had} serve at most {part.varValue * table.rate:.4g} "
            f"of {table.rate:.4g} requests a second"
        )


def _solver(pulp: Any, backend: str, time_limit: float) -> Any:
    if backend == "highs":
        return pulp.HiGHS(msg=False, timeLimit=max(time_limit, 0.1), gapRel=0.0, gapAbs=0.0)
    if backend == "cbc":
        return pulp.PULP_CBC_CMD(msg=False, timeLimit=max(time_limit, 0.1), gapRel=0.0, gapAbs=0.0)
    raise ValueError(f"backend {backend!r}: expected highs or cbc")


def _floor(table: ThroughputTable, load: NDArray[np.float64]) -> float:
    """Cost if GPUs could be rented by the part."""
    dearness = np.where(np.isfinite(load), load, 0.0) * table.price[:, None]
    return float(np.where(np.isfinite(load), dearness, np.inf).min(axis=0).sum())


def _proven(model: Any, backend: str) -> float:
    """What the solver has proven; CBC does not tell."""
    return float(model.solverModel.getInfo().mip_dual_bound) if backend == "highs" else -math.inf
