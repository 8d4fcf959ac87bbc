"""The pair problem without its capacities, which have prices instead: each call takes what costs it least, compiled.

The time until the last bucket's end is cut into buckets of equal width. A prefill instance's seconds and a decode
instance's token-seconds within a bucket cost what its price says; behind the last one all is free. The cost of a pair
is linear between the moments at which a start or an end crosses into another bucket, but for the step at the due date,
so only those moments are tried.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.kernels import LATE, inlined, kernel
from hexopt.solvers.pairs.kernels import PairArrays


class Priced(NamedTuple):
    """Prices, and what the calls take at these."""

    width: float
    """Seconds of a bucket."""
    prefill_price: NDArray[np.float64]
    """Of a second, shape (p, buckets)."""
    decode_price: NDArray[np.float64]
    """Of a second of the whole memory, shape (d, buckets)."""
    share: NDArray[np.float64]
    """Of its workflow's tardiness that a call answers for, at most 1 in all over siblings; shape (n,)."""
    room: NDArray[np.float64]
    """Seconds before which no decode starts, shape (n, d)."""
    choice_first: NDArray[np.int64]
    """Call r's pairs are at choice_first[r] .. choice_first[r + 1], the earliest end first."""
    choice: NDArray[np.int64]
    """Shape (., 2)."""
    prefill_sum: NDArray[np.float64]
    """Written: price of the buckets before, shape (p, buckets + 1)."""
    decode_sum: NDArray[np.float64]
    """Likewise, shape (d, buckets + 1)."""
    prefill_used: NDArray[np.float64]
    """Written: seconds of each bucket, shape (p, buckets)."""
    decode_used: NDArray[np.float64]
    """Written: seconds of the whole memory, shape (d, buckets)."""
    over: NDArray[np.float64]
    """Written: seconds by which each call makes its workflow late, shape (n,)."""
    moments: NDArray[np.float64]
    """Scratch: ends of a prefill, what they cost, the least so far, its end. Shape (4, 2 buckets + 3)."""


@inlined
def _paid(sums: NDArray[np.float64], prices: NDArray[np.float64], k: int, width: float, moment: float) -> float:
    """Price of all of instance ``k`` until ``moment``."""
    buckets = prices.shape[1]
    b = int(moment / width)
    if b >= buckets:
        return float(sums[k, buckets])
    return float(sums[k, b] + prices[k, b] * (moment - b * width))


@inlined
def _use(used: NDArray[np.float64], k: int, width: float, begin: float, end: float, amount: float) -> None:
    """Add a use of instance ``k`` from ``begin`` to ``end``."""
    buckets = used.shape[1]
    b = int(begin / width)
    while b < buckets and b * width < end:
        used[k, b] += amount * (min(end, (b + 1) * width) - max(begin, b * width))
        b += 1


@inlined
def _own(a: PairArrays, z: Priced, r: int, end: float) -> float:
    """What call ``r`` costs for its end alone, its share of the tardiness included."""
    w = a.workflow[r]
    cost = a.completion * end
    late = end + a.tail[r] - a.due[w]
    if late > 0.0:
        cost += z.share[r] * a.tardiness * late
    # Twice: a moment that is chosen to be in time must not be late for the rounding of a float.
    if late > 2.0 * LATE:
        cost += z.share[r] * a.late
    return float(a.weight[w] * cost)


@inlined
def _prefill_moments(a: PairArrays, z: Priced, r: int, i: int) -> int:
    """Write the ends of call ``r``'s prefill on ``i`` that are worth a try, in order; returns how many."""
    takes, first = a.prefill[r, i], max(a.prefill_free[i], a.release[r])
    buckets = z.prefill_price.shape[1]
    count = 1
    z.moments[0, 0] = first + takes
    start, end = int(first / z.width) + 1, int((first + takes) / z.width) + 1
    while start <= buckets or end <= buckets:
        one, other = start * z.width + takes, end * z.width
        if end > buckets or (start <= buckets and one <= other):
            z.moments[0, count] = one
            start += 1
        else:
            z.moments[0, count] = other
            end += 1
        count += 1
    least, at = np.inf, 0.0
    for k in range(count):
        moment = z.moments[0, k]
        cost = _paid(z.prefill_sum, z.prefill_price, i, z.width, moment)
        cost -= _paid(z.prefill_sum, z.prefill_price, i, z.width, moment - takes)
        if cost < least:
            least, at = cost, moment
        z.moments[1, k], z.moments[2, k], z.moments[3, k] = cost, least, at
    return count


