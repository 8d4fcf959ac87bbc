"""The fleet model: which instances to buy, as a mixed-integer linear program in PuLP.

n[j] instances of option j are bought; x[k, j, p] is the share of work class k that runs on option j in decode batches
of size p. The model asks for less than any fleet needs that keeps the promise (:mod:`hexopt.planning.efficiency`): no
waiting, no bad luck, on average. So its optimum bounds the cost of every such fleet from below; which fleet does keep
the promise is for the simulator to say, and what it refutes is cut off here. ``docs/planning.md`` has the mathematics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hexopt.planning.dominance import Dominance
from hexopt.planning.efficiency import Efficiency
from hexopt.planning.fleet import Fleet, Limits, Option, whole_nodes
from hexopt.planning.work import Work
from hexopt.solvers.extras import extra

Backend = Literal["highs", "cbc"]


@dataclass(frozen=True)
class Solution:
    """What the model says.

    Parameters
    ----------
    status
        ``optimal``, ``feasible`` (time ran out), ``infeasible``, or ``unknown`` (time ran out before any fleet).
    fleet
        Instances of each option; empty without one.
    cost, bound
        Money an hour of the fleet, and what no fleet that the model allows goes below.
    split
        Seconds that the model gives a call of each class, shape (k,); NaN without a fleet.
    columns, rows
        Size of the model.
    build_seconds, solve_seconds
        Time taken.
    """

    status: str
    fleet: Fleet
    cost: float
    bound: float
    split: Any
    columns: int
    rows: int
    build_seconds: float
    solve_seconds: float

    @property
    def gap(self) -> float:
        """(cost - bound) / cost."""
        return (self.cost - self.bound) / self.cost if self.cost > 0 else 0.0


class FleetModel:
    """The model of one demand on some options; cuts stay once added.

    Parameters
    ----------
    headroom
        Factor by which capacity and speed must exceed what the work needs at best; only 1 gives a bound.
    dominance
        The order of the options; made of ``efficiency`` by default.
    """

    def __init__(
        self,
        work: Work,
        efficiency: Efficiency,
        options: Sequence[Option],
        limits: Limits,
        headroom: float = 1.0,
        dominance: Dominance | None = None,
    ) -> None:
        self.pulp = extra("pulp")
        started = time.perf_counter()
        self.options, self.limits, self.work = tuple(options), limits, work
        self.dominance = dominance or Dominance(options, efficiency)
        self.problem = self.pulp.LpProblem("fleet", self.pulp.LpMinimize)
        self._thresholds: dict[tuple[tuple[int, ...], int], Any] = {}
        self._cuts = 0
        self._instances()
        self._flows(work, efficiency, headroom)
        self.build_seconds = time.perf_counter() - started

    def _instances(self) -> None:
        pulp, limits = self.pulp, self.limits
        self.count = [
            pulp.LpVariable(f"n_{j}", *limits.range_of(j, o), cat=pulp.LpInteger) for j, o in enumerate(self.options)
        ]
        cost = []
        for gpu in dict.fromkeys(option.gpu for option in self.options):
            own = [j for j, o in enumerate(self.options) if o.gpu == gpu and o.buyable]
            if not own:
                continue
            gpus = self.gpus_of(gpu)
            offer = limits.offers.get(gpu)
            if offer is not None and whole_nodes(limits, gpu):
                most = None if offer.max is None else offer.max // offer.per_node
                nodes = pulp.LpVariable(f"nodes_{gpu}", 0, most, pulp.LpInteger)
                self.problem += gpus <= offer.per_node * nodes, f"nodes_of_{gpu}"
                cost.append(offer.per_node * offer.price * nodes)
                continue
            if offer is not None and offer.max is not None:
                self.problem += gpus <= offer.max, f"inventory_{gpu}"
            cost += [self.options[j].price * self.count[j] for j in own]
            cost += self._spot(gpu, own)
        total = pulp.lpSum(cost)
        self.problem.setObjective(total)
        if math.isfinite(limits.budget):
            self.problem += total <= limits.budget, "budget"
        self._total = total

    def gpus_of(self, gpu: str) -> Any:
        """The GPUs of a type that are bought, as an expression."""
        own = [j for j, o in enumerate(self.options) if o.gpu == gpu and o.buyable]
        return self.pulp.lpSum(self.options[j].gpus * self.count[j] for j in own)

    def _spot(self, gpu: str, own: list[int]) -> list[Any]:
        """Savings by spot instances of one GPU type."""
        saved, used = [], []
        for j in own:
            option = self.options[j]
            if self.limits.spot_share <= 0 or option.spot_price is None or option.spot_price >= option.price:
                continue
            spot = self.pulp.LpVariable(f"spot_{j}", 0, None, self.pulp.LpInteger)
            self.problem += spot <= self.limits.spot_share * self.count[j], f"spot_share_{j}"
            saved.append((option.spot_price - option.price) * spot)
            used.append(option.gpus * spot)
        offer = self.limits.offers.get(gpu)
        if used and offer is not None and offer.max_spot is not None:
            self.problem += self.pulp.lpSum(used) <= offer.max_spot, f"max_spot_{gpu}"
        return saved

    def _flows(self, work: Work, efficiency: Efficiency, headroom: float) -> None:
        pulp = self.pulp
        self._latency: list[list[tuple[float, Any]]] = [[] for _ in range(len(work))]
        busy: list[list[Any]] = [[] for _ in self.options]
        memory: list[list[Any]] = [[] for _ in self.options]
        for k in range(len(work)):
            shares = []
            for j, p in useful_points(efficiency, k):
                x = pulp.LpVariable(f"x_{k}_{j}_{p}", 0)
                shares.append((x, 1.0))
                busy[j].append((x, work.rate[k] * float(efficiency.busy[k, j, p])))
                memory[j].append((x, work.rate[k] * float(efficiency.resident[k, j, p]) / efficiency.capacity[j]))
                self._latency[k].append((float(efficiency.latency[k, j, p]), x))
            self._row(shares, 1.0, "==", f"serve_{k}")
        for j, count in enumerate(self.count):
            self._row([*busy[j], (count, -1.0 / headroom)], 0.0, "<=", f"busy_{j}")
            self._row([*memory[j], (count, -1.0 / headroom)], 0.0, "<=", f"memory_{j}")
        for g in range(len(work.groups)):
            ways = [(x, work.path[g, k] * s) for k in np.flatnonzero(work.path[g]) for s, x in self._latency[k]]
            self._row(ways, work.slack[g] / headroom, "<=", f"deadline_{g}")

    def _row(self, terms: Iterable[tuple[Any, float]], right: float, sense: str, name: str) -> None:
        # Built from a dictionary: sums of expressions would take most of the time.
        expression = self.pulp.LpAffineExpression({x: float(c) for x, c in terms})
        kind = {"==": self.pulp.LpConstraintEQ, "<=": self.pulp.LpConstraintLE}[sense]
        self.problem += self.pulp.LpConstraint(expression, kind, name, right)

    def cut(self, fleet: Fleet, clearly: bool = False) -> None:
        """Forbid ``fleet`` and every fleet with no more of anything; if it failed ``clearly``, all that are no better.

        The latter are those of :mod:`hexopt.planning.dominance`.
        """
        sets = self.dominance.sets(fleet) if clearly else (((j,), n) for j, n in enumerate(fleet))
        more = [self._more_than(members, count) for members, count in sets]
        self._cuts += 1
        self.problem += self.pulp.lpSum(more) >= 1, f"cut_{self._cuts}"

    def _more_than(self, members: tuple[int, ...], count: int) -> Any:
        """The binary variable that may be 1 only if there are more than ``count`` instances of these options."""
        key = members, count
        if key not in self._thresholds:
            y = self.pulp.LpVariable(f"more_{len(self._thresholds)}", cat=self.pulp.LpBinary)
            self._thresholds[key] = y
            instances = self.pulp.lpSum(self.count[j] for j in members)
            self.problem += instances >= (count + 1) * y, f"at_least_{len(self._thresholds)}"
        return self._thresholds[key]

    def at_most(self, cost: float) -> None:
        """Only fleets of at most this much money an hour from now on."""
        self.problem.constraints.pop("at_most", None)
        self.problem += self._total <= cost, "at_most"

    def fewest(self, gpu: str, backend: Backend = "highs") -> int | None:
        """The fewest GPUs of a type with which the model can be met, whatever else it takes; None if it cannot."""
        self.problem.setObjective(self.gpus_of(gpu))
        self.problem.solve(self._solver(backend, None))
        found = self.problem.sol_status == self.pulp.LpSolutionOptimal
        gpus = round(self.pulp.value(self.problem.objective) or 0.0) if found else None
        self.problem.setObjective(self._total)
        return gpus

    def shadow_prices(self) -> dict[str, float]:
        """Money an hour that a unit more of each limit would save, were parts of instances to be had.

        Rows are ``inventory_GPU`` and ``nodes_of_GPU`` (GPUs), ``budget`` and ``deadline_G`` (seconds, of group G);
        duals of the linear relaxation. Rows that do not bind are left out.
        """
        kinds = {v.name: v.cat for v in self.problem.variables()}
        for v in self.problem.variables():
            v.cat = self.pulp.LpContinuous
        self.problem.solve(self.pulp.HiGHS(msg=False))
        said = ("inventory_", "nodes_of_", "budget", "deadline_")
        duals = {
            name: -float(row.pi or 0.0)
            for name, row in self.problem.constraints.items()
            if name.startswith(said) and abs(row.pi or 0.0) > 1e-9
        }
        for v in self.problem.variables():
            v.cat = kinds[v.name]
        return duals

    def richest(self, worth: Sequence[float], time_limit: float) -> Fleet:
        """A fleet of most ``worth``, the sum over its instances, within the model; empty where none was found."""
        self.problem.setObjective(-self.pulp.lpSum(w * n for w, n in zip(worth, self.count, strict=True)))
        self.problem.solve(self._solver("highs", time_limit, 0.01))
        self.problem.setObjective(self._total)
        found = self.problem.sol_status in (self.pulp.LpSolutionOptimal, self.pulp.LpSolutionIntegerFeasible)
        return tuple(round(count.value()) for count in self.count) if found else ()

    def solve(self, backend: Backend = "highs", time_limit: float | None = None) -> Solution:
        """Solve to proven optimality, or as far as the time goes."""
        started = time.perf_counter()
        solver = self._solver(backend, time_limit)
        self.problem.solve(solver)
        seconds = time.perf_counter() - started
        status = self.pulp.LpStatus[self.problem.status]
        found = self.problem.sol_status in (self.pulp.LpSolutionOptimal, self.pulp.LpSolutionIntegerFeasible)
        size = {"columns": self.problem.numVariables(), "rows": self.problem.numConstraints()}
        nothing = np.full(len(self.work), math.nan)
        if not found:
            said = "infeasible" if status == "Infeasible" else "unknown"
            bound = math.inf if said == "infeasible" else 0.0
            return Solution(
                said, (), math.inf, bound, nothing,
                **size, build_seconds=self.build_seconds, solve_seconds=seconds,
            )  # fmt: skip
        cost = float(self.pulp.value(self._total) or 0.0)
        optimal = self.problem.sol_status == self.pulp.LpSolutionOptimal
        bound = cost if optimal else 0.0
        if backend == "highs":
            bound = min(float(self.problem.solverModel.getInfo().mip_dual_bound), cost)
        fleet = tuple(round(count.value()) for count in self.count)
        split = np.array([sum(s * (x.value() or 0.0) for s, x in ways) for ways in self._latency])
        return Solution(
            "optimal" if optimal else "feasible", fleet, cost, bound, split,
            **size, build_seconds=self.build_seconds, solve_seconds=seconds,
        )  # fmt: skip

    def _solver(self, backend: Backend, time_limit: float | None, gap: float = 1e-9) -> Any:
        kind = self.pulp.PULP_CBC_CMD if backend == "cbc" else self.pulp.HiGHS
        return kind(msg=False, timeLimit=time_limit, gapRel=gap, threads=1)


def useful_points(efficiency: Efficiency, k: int) -> list[tuple[int, int]]:
    """Options and batch sizes that class ``k`` may run at, without sizes that another one beats in everything."""
    points = []
    for j in range(efficiency.busy.shape[1]):
        cheapest = math.inf
        for p in range(efficiency.busy.shape[2]):
            # Larger batches last longer and hold KV longer: they must at least be cheaper.
            if efficiency.busy[k, j, p] < cheapest * (1.0 - 1e-9):
                cheapest = float(efficiency.busy[k, j, p])
                points.append((j, p))
    return points
