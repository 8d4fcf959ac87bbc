"""A pair problem in whole numbers for CP-SAT, rounded so that every plan costs at most as much as it truly does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.cpsat_rounding import affordable, down, tick, unit_scale
from hexopt.solvers.pairs.problem import PairProblem

_EPS = 8.0 * float(np.finfo(float).eps)
Whole = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class RoundedPairs:
    """The problem in ticks and units.

    Parameters
    ----------
    step, scale
        Seconds a tick, units a unit of cost.
    exact
        Whether all times are multiples of a tick.
    prefill, decode, arrival
        Ticks; 0 where it cannot be. Shapes (n, p), (n, d), (n, p, d).
    free, release
        Ticks of ``prefill_free`` and ``release``.
    room
        Ticks before which the calls that decode now leave no room, shape (n, d).
    until, over, hold
        Ticks of ``busy_until``, ``tail - due`` and ``hold`` (0 for infinite).
    latest, tardiest
        What no start of a decode, shape (n,), and no tardiness, shape (q,), exceeds in some best plan.
    end, tardy, late, imposed
        Units for each tick of a call, of a workflow; for a late workflow; for a call on an instance.
    slack
        Cost by which rounding may separate the true cost of the rounded problem's best plan from its bound.
    rate, span
        Most that a second costs if all times are longer by it, and the sum of all times.
    """

    step: float
    scale: float
    exact: bool
    prefill: Whole
    decode: Whole
    arrival: Whole
    free: Whole
    release: Whole
    room: Whole
    until: Whole
    over: Whole
    hold: Whole
    latest: Whole
    tardiest: Whole
    end: Whole
    tardy: Whole
    late: Whole
    imposed: Whole
    slack: float
    rate: float
    span: float


def rounded_pairs(problem: PairProblem, resolution: float, most: float) -> RoundedPairs:
    """Round ``problem``, whose best plan costs at most ``most``."""
    p: Any = problem
    n, weights = problem.calls, problem.weights
    possible, can_hold = problem.possible, np.isfinite(p.hold)
    prefills = possible.any(axis=2) & ~problem.settled[:, None]
    decodes = possible.any(axis=1)
    times = [
        np.where(prefills, p.prefill, 0.0), np.where(decodes, p.decode, 0.0),
        np.where(possible, problem.arrival, 0.0), p.tail, p.due, p.prefill_free, p.busy_until, p.release,
        np.where(can_hold, p.hold, 0.0),
    ]  # fmt: skip
    flat = np.concatenate([np.ravel(part) for part in times])
    step, exact = tick(flat, resolution)
    prefill, decode, arrival, tail, _, free, until, release, hold = (down(part, step) for part in times)
    over = tail + down(-p.due, step)[p.workflow]
    room = _room(p, until)

    # Some call is prefilled or decoded at every moment, but for releases, what runs now, and the longest transfer.
    first = max(free.max(), release.max(initial=0), until.max(initial=0)) + arrival.max(initial=0)
    horizon = int(first + prefill.max(axis=1, initial=0).sum() + decode.max(axis=1, initial=0).sum())
    end = weights.completion * p.weight[p.workflow] * step
    tardy = weights.tardiness * p.weight * step
    latest = affordable(np.full(n, horizon), end, most)
    tardiest = np.zeros(len(p.due), dtype=np.int64)
    np.maximum.at(tardiest, p.workflow, np.maximum(horizon, hold) + over)
    tardiest = affordable(tardiest, tardy, most)
    late, imposed = weights.late * p.weight, np.where(decodes, weights.imposed * p.imposed, 0.0)
    longest = latest + np.maximum(decode.max(axis=1, initial=0), hold)
    costs, counts = [end, tardy, late, imposed], [longest, tardiest, np.ones(1), np.ones(1)]
    scale, loss = unit_scale(costs, counts, step, most)
    rate = float((end.sum() + tardy.sum()) / step)
    end_units, tardy_units, late_units, imposed_units = (down(cost, 1.0 / scale) for cost in costs)
    # A prefill starts at most a tick later for each one ahead, the transfer and the decodes ahead add one each.
    return RoundedPairs(
        step, scale, exact, prefill, decode, arrival, free, release, room, until, over, hold, latest, tardiest,
        end_units, tardy_units, late_units, imposed_units,
        slack=loss + (0.0 if exact else rate * (2 * n + 5) * step), rate=rate, span=float(np.abs(flat).sum()),
    )  # fmt: skip


def proved(z: RoundedPairs, units: float) -> float:
    """The true cost that no plan is below, if none is below ``units``."""
    bound = max(0.0, units / z.scale)
    return max(0.0, bound - dust(z, bound))


def dust(z: RoundedPairs, cost: float) -> float:
    """What the rounding of floats may amount to, see :func:`hexopt.solvers.cpsat_rounding.dust`."""
    return _EPS * (2 * len(z.latest) + 6) * (z.rate * z.span + cost)


def _room(p: Any, until: Whole) -> Whole:
    """Ticks before which the running calls alone leave each call no room, shape (n, d)."""
    room = np.zeros((len(p.kv), len(p.kv_capacity)), dtype=np.int64)
    for j in range(room.shape[1]):
        mine = np.flatnonzero(p.busy_instance == j)
        for end in np.unique(until[mine]):
            there = mine[until[mine] >= end]
            full = np.full(len(room), len(there) >= p.seats[j]) | (p.busy_kv[there].sum() + p.kv > p.kv_capacity[j])
            room[full, j] = end
    return room
