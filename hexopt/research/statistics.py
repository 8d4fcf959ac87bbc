"""Are two policies different? Pure functions of paired numbers, one pair a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
RESAMPLES = 4999


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval; NaN where there are too few numbers for one."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Mean with its bias-corrected and accelerated (BCa) bootstrap interval (B. Efron 1987).

    Handed the differences of pairs, it is a paired bootstrap. The interval needs two values; of values that are all
    equal it is that value. With fewer than some ten values its true coverage is below ``level``.
    """
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean()) if x.size else np.nan
    if x.size < 2 or not np.isfinite(x).all():
        return Interval(mean, np.nan, np.nan)
    if np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())):
        return Interval(mean, mean, mean)
    found = stats.bootstrap(
        (x,), np.mean, confidence_level=level, n_resamples=resamples, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def signed_ranks(differences: ArrayLike) -> tuple[float, float, NDArray[np.float64]]:
    """Sums of the ranks of the positive and of the negative differences, and the ranks; zeros are left out.

    Ranks are those of the absolute differences, equal ones share their mean (F. Wilcoxon 1945).
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[d != 0.0]
    ranks = stats.rankdata(np.abs(d)) if d.size else np.zeros(0)
    return float(ranks[d > 0].sum()), float(ranks[d < 0].sum()), ranks


def wilcoxon(differences: ArrayLike) -> float:
    """Two-sided p-value of the Wilcoxon signed-rank test, exact for up to 50 differences, ties included.

    Under the null hypothesis each rank has either sign with equal odds; the distribution of the sum is counted, in
    half ranks, so that shared ranks are no approximation. 1 without any difference.
    """
    positive, negative, ranks = signed_ranks(differences)
    if ranks.size == 0:
        return 1.0
    if ranks.size > 50:
        return float(
            stats.wilcoxon(np.asarray(differences, dtype=np.float64), correction=True, method="asymptotic").pvalue
        )
    halves = np.rint(2.0 * ranks).astype(np.int64)
    ways = np.zeros(int(halves.sum()) + 1)
    ways[0] = 1.0
    for step in halves:
        ways[step:] = ways[step:] + ways[: ways.size - step]
    tail = ways[: round(2.0 * min(positive, negative)) + 1].sum() / 2.0**ranks.size
    return float(min(1.0, 2.0 * tail))


def smallest_p(pairs: int) -> float:
    """Smallest p-value that :func:`wilcoxon` can find: all differences have one sign."""
    return min(1.0, 2.0 * 0.5**pairs)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by S. Holm's step-down procedure (1979), in the given order."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(p.size, 0, -1)
    corrected = np.empty(p.size)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(x) for x in corrected]


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation: (W+ - W-) / (W+ + W-), -1 to 1 (D. S. Kerby 2014); 0 without any."""
    positive, negative, ranks = signed_ranks(differences)
    return (positive - negative) / (positive + negative) if ranks.size else 0.0
