"""How many tokens a call will produce: learned per kind and prompt length, updated as calls end.

A :class:`~hexopt.models.tallies.Tally` whose buckets are log2 prompt tokens and whose values are output tokens.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from hexopt.models.kernel import kernel
from hexopt.models.tallies import BINS_PER_DOUBLING, Tally, empty_tally, observe, quantile_place, shrunken_mean

PROMPT_BUCKETS = 20
"""Buckets of log2(prompt tokens): up to 2**20 tokens."""
LENGTH_BINS = 20 * BINS_PER_DOUBLING
"""Bins of log2(output tokens): up to 2**20 tokens."""
PRIOR_OUTPUT = 128.0
"""Output tokens expected before anything was seen; counts as one observation."""


def empty_lengths(kinds: int) -> Tally:
    """A tally that has seen no call."""
    return empty_tally(kinds, PROMPT_BUCKETS, LENGTH_BINS)


def fit_lengths(kinds: int, kind: ArrayLike, prompt_tokens: ArrayLike, output_tokens: ArrayLike) -> Tally:
    """Tally of n finished calls; the arrays have shape (n,)."""
    tally = empty_lengths(kinds)
    rows = (np.asarray(kind), np.asarray(prompt_tokens), np.asarray(output_tokens))
    for k, prompt, output in zip(*rows, strict=True):
        observe_output(tally, int(k), float(prompt), float(output))
    return tally


@kernel
def prompt_bucket(prompt_tokens: float) -> int:
    """Bucket of a prompt's length."""
    return min(int(math.log2(max(prompt_tokens, 1.0))), PROMPT_BUCKETS - 1)


@kernel
def observe_output(tally: Tally, kind: int, prompt_tokens: float, output_tokens: float) -> None:
    """Learn that a call of ``kind`` with ``prompt_tokens`` produced ``output_tokens``; kind -1 is an unknown one."""
    place = math.log2(max(output_tokens, 1.0)) * BINS_PER_DOUBLING
    observe(tally, kind, prompt_bucket(prompt_tokens), place, output_tokens)


@kernel
def expected_output(tally: Tally, kind: int, prompt_tokens: float) -> float:
    """Expected output tokens of a call."""
    return shrunken_mean(tally, kind, prompt_bucket(prompt_tokens), PRIOR_OUTPUT, 1.0)


@kernel
def output_quantile(tally: Tally, kind: int, prompt_tokens: float, q: float) -> float:
    """Output tokens that a share ``q`` of such calls stays within; the prior before anything was seen."""
    place = quantile_place(tally, kind, prompt_bucket(prompt_tokens), q)
    return float(2.0 ** (place / BINS_PER_DOUBLING)) if place >= 0.0 else PRIOR_OUTPUT
