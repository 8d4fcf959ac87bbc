"""How long a workflow still takes after a stage: the remaining critical path, learned from finished workflows.

Keyed by the stage's kind and by how many stages of that kind the workflow had before it (a third revision is followed by less
than a first one). A key's mean is shrunk toward its kind's, as in :mod:`hexopt.models.lengths`.
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
    """What has been observed; the last column is over all occurrences."""

    count: NDArray[np.float64]
    """Stages, shape (kinds, OCCURRENCES + 1)."""
    total: NDArray[np.float64]
    """Seconds, same shape."""
    histogram: NDArray[np.float64]
    """Stages by tail, shape (kinds, OCCURRENCES + 1, TAIL_BINS)."""


def empty_tails(kinds: int) -> TailState:
    """State that has seen nothing."""
    shape = (kinds, OCCURRENCES + 1)
    return TailState(np.zeros(shape), np.zeros(shape), np.zeros((*shape, TAIL_BINS)))


def fit_tails(kinds: int, kind: ArrayLike, occurrence: ArrayLike, seconds: ArrayLike) -> TailState:
    """State after observing the tails of n stages of finished workflows; the arrays have shape (n,)."""
    state = empty_tails(kinds)
    rows = (np.asarray(kind), np.asarray(occurrence), np.asarray(seconds))
    for k, nth, tail in zip(*rows, strict=True):
        observe_tail(state, int(k), int(nth), float(tail))
    return state


@kernel
def observe_tail(state: TailState, kind: int, occurrence: int, seconds: float) -> None:
    """Learn that a workflow took ``seconds`` more after its ``occurrence``-th stage (from 0) of ``kind`` ended."""
    b = min(int(math.log2(1.0 + 1000.0 * seconds) * BINS_PER_DOUBLING), TAIL_BINS - 1)
    for column in (min(occurrence, OCCURRENCES - 1), OCCURRENCES):
        state.count[kind, column] += 1.0
        state.total[kind, column] += seconds
        state.histogram[kind, column, b] += 1.0


@kernel
def expected_tail(state: TailState, kind: int, occurrence: int) -> float:
    """Expected seconds from the end of such a stage to the end of its workflow; 0 for a kind never seen."""
    of_kind = state.total[kind, OCCURRENCES] / max(state.count[kind, OCCURRENCES], 1.0)
    column = min(occurrence, OCCURRENCES - 1)
    return float((state.total[kind, column] + SHRINKAGE * of_kind) / (state.count[kind, column] + SHRINKAGE))


@kernel
def tail_quantile(state: TailState, kind: int, occurrence: int, q: float) -> float:
    """Seconds that a share ``q`` of such tails stays within; over all occurrences if fewer than 20 were seen."""
    column = min(occurrence, OCCURRENCES - 1)
    if state.count[kind, column] < _ENOUGH:
        column = OCCURRENCES
    count = state.count[kind, column]
    if count == 0.0:
        return 0.0
    wanted = q * count
    below = 0.0
    for b in range(TAIL_BINS):
        here = state.histogram[kind, column, b]
        if here > 0.0 and below + here >= wanted:
            return float((2.0 ** ((b + (wanted - below) / here) / BINS_PER_DOUBLING) - 1.0) / 1000.0)
        below += here
    return float((2.0 ** (TAIL_BINS / BINS_PER_DOUBLING) - 1.0) / 1000.0)
