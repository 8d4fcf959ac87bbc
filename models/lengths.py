"""How many tokens a call will produce: learned per kind and prompt length, updated as calls end.

Every (kind, prompt bucket) keeps a count, a sum and a histogram of log2 output lengths. The mean of a bucket is shrunk
toward its kind's mean, and that toward the mean over all kinds:

``m_bucket = (sum_bucket + K * m_kind) / (count_bucket + K)``, ``m_kind = (sum_kind + K * m_all) / (count_kind + K)``,
``m_all = (sum_all + prior) / (count_all + 1)``,

with K = 8 pseudo-observations (the posterior mean under a conjugate prior of that weight). Quantiles come from the
bucket's histogram where it holds enough, otherwise from the kind's, otherwise from that of all calls.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hexopt.models.kernel import kernel

PROMPT_BUCKETS = 20
"""Buckets of log2(prompt tokens): up to 2**20 tokens."""
BINS_PER_DOUBLING = 4
LENGTH_BINS = 20 * BINS_PER_DOUBLING
"""Bins of log2(output tokens): up to 2**20 tokens."""
SHRINKAGE = 8.0
PRIOR_OUTPUT = 128.0
"""Output tokens expected before anything was seen."""
_ENOUGH = 20.0


class LengthState(NamedTuple):
    """What has been observed; the last row of each array is over all kinds, the last column over all prompts."""

    seen: NDArray[np.float64]
    """Calls, shape (kinds + 1, PROMPT_BUCKETS + 1)."""
    total: NDArray[np.float64]
    """Output tokens, same shape."""
    histogram: NDArray[np.float64]
    """Calls by output length, shape (kinds + 1, PROMPT_BUCKETS + 1, LENGTH_BINS)."""


def empty_lengths(kinds: int) -> LengthState:
    """State that has seen nothing."""
    shape = (kinds + 1, PROMPT_BUCKETS + 1)
    return LengthState(np.zeros(shape), np.zeros(shape), np.zeros((*shape, LENGTH_BINS)))


def fit_lengths(kinds: int, kind: ArrayLike, prompt_tokens: ArrayLike, output_tokens: ArrayLike) -> LengthState:
    """State after observing n finished calls; the arrays have shape (n,)."""
    state = empty_lengths(kinds)
    rows = (np.asarray(kind), np.asarray(prompt_tokens), np.asarray(output_tokens))
    for k, prompt, output in zip(*rows, strict=True):
        observe_output(state, int(k), float(prompt), float(output))
    return state


@kernel
def _prompt_bucket(prompt_tokens: float) -> int:
    return min(int(math.log2(max(prompt_tokens, 1.0))), PROMPT_BUCKETS - 1)


@kernel
def _count(state: LengthState, row: int, bucket: int, length: int, output_tokens: float) -> None:
    for column in (bucket, PROMPT_BUCKETS):
        state.seen[row, column] += 1.0
        state.total[row, column] += output_tokens
        state.histogram[row, column, length] += 1.0


@kernel
def observe_output(state: LengthState, kind: int, prompt_tokens: float, output_tokens: float) -> None:
    """Learn that a call of ``kind`` with ``prompt_tokens`` produced ``output_tokens``; kind -1 is an unknown one."""
    bucket = _prompt_bucket(prompt_tokens)
    length = min(int(math.log2(max(output_tokens, 1.0)) * BINS_PER_DOUBLING), LENGTH_BINS - 1)
    if kind >= 0:
        _count(state, kind, bucket, length, output_tokens)
    _count(state, state.seen.shape[0] - 1, bucket, length, output_tokens)


@kernel
def expected_output(state: LengthState, kind: int, prompt_tokens: float) -> float:
    """Expected output tokens of a call (the shrunken mean of the module's formula)."""
    everything = state.seen.shape[0] - 1
    row = kind if kind >= 0 else everything
    overall = (state.total[everything, PROMPT_BUCKETS] + PRIOR_OUTPUT) / (state.seen[everything, PROMPT_BUCKETS] + 1.0)
    of_kind = (state.total[row, PROMPT_BUCKETS] + SHRINKAGE * overall) / (state.seen[row, PROMPT_BUCKETS] + SHRINKAGE)
    bucket = _prompt_bucket(prompt_tokens)
    return float((state.total[row, bucket] + SHRINKAGE * of_kind) / (state.seen[row, bucket] + SHRINKAGE))


@kernel
def output_quantile(state: LengthState, kind: int, prompt_tokens: float, q: float) -> float:
    """Output tokens that a share ``q`` of such calls stays within, interpolated in the histogram.

    From the bucket if it has seen 20 calls, else from the kind, else from all calls; without any, the prior.
    """
    everything = state.seen.shape[0] - 1
    row = kind if kind >= 0 else everything
    column = _prompt_bucket(prompt_tokens)
    if state.seen[row, column] < _ENOUGH:
        column = PROMPT_BUCKETS
        if state.seen[row, column] < _ENOUGH:
            row = everything
    count = state.seen[row, column]
    if count == 0.0:
        return PRIOR_OUTPUT
    wanted = q * count
    below = 0.0
    for b in range(LENGTH_BINS):
        here = state.histogram[row, column, b]
        if here > 0.0 and below + here >= wanted:
            return float(2.0 ** ((b + (wanted - below) / here) / BINS_PER_DOUBLING))
        below += here
    return float(2.0 ** (LENGTH_BINS / BINS_PER_DOUBLING))
