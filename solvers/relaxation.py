"""What the bound needs of a problem: capacity in buckets of time, and the price-wise best option of every stage.

The relaxation: seats and KV tokens of an instance may be used at any moment of a bucket as long as the bucket's
seat-seconds (token-seconds) suffice. Every schedule obeys that in continuous time, so nothing is rounded and a coarse
grid is as valid as a fine one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.kernels import LATE, Arrays, kernel
from hexopt.solvers.problem import EpochProblem


class Relaxation(NamedTuple):
    """n stages, m instances, b buckets of ``width`` seconds; what lies behind the last bucket is free of charge."""

    width: float
    seat_seconds: NDArray[np.float64]
    """What running calls leave free, shape (m, b)."""
    token_seconds: NDArray[np.float64]
    earliest: NDArray[np.float64]
    """Seconds until stage r, released, could start on instance i if no other stage were there; infinite: never.

    Shape (n, m)."""


class Prices(NamedTuple):
    """Lagrange multipliers; all at least 0."""

    seat: NDArray[np.float64]
    """Of a seat-second, shape (m, b)."""
    token: NDArray[np.float64]
    """Of a token-second, shape (m, b)."""
    tardy: NDArray[np.float64]
    """Share of its workflow's tardiness that a stage answers for: at most 1 over siblings. Shape (n,)."""
    late: NDArray[np.float64]
    """Share of being late at all, likewise."""
    over: NDArray[np.float64]
    """Whether load beyond a knot counts, 0 to 1; shape (m, j)."""
    tenant: NDArray[np.float64]
    """Share of the fairness term, at most 1 over tenants; shape (k,)."""


class Options(NamedTuple):
    """The cheapest option of every stage under the prices; shape (n,)."""

    instance: NDArray[np.int64]
    """-1 for held."""
    start: NDArray[np.float64]
    cost: NDArray[np.float64]
    """Infinite for a stage that has no option."""


class Sums(NamedTuple):
    """Prices integrated up to each bucket's end, 0 first; shape (m, b + 1)."""

    seat: NDArray[np.float64]
    token: NDArray[np.float64]


def relaxation_of(problem: EpochProblem, a: Arrays, horizon: float, buckets: int) -> Relaxation:
    """Cut ``horizon`` seconds into ``buckets``."""
    n, m = problem.stages, problem.instances
    width = horizon / buckets
    r = Relaxation(
        width,
        np.zeros((m, buckets)),
        np.zeros((m, buckets)),
        np.full((n, m), np.inf),
    )
    _free(a, r)
    np.maximum(r.earliest, a.release[:, None], out=r.earliest)
    return r


@kernel
def _free(a: Arrays, r: Relaxation) -> None:
    """Integrate free seats and tokens over the buckets; find the earliest starts."""
    m, buckets = r.seat_seconds.shape
    for i in range(m):
        first, last = a.busy_first[i], a.busy_first[i + 1]
        used = 0.0
        for k in range(first, last):
            used += a.busy_kv[k]
        now = 0.0
        running = last - first
        for k in range(first, last + 1):
            until = a.busy_until[k] if k < last else buckets * r.width
            seats = max(0.0, float(a.seats[i] - running))
            tokens = max(0.0, a.kv_capacity[i] - used)
            _spread(r.seat_seconds[i], now, until, seats, r.width)
            _spread(r.token_seconds[i], now, until, tokens, r.width)
            if seats >= 1.0:
                for s in range(r.earliest.shape[0]):
                    if np.isinf(r.earliest[s, i]) and a.feasible[s, i] and used + a.kv[s] <= a.kv_capacity[i]:
                        r.earliest[s, i] = now
            now = max(now, until)
            running -= 1
            if k < last:
                used -= a.busy_kv[k]
        for s in range(r.earliest.shape[0]):
            # What rounding of sums keeps out fits when all is free.
            if np.isinf(r.earliest[s, i]) and a.feasible[s, i]:
                r.earliest[s, i] = a.busy_until[last - 1] if last > first else 0.0


