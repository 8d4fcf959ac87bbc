"""A problem in whole numbers for CP-SAT, rounded so that every plan costs at most as much as it truly does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hexopt.solvers.kernels import arrays_of
from hexopt.solvers.problem import EpochProblem

_EPS = 8.0 * float(np.finfo(float).eps)
FINEST = 1e-8
"""Seconds; a finer tick could not be told from ``LATE``."""
_MOST_TICKS = 2.0**40
_MOST_UNITS = 2.0**58
"""Of the objective, so that sums stay within 64 bits."""
_LOSS = 1e-9
"""Share of the objective that rounding costs may take, if the units suffice."""
_TOKEN = 1e-3
"""Fraction to which KV tokens are told apart where they are not whole."""
_STEPS = (1.0, 0.5, 0.25, 0.1, 0.05, 0.025, 0.01, 0.005, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
_COSTS = ("end", "tardy", "unfair", "late", "linear", "load", "above")
Whole = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Rounded:
    """The problem in ticks and units.

    Parameters
    ----------
    step, scale
        Seconds a tick, units a unit of cost.
    service, earliest
        Ticks that each stage takes, and before which it is not released or the running calls leave it no room; shape
        (n, m).
    release, until, over, hold
        Ticks of ``release``, ``busy_until``, ``tail - due`` and ``hold`` (0 for infinite).
    kv, kv_capacity, busy_kv
        Tokens, or fractions of them.
    latest, tardiest
        What no start, shape (n,), and no tardiness, shape (q,), exceeds in some best plan.
    end, tardy, unfair, late, linear, load, above
        Units for each tick of a stage, of a workflow, of a workflow for his tenant; for a late workflow; for a stage on
        an instance; for its share in an overload, shape (n, m, j), and the overload that is there, shape (m, j).
    slack
        Cost by which rounding may separate the true cost of the rounded problem's best plan from its bound.
    rate, span
        Most that a second costs if all times are longer by it, and the longest time: what :func:`dust` needs.
    """

    step: float
    scale: float
    service: Whole
    earliest: Whole
    release: Whole
    until: Whole
    over: Whole
    hold: Whole
    kv: Whole
    kv_capacity: Whole
    busy_kv: Whole
    latest: Whole
    tardiest: Whole
    end: Whole
    tardy: Whole
    unfair: Whole
    late: Whole
    linear: Whole
    load: Whole
    above: Whole
    slack: float
    rate: float
    span: float


def dust(rounded: Rounded, cost: float) -> float:
    """What the rounding of floats may amount to.

    A completion is a sum of at most n + 1 times, each taken for a whole number of ticks if a few units in the last
    place of a float make it one, and so are costs; the judge's sums and the solver's bound are floats as well.
    """
    return _EPS * (len(rounded.latest) + 4) * (rounded.rate * rounded.span + cost)


def proved(rounded: Rounded, units: float) -> float:
    """The true cost that no plan is below, if none is below ``units``."""
    bound = max(0.0, units / rounded.scale)
    return max(0.0, bound - dust(rounded, bound))


def alone(problem: EpochProblem, z: Rounded) -> float:
    """What the stages cost at least if each is alone with the running calls: a bound without solving."""
    can_hold = np.isfinite(np.asarray(problem.hold))
    possible = np.column_stack([problem.feasible, can_hold])
    homed = possible.any(axis=1)
    ends = np.column_stack([z.earliest + z.service, z.hold]).astype(float)
    costs = z.end[:, None] * ends + np.column_stack([z.linear, np.zeros(problem.stages)])
    earliest = np.where(possible, ends, np.inf).min(axis=1)
    tardiness = np.zeros(len(z.tardy))
    np.maximum.at(tardiness, problem.workflow[homed], earliest[homed] + z.over[homed])
    units = np.where(possible, costs, np.inf).min(axis=1)[homed].sum() + np.maximum(z.above, 0).sum()
    return proved(z, float(units + (z.tardy * tardiness + z.late * (tardiness > 0.0)).sum()))


def down(values: ArrayLike, unit: float) -> Whole:
    """How many whole ``unit`` are in each value; as many as make it up but for a float's rounding, if there are."""
    ratio = np.asarray(values, dtype=np.float64) / unit
    nearest = np.rint(ratio)
    result: Whole = np.where(np.abs(ratio - nearest) <= _EPS * np.abs(ratio), nearest, np.floor(ratio)).astype(np.int64)
    return result


def tick(times: NDArray[np.float64], resolution: float) -> tuple[float, bool]:
    """Seconds a tick: the longest of which all times are multiples, else ``resolution``, longer for very long times.

    Also returns whether all times are multiples.
    """
    shortest = max(resolution, float(np.abs(times).sum()) / _MOST_TICKS)
    for step in _STEPS:
        ratio = times / step
        if step >= shortest and (np.abs(ratio - np.rint(ratio)) <= _EPS * np.abs(ratio)).all():
            return step, True
    return shortest, False


def _tokens(p: Any) -> tuple[Whole, Whole, Whole]:
    whole = all((tokens == np.rint(tokens)).all() for tokens in (p.kv, p.busy_kv, p.kv_capacity))
    unit = 1.0 if whole else _TOKEN
    return down(p.kv, unit), -down(-p.kv_capacity, unit), down(p.busy_kv, unit)


