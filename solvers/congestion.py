"""The congestion model: an assignment that looks at balance, not at the exact order.

x[r, i] says that stage r goes to instance i, h[r] that it is held. A stage is counted as if it started as soon as the
running calls let it; that others of the plan are in its way is counted once for each instance, by a convex function of
the seat-seconds V placed there. Of k equal stages of p seconds on c seats the first c start at once and the others wait
together V**2 / (2 c p) - V / 2 seconds, where V = k p; in pieces, each second at the mean weight of a second. It is a
model, not a relaxation: its optimum bounds nothing, but its decisions are balanced (``docs/formulation.md``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.insertion import by_slack, greedy
from hexopt.solvers.judge import evaluate
from hexopt.solvers.kernels import LATE, Arrays, arrays_of
from hexopt.solvers.plan import HELD, Plan
from hexopt.solvers.problem import EpochProblem
from hexopt.solvers.relaxation import relaxation_of

_LEVELS = np.array([1.0, 1.5, 2.0, 3.0, 5.0, 8.0])
"""Rounds of the seats at which the waiting function changes its slope."""


@dataclass(frozen=True, slots=True)
class Congestion:
    """The model's numbers, as both formulations take them.

    Parameters
    ----------
    place
        Cost of each stage on each instance, holding in the last column; infinite: not possible. Shape (n, m + 1).
    late
        Seconds late that it would mean for the workflow, same shape.
    load, room, slope
        Loads add up on an instance; each beyond ``room`` costs ``slope``: the problem's own overload, then waiting.
        Shapes (2, n, m), (m, pieces), (m, pieces); ``kind`` says which load a piece is of, shape (pieces,).
    """

    place: NDArray[np.float64]
    late: NDArray[np.float64]
    load: NDArray[np.float64]
    room: NDArray[np.float64]
    slope: NDArray[np.float64]
    kind: NDArray[np.int64]


def congestion_of(problem: EpochProblem) -> Congestion:
    """The numbers of the congestion model."""
    p: Any = problem
    a: Arrays = arrays_of(problem)
    weights = problem.weights
    weight = p.weight[p.workflow][:, None]
    starts = relaxation_of(problem, a, 1.0, 1).earliest
    ends = np.concatenate([starts + np.where(problem.feasible, p.service, np.inf), p.hold[:, None]], axis=1)
    possible = np.isfinite(ends)
    ends = np.where(possible, ends, 0.0)
    place = np.where(possible, weights.completion * weight * ends + a.linear, np.inf)
    late = np.where(possible, ends + p.tail[:, None] - p.due[p.workflow][:, None], 0.0)
    service = np.where(problem.feasible, p.service, 0.0)
    count = np.maximum(problem.feasible.sum(axis=0), 1)
    round_ = p.seats * np.maximum(service.sum(axis=0) / count, 1e-12)
    second = float(weight.mean()) * (weights.completion + 0.5 * weights.tardiness) if problem.stages else 0.0
    middle = np.append((_LEVELS[:-1] + _LEVELS[1:]) / 2.0, _LEVELS[-1]) - 0.5
    pieces = p.knots.shape[1]
    return Congestion(
        place=place,
        late=np.where(late > LATE, late, 0.0),
        load=np.stack([p.load, service]),
        room=np.concatenate([p.knots - p.backlog[:, None], round_[:, None] * _LEVELS], axis=1),
        slope=np.concatenate(
            [p.slopes * weights.congestion, np.tile(second * np.diff(middle, prepend=0.0), (problem.instances, 1))],
            axis=1,
        ),
        kind=np.repeat([0, 1], [pieces, _LEVELS.size]),
    )


@dataclass(frozen=True, slots=True)
class _Model:
    """min cost @ v, low <= rows @ v <= high; the first columns are the pairs ``stage[k], instance[k]``."""

    cost: NDArray[np.float64]
    rows: Any
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    stage: NDArray[np.int64]
    instance: NDArray[np.int64]


def _build(problem: EpochProblem) -> _Model:
    p: Any = problem
    weights = problem.weights
    c = congestion_of(problem)
    n, m = problem.stages, problem.instances
    q, k = p.due.shape[0], p.share.shape[0]
    stage, column = np.nonzero(np.isfinite(c.place))
    pairs = stage.size
    # Columns: pairs, tardiness and step of each workflow, overload of each piece, the worst tenant.
    pieces = c.kind.size
    cost = np.concatenate(
        [c.place[stage, column], weights.tardiness * p.weight, weights.late * p.weight, c.slope.ravel(),
         [weights.fairness]]
    )  # fmt: skip
    late = c.late[stage, column]
    is_late = np.flatnonzero(late > 0.0)
    there = np.unique(stage)
    row_of = np.full(n, -1)
    row_of[there] = np.arange(there.size)
    placed = np.flatnonzero(column < m)
    number = np.arange(pairs)
    blocks = [
        _rows((row_of[stage], number, np.ones(pairs)), there.size),
        _rows(
            (stage[is_late], number[is_late], late[is_late]), n, (np.arange(n), pairs + p.workflow, -np.ones(n))
        ),
        _rows(
            (stage[is_late], number[is_late], np.ones(is_late.size)), n,
            (np.arange(n), pairs + q + p.workflow, -np.ones(n)),
        ),
    ]  # fmt: skip
    piece_rows, piece_columns, loads = [], [], []
    for j, kind in enumerate(c.kind.tolist()):
        piece_rows.append(column[placed] * pieces + j)
        piece_columns.append(placed)
        loads.append(c.load[kind, stage[placed], column[placed]])
    each = np.arange(m * pieces)
    blocks.append(
        _rows(
            (np.concatenate(piece_rows), np.concatenate(piece_columns), np.concatenate(loads)),
            m * pieces,
            (each, pairs + 2 * q + each, -np.ones(m * pieces)),
        )
    )
    blocks.append(
        _rows(
            (p.tenant, pairs + np.arange(q), p.weight / p.share[p.tenant]), k,
            (np.arange(k), np.full(k, cost.size - 1), -np.ones(k)),
        )
    )  # fmt: skip
    # Half of what importing this library costs in memory; the online path of a service may never need it.
    from scipy import sparse

    rows = sparse.vstack([sparse.coo_array(b, shape=(height, cost.size)) for b, height in blocks], format="csr")
    high = np.concatenate([np.ones(there.size), np.zeros(2 * n), c.room.ravel(), np.zeros(k)])
    low = np.concatenate([np.ones(there.size), np.full(high.size - there.size, -np.inf)])
    return _Model(cost, rows, low, high, stage, np.where(column < m, column, HELD))


def _rows(entries: Any, height: int, more: Any = None) -> tuple[Any, int]:
    """Triplets of a block of rows, and its height."""
    if more is not None:
        entries = tuple(np.concatenate([x, y]) for x, y in zip(entries, more, strict=True))
    row, column, value = entries
    return (value, (row, column)), height


def congestion_optimum(problem: EpochProblem, *, integer: bool, time_limit: float = 60.0) -> tuple[float, Any]:
    """The model's optimum and the share of each stage on each instance (held last), shape (n, m + 1).

    Without a solution in time the optimum is NaN and the shares are None.
    """
    model = _build(problem)
    pairs = model.stage.size
    integrality = np.zeros(model.cost.size)
    integrality[:pairs] = integer
    from scipy.optimize import LinearConstraint, milp

    found = milp(
        model.cost,
        integrality=integrality,
        constraints=LinearConstraint(model.rows, model.low, model.high),
        options={"time_limit": max(time_limit, 1e-3), "presolve": integer},
    )
    if found.x is None:
        return float("nan"), None
    shares = np.zeros((problem.stages, problem.instances + 1))
    shares[model.stage, model.instance] = found.x[:pairs]
    return float(found.fun), shares


def solve_congestion(problem: EpochProblem, *, integer: bool = False, time_limit: float = 0.02) -> Plan:
    """Put each stage where the model has most of it, dispatched by slack; greedy's plan if time runs out.

    Parameters
    ----------
    integer
        Solve the MILP; by default the LP.
    time_limit
        Seconds.
    """
    started = time.perf_counter()
    name = "congestion-milp" if integer else "congestion-lp"
    shares = None
    if problem.stages > problem.homeless.size:
        _, shares = congestion_optimum(problem, integer=integer, time_limit=0.9 * time_limit)
    if shares is None:
        plan = greedy(problem)
        return Plan(plan.instance, plan.order, plan.objective, solver=name, seconds=time.perf_counter() - started)
    instance = shares.argmax(axis=1)
    where = np.where((instance == problem.instances) | (shares.max(axis=1) <= 0.0), HELD, instance)
    order = by_slack(problem)
    found = evaluate(problem, where, order)
    return Plan(where, order, found.objective, solver=name, seconds=time.perf_counter() - started)