@kernel
def _spread(row: NDArray[np.float64], begin: float, end: float, amount: float, width: float) -> None:
    """Add ``amount`` from ``begin`` to ``end`` to the buckets."""
    buckets = row.shape[0]
    k = int(begin / width)
    while k < buckets and k * width < end:
        row[k] += amount * max(0.0, min(end, (k + 1) * width) - max(begin, k * width))
        k += 1


@kernel
def integral(row: NDArray[np.float64], t: float, width: float) -> float:
    """Price from now to ``t``; ``row`` holds the sums up to the buckets' ends, 0 first."""
    buckets = row.shape[0] - 1
    x = t / width
    k = int(x)
    if k >= buckets:
        return float(row[buckets])
    return float(row[k] + (x - k) * (row[k + 1] - row[k]))


@kernel
def own_cost(a: Arrays, r: int, end: float, tardy: float, late: float) -> float:
    """Completion and lateness of stage ``r`` ending at ``end``, by the shares that it answers for."""
    w = a.workflow[r]
    cost = a.completion * end
    x = end + a.tail[r] - a.due[w]
    if x > LATE:
        cost += tardy * x + late
    return float(a.weight[w] * cost)


@kernel
def integrate(x: Relaxation, p: Prices, s: Sums) -> None:
    """Write the integrals of the prices."""
    for i in range(s.seat.shape[0]):
        s.seat[i, 0] = 0.0
        s.token[i, 0] = 0.0
        for k in range(p.seat.shape[1]):
            s.seat[i, k + 1] = s.seat[i, k] + p.seat[i, k] * x.width
            s.token[i, k + 1] = s.token[i, k] + p.token[i, k] * x.width


@kernel
def _price(s: Sums, i: int, kv: float, begin: float, end: float, width: float) -> float:
    """Price of a seat and ``kv`` tokens of instance ``i``."""
    cost = integral(s.seat[i], end, width) - integral(s.seat[i], begin, width)
    if kv > 0.0:
        cost += kv * (integral(s.token[i], end, width) - integral(s.token[i], begin, width))
    return float(cost)


@kernel
def _second(a: Arrays, p: Prices, r: int) -> float:
    """What a second of lateness of stage ``r`` costs, before its workflow's weight."""
    t = a.tenant[a.workflow[r]]
    return float((a.tardiness + a.fairness * p.tenant[t] / a.share[t]) * p.tardy[r])


@kernel
def _fixed(a: Arrays, p: Prices, r: int, i: int) -> float:
    """What stage ``r`` costs on instance ``i`` whenever it starts."""
    cost = a.linear[r, i]
    for j in range(a.knots.shape[1]):
        cost += p.over[i, j] * a.slopes[i, j] * a.load[r, i]
    return float(cost)


@kernel
def choose(a: Arrays, x: Relaxation, p: Prices, s: Sums, o: Options) -> float:
    """Find every stage's cheapest option; returns the bound that the prices give."""
    n, m = a.service.shape
    buckets = x.seat_seconds.shape[1]
    value = 0.0
    for i in range(m):
        for k in range(buckets):
            value -= p.seat[i, k] * x.seat_seconds[i, k] + p.token[i, k] * x.token_seconds[i, k]
        for j in range(a.knots.shape[1]):
            value += p.over[i, j] * a.slopes[i, j] * (a.backlog[i] - a.knots[i, j])
    for r in range(n):
        tardy, late = _second(a, p, r), a.late * p.late[r]
        guess = o.instance[r]
        o.instance[r], o.cost[r] = -1, np.inf
        if np.isfinite(a.hold[r]):
            o.start[r] = a.hold[r]
            o.cost[r] = own_cost(a, r, a.hold[r], tardy, late) + a.linear[r, m]
        if guess >= 0:
            _choose_on(a, x, p, s, o, r, guess, tardy, late)
        for i in range(m):
            if i != guess and a.feasible[r, i]:
                _choose_on(a, x, p, s, o, r, i, tardy, late)
        if np.isfinite(o.cost[r]):
            value += o.cost[r]
    return float(value)


