"""A bound on every plan of pairs: capacities have prices, and the prices climb by subgradient steps."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.pairs.bounds import alone_bound, earliest_ends, room_for
from hexopt.solvers.pairs.judge import objective_of
from hexopt.solvers.pairs.kernels import PairArrays, arrays_of
from hexopt.solvers.pairs.plan import PairPlan
from hexopt.solvers.pairs.problem import PairProblem
from hexopt.solvers.pairs.relaxation import Priced, cheapest
from hexopt.solvers.plan import HELD

_BUCKETS = 24
_PATIENCE = 6
"""Steps without a better bound until they are shortened."""
_SHORTEST = 1e-3
"""Steps below this share of Polyak's are not worth taking."""
_TILT = 0.5
"""How fast a workflow's tardiness moves to its latest call: the exponent of a mean tardiness."""
_DUST = 1e-11
"""Share of the sums that the rounding of floats may amount to."""


def lower_bound_pairs(
    problem: PairProblem, plan: PairPlan, *, time_limit: float | None = None, steps: int = 200
) -> float:
    """What no plan is below; the prices start from ``plan`` and climb towards its objective.

    Parameters
    ----------
    time_limit
        Seconds; None for no limit in time.
    steps
        How many steps at most.
    """
    started = time.perf_counter()
    bound = alone_bound(problem)
    if problem.calls == 0:
        return bound
    a = arrays_of(problem)
    target = objective_of(problem, a, plan)
    z, free = _priced(problem, a, plan)
    length, waited, best = 1.0, 0, _copy(z)
    least = -np.inf
    for _ in range(steps):
        value, rounding = _value(a, z, free)
        bound = max(bound, value - rounding)
        if value > least:
            least, waited, best = value, 0, _copy(z)
        else:
            waited += 1
        if target - bound <= 1e-9 * abs(target) or length < _SHORTEST:
            break
        if time_limit is not None and time.perf_counter() - started > time_limit:
            break
        if waited == _PATIENCE:
            length, waited = 0.5 * length, 0
            for now, good in zip(_prices(z), best, strict=True):
                now[:] = good
            value, _ = _value(a, z, free)
        _step(problem, z, free, length * max(target - value, 0.0))
    return min(bound, target)


def _prices(z: Priced) -> tuple[NDArray[np.float64], ...]:
    return z.prefill_price, z.decode_price, z.share


def _copy(z: Priced) -> tuple[NDArray[np.float64], ...]:
    return tuple(array.copy() for array in _prices(z))


def _value(a: PairArrays, z: Priced, free: tuple[NDArray[np.float64], NDArray[np.float64]]) -> tuple[float, float]:
    """The bound at these prices, and what rounding may have added to it."""
    total = float(cheapest(a, z))
    sold = float((z.prefill_price * free[0]).sum() + (z.decode_price * free[1]).sum())
    return total - sold, _DUST * (abs(total) + sold)


def _step(
    problem: PairProblem, z: Priced, free: tuple[NDArray[np.float64], NDArray[np.float64]], length: float
) -> None:
    """Prices rise where more is taken than there is and fall elsewhere; tardiness moves to the calls that cause it."""
    p: Any = problem
    over = (z.prefill_used - free[0], z.decode_used - free[1])
    # A price of nothing that would fall does not count.
    slopes = [np.where((price > 0.0) | (g > 0.0), g, 0.0) for price, g in zip(_prices(z)[:2], over, strict=True)]
    norm = sum(float((g * g).sum()) for g in slopes)
    if norm > 0.0:
        for price, g in zip(_prices(z)[:2], slopes, strict=True):
            np.maximum(price + length / norm * g, 0.0, out=price)
    mean = max(float(z.over.mean()), 1e-9)
    tilted = z.share * np.exp(np.minimum(_TILT * z.over / mean, 30.0)) + 1e-12
    sums = np.bincount(p.workflow, weights=tilted, minlength=len(p.due))
    # Just below one: shares that add up to more would be no bound.
    z.share[:] = tilted / sums[p.workflow] * (1.0 - 1e-12)


def _priced(
    problem: PairProblem, a: PairArrays, plan: PairPlan
) -> tuple[Priced, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """First prices from the plan scheduled in ``a``, and the free seconds of every bucket, as the prices count them."""
    p: Any = problem
    n, d = problem.calls, problem.decodes
    there = plan.decode != HELD
    rows = np.arange(n)
    end = np.where(there, a.start + np.where(there, p.decode[rows, plan.decode], 0.0), p.hold)
    last = float(np.max(end[there], initial=1e-3))
    width = last / _BUCKETS
    edges = np.arange(_BUCKETS + 1, dtype=np.float64) * float(width)

    ends = earliest_ends(problem).reshape(n, -1)
    count = np.isfinite(ends).sum(axis=1)
    first = np.append(0, np.cumsum(count))
    sorted_pairs = np.argsort(ends, axis=1, kind="stable")
    choice = np.concatenate([np.column_stack(np.divmod(sorted_pairs[r, : count[r]], d)) for r in range(n)])

    reached = np.maximum(0.0, end + p.tail - p.due[p.workflow])
    latest = np.zeros(len(p.due))
    np.maximum.at(latest, p.workflow, end + p.tail)
    share = np.where(end + p.tail >= latest[p.workflow] - 1e-9, 1.0, 1e-3)
    share /= np.bincount(p.workflow, weights=share, minlength=len(p.due))[p.workflow] * (1.0 + 1e-12)
    slope = p.weight[p.workflow] * (problem.weights.completion + problem.weights.tardiness * share * (reached > 0.0))
    # A second more at a moment would cost all that are yet to come, if they wait for that instance.
    middle = edges[:-1] + 0.5 * width
    prefill_price = np.zeros((problem.prefills, _BUCKETS))
    decode_price = np.zeros((d, _BUCKETS))
    for r in np.flatnonzero(there):
        if not problem.settled[r]:
            prefill_price[plan.prefill[r]] += slope[r] * (middle < a.begin[r])
        if a.start[r] > a.ready[r]:
            decode_price[plan.decode[r]] += slope[r] * (middle < a.start[r])

    prefill_free = np.clip(edges[1:][None] - np.maximum(edges[:-1][None], p.prefill_free[:, None]), 0.0, width)
    z = Priced(
        width, prefill_price, decode_price, share, room_for(problem), first, choice,
        np.zeros((problem.prefills, _BUCKETS + 1)), np.zeros((d, _BUCKETS + 1)),
        np.zeros((problem.prefills, _BUCKETS)), np.zeros((d, _BUCKETS)), np.zeros(n),
        np.zeros((4, 2 * _BUCKETS + 3)),
    )  # fmt: skip
    return z, (prefill_free, _decode_free(problem, edges))


def _decode_free(problem: PairProblem, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds of the whole memory that what decodes now leaves in each bucket, shape (d, buckets)."""
    p: Any = problem
    free = np.zeros((problem.decodes, len(edges) - 1))
    for j in range(problem.decodes):
        mine = p.busy_instance == j
        until, kv = p.busy_until[mine], p.busy_kv[mine]
        moments = np.unique(np.concatenate([edges, until[until < edges[-1]]]))
        for begin, end in pairwise(moments):
            left = max(0, int(p.kv_capacity[j]) - int(kv[until > begin].sum()))
            bucket = min(int(np.searchsorted(edges, 0.5 * (begin + end), side="right")) - 1, free.shape[1] - 1)
            free[j, bucket] += (end - begin) * left / max(1, int(p.kv_capacity[j]))
    return free
