"""The arc-flow MILP, in PuLP: every seat is a path through the moments at which something may start.

Binary z[k] says that arc k (a stage on an instance from a start to an end) is taken. Between two moments of an instance
flow the seats that stand idle; nothing else keeps calls apart, and no coefficient grows with the length of a stage.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.arcs import SAME, Arcs
from hexopt.solvers.extras import extra
from hexopt.solvers.kernels import LATE, arrays_of
from hexopt.solvers.plan import HELD
from hexopt.solvers.problem import EpochProblem

BUILD_SECONDS = 6e-5
"""Per arc, to build the model and hand it to a back end; measured."""


def solve_arcflow(
    problem: EpochProblem, arcs: Arcs, *, time_limit: float, back_end: str = "highs"
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]] | None, float]:
    """Solve the model; returns instance and order of the best plan over ``arcs``, or None, and a bound.

    The bound is infinite if the arcs hold no plan at all, minus infinity if nothing was proven. Building and handing
    over the model counts: if it alone would take the time, nothing is done.
    """
    pulp = extra("pulp")

    started = time.perf_counter()
    if BUILD_SECONDS * arcs.stage.size > 0.3 * time_limit:
        return None, -np.inf
    model, taken = arcflow_model(problem, arcs)
    # Handing the model over takes about twice as long as building it, and HiGHS looks at the clock between its phases.
    time_limit = 0.85 * (time_limit - 3.5 * (time.perf_counter() - started))
    if time_limit <= 0.0:
        return None, -np.inf
    if back_end == "highs":
        solver = pulp.HiGHS(msg=False, timeLimit=time_limit, gapRel=0.0, gapAbs=0.0)
    elif back_end == "cbc":
        solver = pulp.PULP_CBC_CMD(msg=False, timeLimit=time_limit, gapRel=0.0, gapAbs=0.0)
    else:
        raise ValueError(f"back end {back_end!r}: expected highs or cbc")
    model.solve(solver)
    if model.status == pulp.LpStatusInfeasible:
        return None, np.inf
    values = [variable.varValue for variable in taken]
    if model.sol_status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible) or None in values:
        return None, _dual_bound(model, back_end)
    chosen = np.flatnonzero(np.array(values) > 0.5)
    instance = np.full(problem.stages, HELD)
    start = np.full(problem.stages, np.inf)
    instance[arcs.stage[chosen]] = arcs.instance[chosen]
    start[arcs.stage[chosen]] = arcs.start[chosen]
    plan = (instance, np.argsort(start, kind="stable").astype(np.int64))
    if model.sol_status == pulp.LpSolutionOptimal:
        return plan, float(pulp.value(model.objective)) - 1e-9
    return plan, _dual_bound(model, back_end)


def _dual_bound(model: Any, back_end: str) -> float:
    """What the back end has proven; CBC does not tell."""
    return float(model.solverModel.getInfo().mip_dual_bound) if back_end == "highs" else -np.inf


def arcflow_model(problem: EpochProblem, arcs: Arcs) -> tuple[Any, list[Any]]:
    """The model as a ``pulp.LpProblem``, and the variable of each arc."""
    pulp = extra("pulp")

    model = pulp.LpProblem("epoch", pulp.LpMinimize)
    taken = [
        pulp.LpVariable(f"z_{r}_{i if i >= 0 else 'held'}_{k}", cat="Binary")
        for k, (r, i) in enumerate(zip(arcs.stage.tolist(), arcs.instance.tolist(), strict=True))
    ]
    costs = _Costs(problem, arcs, taken)
    model += costs.objective(model)
    of_stage = defaultdict(list)
    for k, r in enumerate(arcs.stage.tolist()):
        of_stage[r].append((taken[k], 1.0))
    for r in sorted(set(range(problem.stages)) - set(problem.homeless.tolist())):
        model += _sum(of_stage[r]) == 1, f"once_{r}"
    for i in range(problem.instances):
        _add_flow(model, problem, arcs, taken, i)
    return model, taken


def _sum(terms: Sequence[tuple[Any, float]], constant: float = 0.0) -> Any:
    pulp = extra("pulp")

    return pulp.LpAffineExpression(terms, constant=constant)


class _Costs:
    """The objective's terms and the rows that they need."""

    def __init__(self, problem: EpochProblem, arcs: Arcs, taken: list[Any]) -> None:
        self.problem, self.arcs, self.taken = problem, arcs, taken
        p: Any = problem
        self.workflow = p.workflow[arcs.stage]
        self.lateness = np.maximum(arcs.end + p.tail[arcs.stage] - p.due[self.workflow], 0.0)
        self.lateness[self.lateness <= LATE] = 0.0

    def objective(self, model: Any) -> Any:
        """Add rows to the model; returns what to minimise."""
        p: Any = self.problem
        weights = self.problem.weights
        a = arrays_of(self.problem)
        weight = p.weight[self.workflow]
        direct = weights.completion * weight * self.arcs.end + a.linear[self.arcs.stage, self.arcs.instance]
        there = np.setdiff1d(np.arange(self.problem.stages), self.problem.homeless)
        siblings = np.bincount(p.workflow[there], minlength=p.due.shape[0])
        alone = (siblings[self.workflow] == 1) & (weights.fairness == 0.0)
        direct += np.where(alone, weight * (weights.tardiness * self.lateness + weights.late * (self.lateness > 0)), 0)
        terms = list(zip(self.taken, direct.tolist(), strict=True))
        terms += self._shared(model, ~alone)
        terms += self._congestion(model)
        return _sum(terms)

    def _shared(self, model: Any, shared: NDArray[np.bool_]) -> list[tuple[Any, float]]:
        """Tardiness and step of workflows with several stages; fairness."""
        pulp = extra("pulp")

        p: Any = self.problem
        weights = self.problem.weights
        late: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for k in np.flatnonzero(shared & (self.lateness > 0.0)).tolist():
            late[int(self.workflow[k])][int(self.arcs.stage[k])].append(k)
        terms: list[tuple[Any, float]] = []
        tardiness: dict[int, list[Any]] = {}
        for w, stages in sorted(late.items()):
            cuts = _cuts(self.lateness[[k for arcs in stages.values() for k in arcs]])
            tardiness[w] = []
            for part, (low, high) in enumerate(pairwise(cuts)):
                reached = pulp.LpVariable(f"tardiness_{w}_{part}", lowBound=0.0)
                tardiness[w].append(reached)
                terms.append((reached, weights.tardiness * float(p.weight[w])))
                for r, arcs in stages.items():
                    within = [(self.taken[k], min(float(self.lateness[k]), high) - low) for k in arcs]
                    row = [(z, x) for z, x in within if x > 0.0]
                    if row:
                        model += _sum([*row, (reached, -1.0)]) <= 0, f"tardy_{r}_{part}"
            if weights.late > 0.0:
                step = pulp.LpVariable(f"late_{w}", lowBound=0.0, upBound=1.0)
                terms.append((step, weights.late * float(p.weight[w])))
                for r, arcs in stages.items():
                    model += _sum([*((self.taken[k], 1.0) for k in arcs), (step, -1.0)]) <= 0, f"step_{r}"
        if weights.fairness > 0.0:
            worst = pulp.LpVariable("worst_tenant", lowBound=0.0)
            for t in range(p.share.shape[0]):
                mine = [w for w in tardiness if p.tenant[w] == t]
                his = [(x, float(p.weight[w] / p.share[t])) for w in mine for x in tardiness[w]]
                if his:
                    model += _sum([*his, (worst, -1.0)]) <= 0, f"tenant_{t}"
            terms.append((worst, weights.fairness))
        return terms

    def _congestion(self, model: Any) -> list[tuple[Any, float]]:
        pulp = extra("pulp")

        p: Any = self.problem
        terms: list[tuple[Any, float]] = []
        for i in range(self.problem.instances):
            mine = np.flatnonzero(self.arcs.instance == i).tolist()
            load = [(self.taken[k], float(p.load[self.arcs.stage[k], i])) for k in mine]
            for j in range(p.knots.shape[1]):
                slope = float(p.slopes[i, j]) * self.problem.weights.congestion
                if slope > 0.0:
                    over = pulp.LpVariable(f"over_{i}_{j}", lowBound=0.0)
                    room = float(p.knots[i, j] - p.backlog[i])
                    model += _sum([*load, (over, -1.0)]) <= room, f"load_{i}_{j}"
                    terms.append((over, slope))
        return terms


