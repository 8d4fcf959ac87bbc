"""Regressors of the step time, behind one interface: ``fit(profile)`` learns, ``predict(profile)`` returns seconds.

Only the first is used at run time, as coefficients of :mod:`hexopt.models.roofline`; the others show what it costs to
be linear and monotone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge

from hexopt.models.profiling.fitting import positive_fit, profile_features
from hexopt.models.profiling.frozen import FrozenProfile


class StepTimeRegressor(Protocol):
    """What learns step times."""

    def fit(self, profile: FrozenProfile) -> Self:
        """Learn from the rows of ``profile`` whose split is ``train``."""

    def predict(self, profile: FrozenProfile) -> NDArray[np.float64]:
        """Seconds, shape (n,), of all rows; their ``seconds`` are not looked at."""


class RooflineRegressor(BaseEstimator):
    """Positive linear model of the roofline features, least squared *relative* error. The default.

    scikit-learn's ``LinearRegression(positive=True, fit_intercept=False)`` on rows divided by their time, with scaled
    columns.
    """

    def fit(self, profile: FrozenProfile) -> Self:
        """Learn from the rows of ``profile`` whose split is ``train``."""
        self.model_, self.scale_ = positive_fit(profile)
        return self

    def predict(self, profile: FrozenProfile) -> NDArray[np.float64]:
        """Seconds, shape (n,), of all rows."""
        predicted: NDArray[np.float64] = self.model_.predict(profile_features(profile) / self.scale_)
        return predicted

    @property
    def coefficients(self) -> NDArray[np.float64]:
        """Seconds per feature, shape (``N_FEATURES``,), as :func:`hexopt.models.roofline.step_seconds` takes them."""
        coef: NDArray[np.float64] = self.model_.coef_ / self.scale_
        return coef


class ResidualRegressor(BaseEstimator):
    """The roofline times a correction that a grid holds: it may dip where the measurements do.

    The logarithm of measured over predicted time is interpolated between grid points at every half power of two of the
    tokens in a step, on one line each for decode-only, prefill-only and mixed steps. The points are fitted by ridge
    regression, so where there are few measurements the correction is small; it is clipped, and constant outside.

    Parameters
    ----------
    shrinkage
        Ridge penalty, in measurements.
    limit
        Largest correction factor, either way.
    """

    def __init__(self, shrinkage: float = 1.0, limit: float = 1.25) -> None:
        self.shrinkage = shrinkage
        self.limit = limit

    def fit(self, profile: FrozenProfile) -> Self:
        """Learn from the rows of ``profile`` whose split is ``train``."""
        train = profile.split == "train"
        self.roofline_ = RooflineRegressor().fit(profile)
        residual = np.log(profile.seconds / self.roofline_.predict(profile))
        self.ridge_ = Ridge(alpha=self.shrinkage, fit_intercept=False).fit(_hats(profile)[train], residual[train])
        return self

    def predict(self, profile: FrozenProfile) -> NDArray[np.float64]:
        """Seconds, shape (n,), of all rows."""
        bound = np.log(self.limit)
        correction = np.exp(np.clip(self.ridge_.predict(_hats(profile)), -bound, bound))
        predicted: NDArray[np.float64] = self.roofline_.predict(profile) * correction
        return predicted


class BoostingRegressor(BaseEstimator):
    """Gradient boosted trees of the logarithm of the time, increasing in every size of a step."""

    def fit(self, profile: FrozenProfile) -> Self:
        """Learn from the rows of ``profile`` whose split is ``train``."""
        train = profile.split == "train"
        sizes = _sizes(profile)
        self.model_ = HistGradientBoostingRegressor(
            max_iter=100,
            learning_rate=0.2,
            min_samples_leaf=3,
            monotonic_cst=[1] * sizes.shape[1],
            early_stopping=False,
        ).fit(sizes[train], np.log(profile.seconds[train]))
        return self

    def predict(self, profile: FrozenProfile) -> NDArray[np.float64]:
        """Seconds, shape (n,), of all rows."""
        predicted: NDArray[np.float64] = np.exp(self.model_.predict(_sizes(profile)))
        return predicted


class ForestRegressor(BaseEstimator):
    """A random forest of the logarithm of the time, as Vidur (MLSys 2024) has for each of its operators.

    Parameters
    ----------
    random_state
        Seed of the trees.
    """

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def fit(self, profile: FrozenProfile) -> Self:
        """Learn from the rows of ``profile`` whose split is ``train``."""
        train = profile.split == "train"
        self.model_ = RandomForestRegressor(
            n_estimators=100, max_depth=16, min_samples_split=5, random_state=self.random_state
        ).fit(_sizes(profile)[train], np.log(profile.seconds[train]))
        return self

    def predict(self, profile: FrozenProfile) -> NDArray[np.float64]:
        """Seconds, shape (n,), of all rows."""
        predicted: NDArray[np.float64] = np.exp(self.model_.predict(_sizes(profile)))
        return predicted


DEFAULT = "roofline"
"""Name of the regressor whose coefficients are exported."""
REGRESSORS: dict[str, Callable[[np.random.Generator], StepTimeRegressor]] = {
    DEFAULT: lambda rng: RooflineRegressor(),
    "residual": lambda rng: ResidualRegressor(),
    "boosting": lambda rng: BoostingRegressor(),
    "forest": lambda rng: ForestRegressor(random_state=int(rng.integers(2**31))),
}
"""Makes each regressor, by name."""


_GRID_STEP = 0.5
_GRID = np.arange(0.0, 14.0, _GRID_STEP)


def _hats(profile: FrozenProfile) -> NDArray[np.float64]:
    """Weights of the grid points, which interpolate linearly in log2 of the tokens, shape (n, 3 * points)."""
    tokens = np.log2((profile.prefill_tokens + profile.n_decode).astype(np.float64))
    place = np.clip(tokens, _GRID[0], _GRID[-1])
    hats = np.maximum(1.0 - np.abs(place[:, None] - _GRID) / _GRID_STEP, 0.0)
    line = np.where(profile.n_prefill == 0, 0, np.where(profile.n_decode == 0, 1, 2))
    return np.concatenate([hats * (line == i)[:, None] for i in range(3)], axis=1)


def _sizes(profile: FrozenProfile) -> NDArray[np.float64]:
    """Sizes of a step that trees split on, shape (n, 7)."""
    chunks = np.maximum(profile.n_prefill, 1)
    new, cached = profile.prefill_tokens.astype(np.float64), profile.prefill_cached.astype(np.float64)
    columns = (
        new + profile.n_decode,
        new,
        new * (cached + new / 2.0) / chunks,
        cached + new,
        profile.n_prefill,
        profile.n_decode,
        profile.decode_context,
    )
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=-1)