@kernel
def _choose_on(
    a: Arrays, x: Relaxation, p: Prices, s: Sums, o: Options, r: int, i: int, tardy: float, late: float
) -> None:
    """Take the best start on instance ``i`` if it beats the option so far.

    Between the moments at which start or end crosses into another bucket the cost is linear, but for the step of being
    late. Own cost never falls with time and no price is negative: when it alone is too much, nothing later is better.
    """
    buckets = x.seat_seconds.shape[1]
    fixed, length, first = _fixed(a, p, r, i), a.service[r, i], x.earliest[r, i]
    in_time = a.due[a.workflow[r]] - a.tail[r] - length
    begins = int(first / x.width) + 1
    ends = int((first + length) / x.width) + 1
    t, pending = first, in_time > first
    while t < np.inf:
        cost = fixed + own_cost(a, r, t + length, tardy, late)
        if cost >= o.cost[r]:
            return
        cost += _price(s, i, a.kv[r], t, t + length, x.width)
        if cost < o.cost[r]:
            o.instance[r], o.start[r], o.cost[r] = i, t, cost
        t = np.inf
        if begins <= buckets:
            t = begins * x.width
        if ends <= buckets:
            t = min(t, ends * x.width - length)
        if pending and in_time <= t:
            t, pending = in_time, False
        elif begins <= buckets and t == begins * x.width:
            begins += 1
        else:
            ends += 1


@kernel
def stages_cost(a: Arrays, x: Relaxation, p: Prices, s: Sums, i: int, t: float, cost: NDArray[np.float64]) -> None:
    """Write what each stage costs if it starts on instance ``i`` at ``t`` (-1: if it is held); infinite: it cannot."""
    for r in range(cost.shape[0]):
        tardy, late = _second(a, p, r), a.late * p.late[r]
        cost[r] = np.inf
        if i < 0:
            if np.isfinite(a.hold[r]):
                cost[r] = own_cost(a, r, a.hold[r], tardy, late) + a.linear[r, a.service.shape[1]]
        elif a.feasible[r, i] and t >= x.earliest[r, i]:
            end = t + a.service[r, i]
            cost[r] = own_cost(a, r, end, tardy, late) + _fixed(a, p, r, i) + _price(s, i, a.kv[r], t, end, x.width)


@kernel
def slopes_of(a: Arrays, x: Relaxation, p: Prices, o: Options, g: Prices) -> None:
    """Write by how much the bound grows with each price: what the chosen options use, less what there is."""
    m, buckets = x.seat_seconds.shape
    g.tenant[:] = 0.0
    for i in range(m):
        for k in range(buckets):
            g.seat[i, k] = -x.seat_seconds[i, k]
            g.token[i, k] = -x.token_seconds[i, k]
        for j in range(a.knots.shape[1]):
            g.over[i, j] = a.backlog[i] - a.knots[i, j]
    for r in range(o.instance.shape[0]):
        i = o.instance[r]
        g.tardy[r] = 0.0
        g.late[r] = 0.0
        if not np.isfinite(o.cost[r]):
            continue
        end = o.start[r]
        if i >= 0:
            end += a.service[r, i]
            _spread(g.seat[i], o.start[r], end, 1.0, x.width)
            _spread(g.token[i], o.start[r], end, a.kv[r], x.width)
            for j in range(a.knots.shape[1]):
                g.over[i, j] += a.load[r, i]
        w = a.workflow[r]
        late = end + a.tail[r] - a.due[w]
        if late > LATE:
            t = a.tenant[w]
            fair = a.weight[w] * a.fairness * late / a.share[t]
            g.tardy[r] = a.weight[w] * a.tardiness * late + fair * p.tenant[t]
            g.tenant[t] += fair * p.tardy[r]
            g.late[r] = a.weight[w] * a.late
