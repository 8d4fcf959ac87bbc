"""Whether one is better than the other, from runs in which both met the same traffic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean gain, and what it lies between with confidence."""

    mean: float
    low: float
    high: float


def paired(gains: NDArray[np.float64], confidence: float = 0.95) -> Interval:
    """Student's interval of the mean of paired gains, shape (runs,); without limits from a single run."""
    mean = float(gains.mean())
    if gains.shape[0] < 2:
        return Interval(mean, -np.inf, np.inf)
    half = stats.t.ppf(0.5 + confidence / 2.0, gains.shape[0] - 1) * gains.std(ddof=1) / np.sqrt(gains.shape[0])
    return Interval(mean, mean - float(half), mean + float(half))
