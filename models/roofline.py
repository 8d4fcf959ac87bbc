"""Step time of a continuous-batching engine as a positive linear function of roofline features.

One step (iteration) processes ``S`` prefill chunks and ``B`` decoding sequences. With ``N`` the new and ``P`` the
already computed tokens of a chunk, and context lengths that include the token being computed,

``seconds = coef . features(S, T = sum N, A = sum N (P + N/2), K = sum (P + N), B, C = sum context)``.

``Q = T + B`` tokens go through the matrix kernels, whose time is any increasing piecewise linear function of Q with
jumps where they take another tile: Q is cut into segments with a slope each, plus indicators. With coefficients that
are not negative, more work never takes less time. In the context C the features are convex and piecewise linear, so
the time of a *run* of decode-only steps, whose context grows by ``B`` tokens a step, has a closed form;
:func:`decode_run_seconds` is what lets a simulator jump.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hexopt.models.kernel import kernel

Q_KNOTS = (4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
"""Token counts at which the matrix kernels change slope."""
Q_STEPS = (16, 64, 128, 256, 512)
"""Token counts above which the matrix kernels take another tile, and the step jumps."""
C_KNOTS = (32768.0, 262144.0)
"""Context lengths (tokens over the batch) at which attention changes slope."""
FEATURE_NAMES = (
    "1",
    "[T>0]",
    *(f"Q in {low}..{high}" for low, high in zip((0, *Q_KNOTS), (*Q_KNOTS, ""), strict=True)),
    *(f"[Q>{k}]" for k in Q_STEPS),
    "A",
    "K",
    "S",
    "C",
    "[B>0]",
    "B",
    *(f"max(C,{int(k)})[B>0]" for k in C_KNOTS),
)
N_FEATURES = len(FEATURE_NAMES)

_FIRST_SEGMENT = 2
_FIRST_STEP = _FIRST_SEGMENT + len(Q_KNOTS) + 1
_A, _K, _S, _C, _ANY_DECODE, _B, _C1, _C2 = range(_FIRST_STEP + len(Q_STEPS), N_FEATURES)
_EDGES = np.array((0, *Q_KNOTS, np.inf))
_STEPS = np.array(Q_STEPS, dtype=np.float64)


def features(
    n_prefill: ArrayLike,
    prefill_tokens: ArrayLike,
    prefill_attention: ArrayLike,
    prefill_context: ArrayLike,
    n_decode: ArrayLike,
    decode_context: ArrayLike,
) -> NDArray[np.float64]:
    """Feature matrix, shape (n, ``N_FEATURES``), of n steps.

    Parameters
    ----------
    n_prefill, prefill_tokens, prefill_attention, prefill_context
        S, T, A and K of the module's formula, each shape (n,).
    n_decode, decode_context
        B and C, each shape (n,).
    """
    s, t, a, k, b, c = (
        np.asarray(x, dtype=np.float64)
        for x in (n_prefill, prefill_tokens, prefill_attention, prefill_context, n_decode, decode_context)
    )
    tokens, decoding = t + b, b > 0
    # One row a feature: whole rows are written, which is twice as fast as stacking columns.
    rows = np.empty((N_FEATURES, *np.shape(tokens)))
    rows[0] = 1.0
    rows[1] = t > 0
    segments = rows[_FIRST_SEGMENT:_FIRST_STEP]
    np.subtract(tokens, _EDGES[:-1, None], out=segments)
    np.clip(segments, 0.0, np.diff(_EDGES)[:, None], out=segments)
    np.greater(tokens, _STEPS[:, None], out=rows[_FIRST_STEP:_A])
    for row, value in ((_A, a), (_K, k), (_S, s), (_C, c), (_ANY_DECODE, decoding), (_B, b)):
        rows[row] = value
    for row, knot in zip((_C1, _C2), C_KNOTS, strict=True):
        np.multiply(np.maximum(c, knot), decoding, out=rows[row])
    return np.ascontiguousarray(rows.T)


@kernel
def token_seconds(coef: NDArray[np.float64], tokens: float) -> float:
    """Seconds of a step that depend only on how many tokens it computes (matrix kernels and launch cost)."""
    seconds = coef[0]
    for i in range(_EDGES.shape[0] - 1):
        if tokens <= _EDGES[i]:
            break
        seconds += coef[_FIRST_SEGMENT + i] * (min(tokens, _EDGES[i + 1]) - _EDGES[i])
    for i in range(_STEPS.shape[0]):
        if tokens <= _STEPS[i]:
            break
        seconds += coef[_FIRST_STEP + i]
    return float(seconds)


@kernel
def step_seconds(
    coef: NDArray[np.float64],
    n_prefill: float,
    prefill_tokens: float,
    prefill_attention: float,
    prefill_context: float,
    n_decode: float,
    decode_context: float,
) -> float:
    """Seconds of one step; arguments as in :func:`features`, ``coef`` of shape (``N_FEATURES``,)."""
    seconds = token_seconds(coef, prefill_tokens + n_decode)
    if prefill_tokens > 0:
        seconds += coef[1] + coef[_A] * prefill_attention + coef[_K] * prefill_context + coef[_S] * n_prefill
    if n_decode > 0:
        seconds += coef[_ANY_DECODE] + coef[_B] * n_decode + coef[_C] * decode_context
        seconds += coef[_C1] * max(decode_context, C_KNOTS[0]) + coef[_C2] * max(decode_context, C_KNOTS[1])
    return float(seconds)


@kernel
def _sum_of_max(first: float, growth: float, steps: float, knot: float) -> float:
    """``sum(max(first + j * growth, knot) for j in range(steps))`` in closed form, for growth > 0."""
    below = min(max(math.ceil((knot - first) / growth), 0.0), steps)
    above = steps - below
    return below * knot + above * first + growth * (steps * (steps - 1.0) - below * (below - 1.0)) / 2.0


@kernel
def decode_run_seconds(coef: NDArray[np.float64], n_decode: float, decode_context: float, steps: float) -> float:
    """Seconds of ``steps`` consecutive decode-only steps of the same ``n_decode`` sequences.

    ``decode_context`` is the context (tokens over the batch) of the first of them; it grows by ``n_decode`` a step.
    """
    if steps <= 0 or n_decode <= 0:
        return 0.0
    fixed = token_seconds(coef, n_decode) + coef[_ANY_DECODE] + coef[_B] * n_decode
    total_context = steps * decode_context + n_decode * steps * (steps - 1.0) / 2.0
    seconds = fixed * steps + coef[_C] * total_context
    if coef[_C1] != 0.0:
        seconds += coef[_C1] * _sum_of_max(decode_context, n_decode, steps, C_KNOTS[0])
    if coef[_C2] != 0.0:
        seconds += coef[_C2] * _sum_of_max(decode_context, n_decode, steps, C_KNOTS[1])
    return float(seconds)


@kernel
def decode_steps_within(
    coef: NDArray[np.float64], n_decode: float, decode_context: float, seconds: float, limit: int
) -> int:
    """Fewest decode-only steps (1 to ``limit``) that last at least ``seconds``; ``limit`` if none does.

    The run's length is convex in the number of steps, so Newton's method from the right never falls short.
    """
    first = decode_run_seconds(coef, n_decode, decode_context, 1.0)
    if first >= seconds or limit <= 1:
        return 1
    steps: float = min(math.ceil(seconds / first), limit)
    excess = decode_run_seconds(coef, n_decode, decode_context, steps) - seconds
    if excess < 0.0:
        return int(limit)
    while steps > 1:
        last = step_seconds(coef, 0.0, 0.0, 0.0, 0.0, n_decode, decode_context + n_decode * (steps - 1.0))
        back = max(math.floor(excess / last), 1.0)
        shorter = max(steps - back, 1.0)
        excess = decode_run_seconds(coef, n_decode, decode_context, shorter) - seconds
        if excess < 0.0:
            if back == 1.0:
                break
            # Rounding overshot by part of a step: go forward one at a time.
            while excess < 0.0:
                shorter += 1.0
                excess = decode_run_seconds(coef, n_decode, decode_context, shorter) - seconds
            return int(shorter)
        steps = shorter
    return int(steps)


def seconds(coef: ArrayLike, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Predicted seconds, shape (n,), of the steps whose :func:`features` are ``matrix``."""
    result: NDArray[np.float64] = matrix @ np.asarray(coef, dtype=np.float64)
    return result