def _earliest(p: Any, release: Whole, until: Whole, kv: Whole, kv_capacity: Whole, busy_kv: Whole) -> Whole:
    """Ticks before which a stage is not released or the running calls alone leave it no room."""
    earliest = np.repeat(release[:, None], p.instances, axis=1)
    for i in range(p.instances):
        mine = np.flatnonzero(p.busy_instance == i)
        for end in np.unique(until[mine])[::-1]:
            there = mine[until[mine] >= end]
            full = np.full(p.stages, len(there) >= p.seats[i]) | (busy_kv[there].sum() + kv > kv_capacity[i])
            earliest[:, i] = np.where(full, np.maximum(earliest[:, i], end), earliest[:, i])
    return earliest


def rounded_problem(problem: EpochProblem, resolution: float, most: float) -> Rounded:
    """Round ``problem``, whose best plan costs at most ``most``."""
    p: Any = problem
    weights = problem.weights
    can_hold = np.isfinite(p.hold)
    service = np.where(problem.feasible, p.service, 0.0)
    times = np.concatenate([service.ravel(), p.tail, p.due, p.busy_until, p.hold[can_hold], p.release[p.release > 0.0]])
    step, exact = tick(times, resolution)
    ticks, until, release = down(service, step), down(p.busy_until, step), down(p.release, step)
    over = down(p.tail, step) + down(-p.due, step)[p.workflow]
    hold = down(np.where(can_hold, p.hold, 0.0), step)
    kv, kv_capacity, busy_kv = _tokens(p)

    # Until then some call runs at every moment, from the last release on, at which one waits.
    horizon = ticks.sum(axis=0)
    for i in range(p.instances):
        running = until[p.busy_instance == i].max(initial=0)
        horizon[i] += max(running, release[problem.feasible[:, i]].max(initial=0))
    latest = np.where(problem.feasible, horizon - ticks, 0).max(axis=1, initial=0)
    longest = np.maximum(np.where(problem.feasible, horizon, 0).max(axis=1, initial=0), hold)
    tardiest = np.zeros(len(p.due), dtype=np.int64)
    np.maximum.at(tardiest, p.workflow, longest + over)
    end = weights.completion * p.weight[p.workflow] * step
    tardy = weights.tardiness * p.weight * step
    latest, tardiest = affordable(latest, end, most), affordable(tardiest, tardy, most)

    unfair = weights.fairness * p.weight / p.share[p.tenant] * step
    linear = np.where(problem.feasible, arrays_of(problem).linear[:, :-1], 0.0)
    steep = weights.congestion * p.slopes
    load, above = steep[None] * p.load[:, :, None], steep * (p.backlog[:, None] - p.knots)
    late = weights.late * p.weight
    costs = [end, tardy, unfair, late, linear, load, above]
    counts = [
        latest + np.maximum(ticks.max(axis=1, initial=0), hold),
        tardiest,
        tardiest,
        *(np.ones(1) for _ in range(4)),
    ]
    scale, loss = unit_scale(costs, counts, step, most)
    rate = float((end.sum() + tardy.sum() + unfair.sum()) / step)
    units = dict(zip(_COSTS, (down(cost, 1.0 / scale) for cost in costs), strict=True))
    # Dispatched in the same order, the k-th stage starts at most k ticks later than if all is rounded down; its end,
    # its tail and its due time add one each.
    slack = loss + (0.0 if exact else rate * (p.stages + 3) * step)
    return Rounded(
        step=step, scale=scale, service=ticks, earliest=_earliest(p, release, until, kv, kv_capacity, busy_kv),
        release=release, until=until, over=over, hold=hold, kv=kv, kv_capacity=kv_capacity, busy_kv=busy_kv,
        latest=latest, tardiest=tardiest,
        slack=slack, rate=rate, span=float(np.abs(times).sum()), **units,
    )  # fmt: skip


def affordable(ticks: Whole, cost: NDArray[np.float64], most: float) -> Whole:
    """``ticks``, or fewer if they cost more than the best plan."""
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = np.where(cost > 0.0, most / cost, np.inf)
    result: Whole = np.minimum(ticks, np.minimum(np.ceil(limit) + 1.0, 2.0**62)).astype(np.int64)
    return result


def unit_scale(costs: list[Any], counts: list[Any], step: float, most: float) -> tuple[float, float]:
    """Units a unit of cost, the fewest that lose next to nothing, within what 64 bits hold; and what they lose."""
    total = sum(float((np.abs(cost) * count).sum()) for cost, count in zip(costs, counts, strict=True))
    best = (1.0, total)
    for scale in sorted(digit * 10.0**power / step for digit in (1, 2, 4, 5) for power in range(-12, 16)):
        if scale * total > _MOST_UNITS:
            break
        lost = [cost * scale - down(cost, 1.0 / scale) for cost in costs]
        loss = sum(float((np.abs(part) * count).sum()) for part, count in zip(lost, counts, strict=True)) / scale
        best = (scale, loss)
        if loss <= _LOSS * min(most, total):
            break
    return best
