"""How long a workflow still takes after a stage: the remaining critical path, learned from finished workflows.

A :class:`~hexopt.models.tallies.Tally` whose values are seconds and whose buckets tell how many stages of its kind the
workflow had before the stage: a third revision is followed by less than a first one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from hexopt.models.kernel import kernel
from hexopt.models.tallies import BINS_PER_DOUBLING, Tally, empty_tally, observe, quantile_place, shrunken_mean

OCCURRENCES = 16
"""Occurrences told apart; later ones count as the last."""
TAIL_BINS = 28 * BINS_PER_DOUBLING
"""Bins of log2(1 + tail in milliseconds): up to 2**28 ms, three days."""


def empty_tails(kinds: int) -> Tally:
    """A tally that has seen no stage."""
    return empty_tally(kinds, OCCURRENCES, TAIL_BINS)


def fit_tails(kinds: int, kind: ArrayLike, occurrence: ArrayLike, seconds: ArrayLike) -> Tally:
    """Tally of the tails of n stages of finished workflows; the arrays have shape (n,)."""
    tally = empty_tails(kinds)
    rows = (np.asarray(kind), np.asarray(occurrence), np.asarray(seconds))
    for k, nth, tail in zip(*rows, strict=True):
        observe_tail(tally, int(k), int(nth), float(tail))
    return tally


@kernel
def observe_tail(tally: Tally, kind: int, occurrence: int, seconds: float) -> None:
    """Learn that a workflow took ``seconds`` more after its ``occurrence``-th stage (from 0) of ``kind`` ended.

    Kind -1 is an unknown one.
    """
    place = math.log2(1.0 + 1000.0 * seconds) * BINS_PER_DOUBLING
    observe(tally, kind, min(occurrence, OCCURRENCES - 1), place, seconds)


@kernel
def expected_tail(tally: Tally, kind: int, occurrence: int) -> float:
    """Expected seconds from the end of such a stage to the end of its workflow; 0 before anything was seen."""
    return shrunken_mean(tally, kind, min(occurrence, OCCURRENCES - 1), 0.0, 0.0)


@kernel
def tail_quantile(tally: Tally, kind: int, occurrence: int, q: float) -> float:
    """Seconds that a share ``q`` of such tails stays within; 0 before anything was seen."""
    place = quantile_place(tally, kind, min(occurrence, OCCURRENCES - 1), q)
    return float((2.0 ** (place / BINS_PER_DOUBLING) - 1.0) / 1000.0) if place >= 0.0 else 0.0
