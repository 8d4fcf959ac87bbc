"""How long a workflow still takes after a stage: the remaining critical path, learned from finished workflows.

Keyed by the stage's kind and by how many stages of that kind the workflow had before it (a third revision is followed
by less than a first one). As in :mod:`hexopt.models.lengths`, a key's mean is shrunk toward its kind's, and that toward
the mean over all kinds:

``m_key = (sum_key + K * m_kind) / (count_key + K)``, ``m_kind = (sum_kind + K * m_all) / (count_kind + K)``, K = 8.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hexopt.models.kernel import kernel

OCCURRENCES = 16
"""Occurrences told apart; later ones count as the last."""
BINS_PER_DOUBLING = 4
TAIL_BINS = 28 * BINS_PER_DOUBLING
"""Bins of log2(1 + tail in milliseconds): up to 2**28 ms, three days."""
SHRINKAGE = 8.0
_ENOUGH = 20.0


class TailState(NamedTuple):
    """What has been observed; the last row of each array is over all kinds, the last column over all occurrences."""

    seen: NDArray[np.float64]
    """Stages, shape (kinds + 1, OCCURRENCES + 1)."""
    total: NDArray[np.float64]
    """Seconds, same shape."""
    histogram: NDArray[np.float64]
    """Stages by tail, shape (kinds + 1, OCCURRENCES + 1, TAIL_BINS)."""


def empty_tails(kinds: int) -> TailState:
    """State that has seen nothing."""
    shape = (kinds + 1, OCCURRENCES + 1)
    return TailState(np.zeros(shape), np.zeros(shape), np.zeros((*shape, TAIL_BINS)))


def fit_tails(kinds: int, kind: ArrayLike, occurrence: ArrayLike, seconds: ArrayLike) -> TailState:
    """State after observing the tails of n stages of finished workflows; the arrays have shape (n,)."""
    state = empty_tails(kinds)
    rows = (np.asarray(kind), np.asarray(occurrence), np.asarray(seconds))
    for k, nth, tail in zip(*rows, strict=True):
        observe_tail(state, int(k), int(nth), float(tail))
    return state


@kernel
def _count(state: TailState, row: int, occurrence: int, b: int, seconds: float) -> None:
    for column in (min(occurrence, OCCURRENCES - 1), OCCURRENCES):
        state.seen[row, column] += 1.0
        state.total[row, column] += seconds
        state.histogram[row, column, b] += 1.0


@kernel
def observe_tail(state: TailState, kind: int, occurrence: int, seconds: float) -> None:
    """Learn that a workflow took ``seconds`` more after its ``occurrence``-th stage (from 0) of ``kind`` ended.

    Kind -1 is an unknown one.
    """
    b = min(int(math.log2(1.0 + 1000.0 * seconds) * BINS_PER_DOUBLING), TAIL_BINS - 1)
    if kind >= 0:
        _count(state, kind, occurrence, b, seconds)
    _count(state, state.seen.shape[0] - 1, occurrence, b, seconds)


@kernel
def expected_tail(state: TailState, kind: int, occurrence: int) -> float:
    """Expected seconds from the end of such a stage to the end of its workflow; 0 before anything was seen."""
    everything = state.seen.shape[0] - 1
    row = kind if kind >= 0 else everything
    overall = state.total[everything, OCCURRENCES] / max(state.seen[everything, OCCURRENCES], 1.0)
    of_kind = (state.total[row, OCCURRENCES] + SHRINKAGE * overall) / (state.seen[row, OCCURRENCES] + SHRINKAGE)
    column = min(occurrence, OCCURRENCES - 1)
    return float((state.total[row, column] + SHRINKAGE * of_kind) / (state.seen[row, column] + SHRINKAGE))


@kernel
def tail_quantile(state: TailState, kind: int, occurrence: int, q: float) -> float:
    """Seconds that a share ``q`` of such tails stays within, interpolated in the histogram.

    From the occurrence if 20 were seen, else from the kind, else from all kinds; 0 before anything was seen.
    """
    everything = state.seen.shape[0] - 1
    row = kind if kind >= 0 else everything
    column = min(occurrence, OCCURRENCES - 1)
    if state.seen[row, column] < _ENOUGH:
        column = OCCURRENCES
        if state.seen[row, column] < _ENOUGH:
            row = everything
    count = state.seen[row, column]
    if count == 0.0:
        return 0.0
    wanted = q * count
    below = 0.0
    for b in range(TAIL_BINS):
        here = state.histogram[row, column, b]
        if here > 0.0 and below + here >= wanted:
            return float((2.0 ** ((b + (wanted - below) / here) / BINS_PER_DOUBLING) - 1.0) / 1000.0)
        below += here
    return float((2.0 ** (TAIL_BINS / BINS_PER_DOUBLING) - 1.0) / 1000.0)