@inlined
def _decode_cost(a: PairArrays, z: Priced, r: int, j: int, start: float) -> float:
    """What call ``r`` costs if it starts to decode on ``j`` then."""
    end = start + a.decode[r, j]
    paid = _paid(z.decode_sum, z.decode_price, j, z.width, end)
    paid -= _paid(z.decode_sum, z.decode_price, j, z.width, start)
    share = a.kv[r] / a.kv_capacity[j] if a.kv[r] > 0 else 0.0
    return float(_own(a, z, r, end) + a.imposed[r, j] + share * paid)


@kernel
def cheapest(a: PairArrays, z: Priced) -> float:
    """Let each call take what costs it least; returns the sum, and writes what is used and how late they are."""
    n, buckets = a.workflow.shape[0], z.prefill_price.shape[1]
    for k in range(z.prefill_price.shape[0]):
        for b in range(buckets):
            z.prefill_sum[k, b + 1] = z.prefill_sum[k, b] + z.prefill_price[k, b] * z.width
            z.prefill_used[k, b] = 0.0
    for k in range(z.decode_price.shape[0]):
        for b in range(buckets):
            z.decode_sum[k, b + 1] = z.decode_sum[k, b] + z.decode_price[k, b] * z.width
            z.decode_used[k, b] = 0.0
    total = 0.0
    for r in range(n):
        least, best_i, best_j, best_end, best_start = np.inf, -1, -1, 0.0, 0.0
        if np.isfinite(a.hold[r]):
            least, best_start = _own(a, z, r, a.hold[r]), a.hold[r]
        filled, count = -1, 0
        for c in range(z.choice_first[r], z.choice_first[r + 1]):
            i, j = z.choice[c, 0], z.choice[c, 1]
            takes = a.decode[r, j]
            lag = 0.0
            if a.settled[r]:
                first = a.arrival[r, 0, j]
            else:
                lag = a.arrival[r, i, j] - a.prefill[r, i]
                first = max(a.prefill_free[i], a.release[r]) + a.arrival[r, i, j]
            earliest = max(first, z.room[r, j])
            if _own(a, z, r, earliest + takes) + a.imposed[r, j] >= least:
                continue
            if not a.settled[r] and filled != i:
                count = _prefill_moments(a, z, r, i)
                filled = i
            due = a.due[a.workflow[r]] - a.tail[r] - takes
            bucket = int(earliest / z.width)
            edges = buckets - bucket if bucket < buckets else 0
            ends = int((earliest + takes) / z.width)
            tails = buckets - ends if ends < buckets else 0
            place = 0
            for k in range(2 + edges + tails + count):
                if k == 0:
                    start = earliest
                elif k == 1:
                    start = due
                elif k < 2 + edges:
                    start = (bucket + k - 1) * z.width
                elif k < 2 + edges + tails:
                    start = (ends + k - 1 - edges) * z.width - takes
                else:
                    start = z.moments[0, k - 2 - edges - tails] + lag
                if start < earliest:
                    continue
                if _own(a, z, r, start + takes) + a.imposed[r, j] >= least:
                    continue
                cost = _decode_cost(a, z, r, j, start)
                if cost >= least:
                    continue
                at = 0.0
                if not a.settled[r]:
                    limit = start - lag
                    low, high = 0, count
                    while high - low > 1:
                        place = (low + high) // 2
                        if z.moments[0, place] <= limit:
                            low = place
                        else:
                            high = place
                    paid, at = z.moments[2, low], z.moments[3, low]
                    direct = _paid(z.prefill_sum, z.prefill_price, i, z.width, limit)
                    direct -= _paid(z.prefill_sum, z.prefill_price, i, z.width, limit - a.prefill[r, i])
                    if direct < paid:
                        paid, at = direct, limit
                    cost += paid
                if cost < least:
                    least, best_i, best_j, best_end, best_start = cost, i, j, at, start
        end = best_start
        if best_j >= 0:
            end = best_start + a.decode[r, best_j]
            share = a.kv[r] / a.kv_capacity[best_j] if a.kv[r] > 0 else 0.0
            _use(z.decode_used, best_j, z.width, best_start, end, share)
            if not a.settled[r]:
                _use(z.prefill_used, best_i, z.width, best_end - a.prefill[r, best_i], best_end, 1.0)
        z.over[r] = max(0.0, end + a.tail[r] - a.due[a.workflow[r]])
        total += least
    return total
