"""Fit the roofline step time to a frozen profile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression

from hexopt.models.profiling.frozen import FrozenProfile
from hexopt.models.roofline import features, seconds


@dataclass(frozen=True, slots=True)
class FitError:
    """How far a fit is off on ``rows`` rows of one split: mean and 95th percentile of the absolute relative error."""

    mape: float
    p95: float
    rows: int


def profile_features(profile: FrozenProfile) -> NDArray[np.float64]:
    """:func:`hexopt.models.roofline.features` of a profile's iterations, shape (n, ``N_FEATURES``).

    A profile holds sums over equal chunks, so with S chunks, T new and P cached tokens, ``A = T (P/S + T/(2S))`` and
    ``K = P + T``.
    """
    chunks = np.maximum(profile.n_prefill, 1)
    new, cached = profile.prefill_tokens.astype(np.float64), profile.prefill_cached
    attention = new * (cached / chunks + new / chunks / 2.0)
    return features(profile.n_prefill, new, attention, cached + new, profile.n_decode, profile.decode_context)


def positive_fit(profile: FrozenProfile) -> tuple[LinearRegression, NDArray[np.float64]]:
    """Linear model without negative coefficients, and the scale that features, shape (n, F), are divided by before it.

    Least squared *relative* error on ``train``. No coefficient being negative, more work never costs less time,
    whatever dips the sampled kernel tables have.
    """
    train = profile.split == "train"
    matrix = profile_features(profile)[train] / profile.seconds[train, None]
    scale: NDArray[np.float64] = matrix.max(axis=0)
    scale[scale == 0.0] = 1.0
    model = LinearRegression(positive=True, fit_intercept=False)
    model.fit(matrix / scale, np.ones(len(matrix)))
    return model, scale


def fit_profile(profile: FrozenProfile) -> NDArray[np.float64]:
    """Coefficients (seconds), shape (``N_FEATURES``,), of :func:`positive_fit`."""
    model, scale = positive_fit(profile)
    coef: NDArray[np.float64] = model.coef_ / scale
    return coef


def fit_error(coef: NDArray[np.float64], profile: FrozenProfile, split: str) -> FitError:
    """Error of ``coef`` on the rows of one split."""
    rows = profile.split == split
    relative = np.abs(seconds(coef, profile_features(profile)[rows]) / profile.seconds[rows] - 1.0)
    return FitError(float(relative.mean()), float(np.quantile(relative, 0.95)), int(rows.sum()))
