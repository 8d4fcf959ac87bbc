"""Means and quantiles by kind and bucket, learned one observation at a time: what the predictors are made of.

The mean of a bucket is shrunk toward its kind's mean, and that toward the mean over all kinds:

``m_bucket = (sum_bucket + K * m_kind) / (count_bucket + K)``, ``m_kind = (sum_kind + K * m_all) / (count_kind + K)``,

with K = 8 pseudo-observations (the posterior mean under a conjugate prior of that weight). Quantiles come from the
bucket's histogram where it holds enough, otherwise from the kind's, otherwise from that of all kinds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexopt.models.kernel import kernel

BINS_PER_DOUBLING = 4
SHRINKAGE = 8.0
ENOUGH = 20.0
"""Observations from which a histogram is trusted."""


class Tally(NamedTuple):
    """What has been observed; the last row of each array is over all kinds, the last column over all buckets."""

    seen: NDArray[np.float64]
    """Observations, shape (kinds + 1, buckets + 1)."""
    total: NDArray[np.float64]
    """Sum of their values, same shape."""
    histogram: NDArray[np.float64]
    """Observations by value, shape (kinds + 1, buckets + 1, bins)."""


def empty_tally(kinds: int, buckets: int, bins: int) -> Tally:
    """A tally that has seen nothing."""
    shape = (kinds + 1, buckets + 1)
    return Tally(np.zeros(shape), np.zeros(shape), np.zeros((*shape, bins)))


@kernel
def _count(tally: Tally, row: int, bucket: int, place: int, value: float) -> None:
    for column in (bucket, tally.seen.shape[1] - 1):
        tally.seen[row, column] += 1.0
        tally.total[row, column] += value
        tally.histogram[row, column, place] += 1.0


@kernel
def observe(tally: Tally, kind: int, bucket: int, place: float, value: float) -> None:
    """Add ``value``, which belongs at ``place`` in the histogram (beyond the last bin counts there).

    Kind -1 is an unknown one.
    """
    b = min(int(place), tally.histogram.shape[2] - 1)
    if kind >= 0:
        _count(tally, kind, bucket, b, value)
    _count(tally, tally.seen.shape[0] - 1, bucket, b, value)


@kernel
def shrunken_mean(tally: Tally, kind: int, bucket: int, prior: float, weight: float) -> float:
    """The mean of the module's formula, where ``m_all = (sum_all + weight * prior) / (count_all + weight)``."""
    everything, every = tally.seen.shape[0] - 1, tally.seen.shape[1] - 1
    row = kind if kind >= 0 else everything
    overall = (tally.total[everything, every] + weight * prior) / max(tally.seen[everything, every] + weight, 1.0)
    of_kind = (tally.total[row, every] + SHRINKAGE * overall) / (tally.seen[row, every] + SHRINKAGE)
    return float((tally.total[row, bucket] + SHRINKAGE * of_kind) / (tally.seen[row, bucket] + SHRINKAGE))


@kernel
def quantile_place(tally: Tally, kind: int, bucket: int, q: float) -> float:
    """Where in the histogram, interpolated in its bin, a share ``q`` of the observations lies below; -1 if of none."""
    everything = tally.seen.shape[0] - 1
    row = kind if kind >= 0 else everything
    column = bucket
    if tally.seen[row, column] < ENOUGH:
        column = tally.seen.shape[1] - 1
        if tally.seen[row, column] < ENOUGH:
            row = everything
    count = tally.seen[row, column]
    if count == 0.0:
        return -1.0
    wanted = q * count
    below = 0.0
    bins = tally.histogram.shape[2]
    for b in range(bins):
        here = tally.histogram[row, column, b]
        if here > 0.0 and below + here >= wanted:
            return float(b + (wanted - below) / here)
        below += here
    return float(bins)