def _cuts(lateness: NDArray[np.float64], parts: int = 8) -> list[float]:
    """0 and up to ``parts`` further values, the largest last, between which tardiness is counted on its own.

    In the relaxation siblings are late in parts; the most of each part adds up to more than the most of the whole.
    """
    return [0.0, *np.unique(np.quantile(lateness, np.linspace(0.0, 1.0, parts + 1)[1:])).tolist()]


def _add_flow(model: Any, problem: EpochProblem, arcs: Arcs, taken: list[Any], i: int) -> None:
    """Rows of instance ``i``: seats, and KV tokens where they can run short."""
    pulp = extra("pulp")

    p: Any = problem
    mine = np.flatnonzero(arcs.instance == i)
    if mine.size == 0:
        return
    starts = np.sort(arcs.start[mine])
    moments = starts[np.concatenate([[True], np.diff(starts) > SAME])]
    begins = np.searchsorted(moments, arcs.start[mine] + SAME, side="right") - 1
    # An arc gives back what it holds at the first moment that is not before its end.
    ends = np.searchsorted(moments, arcs.end[mine] - SAME, side="left")
    busy = p.busy_instance == i
    kv = p.kv[arcs.stage[mine]]
    largest = np.sort(np.unique(np.stack([arcs.stage[mine], kv]), axis=1)[1])[::-1][: int(p.seats[i])]
    resources = [("seats", np.ones(mine.size), float(p.seats[i]), np.ones(int(busy.sum())))]
    if largest.sum() + p.busy_kv[busy].sum() > p.kv_capacity[i]:
        resources.append(("tokens", kv, float(p.kv_capacity[i]), p.busy_kv[busy]))
    for name, amount, capacity, held in resources:
        there = p.busy_until[busy][None, :] > moments[:, None] + SAME
        free = np.maximum(capacity - there @ held, 0.0)
        change = np.diff(free, prepend=0.0)
        rows: list[list[tuple[Any, float]]] = [[] for _ in range(moments.size + 1)]
        for k, units, begin, end in zip(mine.tolist(), amount.tolist(), begins.tolist(), ends.tolist(), strict=True):
            rows[begin].append((taken[k], -units))
            rows[end].append((taken[k], units))
        before: list[tuple[Any, float]] = []
        for k in range(moments.size):
            idle = pulp.LpVariable(f"idle_{name}_{i}_{k}", lowBound=0.0)
            model += _sum([*before, *rows[k], (idle, -1.0)]) == -float(change[k]), f"{name}_{i}_{k}"
            before = [(idle, 1.0)]
