"""Epochs by their number of stages, and samples that hold some of each size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_Z = 1.96
"""Standard deviations that 95% of a normal distribution lie within."""


def size_class(stages: int) -> int:
    """Number of the class: 1, 2, 3 to 4, 5 to 8, 9 to 16 stages, and so on."""
    return (stages - 1).bit_length()


def size_label(number: int) -> str:
    """Stages of a class, for people."""
    last = 2**number
    first = last // 2 + 1
    return f"{last}" if first >= last else f"{first} to {last}"


def shares(available: Mapping[int, int], wanted: int) -> dict[int, int]:
    """How many of each class to take: equally many, and all of those that have fewer.

    Parameters
    ----------
    available
        How many there are of each class.
    wanted
        How many in all; what does not divide evenly goes to the largest classes.
    """
    taken: dict[int, int] = {}
    left = wanted
    for position, (number, there) in enumerate(sorted(available.items(), key=lambda entry: (entry[1], entry[0]))):
        taken[number] = min(there, left // (len(available) - position))
        left -= taken[number]
    return taken


@dataclass(frozen=True)
class Estimate:
    """A mean, half the width of its 95% interval, and of how many values; NaN where it cannot be told."""

    mean: float
    half: float
    count: int


def stratified(values: ArrayLike, stratum: ArrayLike, stands_for: ArrayLike) -> Estimate:
    """Mean over all epochs of something that is known of a stratified sample.

    ``sum_h (N_h / N) mean_h`` with variance ``sum_h (N_h / N)^2 (1 - n_h / N_h) s_h^2 / n_h`` (W. G. Cochran, Sampling
    Techniques, 1977, sections 5.3 and 5.4).

    Parameters
    ----------
    values, stratum
        Value and stratum of each sampled epoch, shape (n,).
    stands_for
        Epochs that each stands for, shape (n,); 1 where all were taken.
    """
    x, h, n = np.asarray(values, dtype=np.float64), np.asarray(stratum), np.asarray(stands_for, dtype=np.float64)
    if not x.size or not np.isfinite(x).all():
        return Estimate(np.nan, np.nan, int(x.size))
    variance = 0.0
    for number in np.unique(h):
        here = x[h == number]
        there = float(n[h == number].sum())
        if here.size < there:
            spread = float(here.var(ddof=1)) if here.size > 1 else np.nan
            variance += (there / n.sum()) ** 2 * (1.0 - here.size / there) * spread / here.size
    return Estimate(float((n * x).sum() / n.sum()), float(_Z * np.sqrt(variance)), int(x.size))


def classes_of(stages: Sequence[int]) -> list[int]:
    """The class of each."""
    return [size_class(n) for n in stages]
