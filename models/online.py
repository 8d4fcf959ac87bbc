"""Online correction of the latency model: how much longer than predicted an instance's steps really take.

Per instance, ``s <- s + w (min(max(observed / predicted, 1/2), 2) - s)`` from s = 1, with ``w = 1 - 2^(-1/h)``, an
exponentially weighted mean: after ``h`` observations an old one counts half. Every ratio is clamped, not only the mean,
so that one stalled step moves the scale by at most ``w``. aiconfigurator 0.12.0 clamps its own correction likewise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexopt.models.kernel import kernel

LOWEST_SCALE = 0.5
HIGHEST_SCALE = 2.0
HALF_LIFE = 64.0
"""Observations after which an old one counts half."""


class OnlineState(NamedTuple):
    """Scales of n instances, for kernels."""

    scale: NDArray[np.float64]
    """Observed over predicted seconds, shape (n,)."""
    weight: NDArray[np.float64]
    """Weight w of an observation, shape (1,)."""


def empty_online(instances: int, half_life: float = HALF_LIFE) -> OnlineState:
    """State that trusts the model: every scale is 1.

    Raises
    ------
    ValueError
        If ``instances`` is negative or ``half_life`` (observations) is not positive.
    """
    if instances < 0:
        raise ValueError(f"instances is {instances}, expected at least 0")
    if not half_life > 0:
        raise ValueError(f"half_life is {half_life}, expected a positive number of observations")
    return OnlineState(np.ones(instances), np.array([-math.expm1(-math.log(2.0) / half_life)]))


@kernel
def observe(state: OnlineState, instance: int, predicted: float, observed: float) -> None:
    """Learn that work predicted (without correction) to last ``predicted`` seconds on ``instance`` lasted ``observed``.

    What has no ratio (a prediction of 0, or an observation that is negative or not finite) is passed over.
    """
    if not (predicted > 0.0 and observed >= 0.0 and math.isfinite(predicted) and math.isfinite(observed)):
        return
    ratio = min(max(observed / predicted, LOWEST_SCALE), HIGHEST_SCALE)
    state.scale[instance] += state.weight[0] * (ratio - state.scale[instance])


@kernel
def scale(state: OnlineState, instance: int) -> float:
    """Factor, from 1/2 to 2, for predictions on ``instance``."""
    return float(state.scale[instance])


class OnlineCorrection:
    """The correction for Python code, such as a gateway.

    Parameters
    ----------
    instances
        How many.
    half_life
        Observations after which an old one counts half.
    """

    def __init__(self, instances: int, half_life: float = HALF_LIFE) -> None:
        self.state = empty_online(instances, half_life)

    def observe(self, instance: int, predicted: float, observed: float) -> None:
        """Learn from one piece of work, both times in seconds.

        Raises
        ------
        ValueError
            If there is no such instance, or a time is not finite and positive.
        """
        self._check(instance)
        for name, seconds in (("predicted", predicted), ("observed", observed)):
            if not (seconds > 0 and math.isfinite(seconds)):
                raise ValueError(f"{name} is {seconds}, expected positive seconds")
        observe(self.state, instance, float(predicted), float(observed))

    def corrected(self, instance: int, predicted: float) -> float:
        """Corrected seconds of work that is predicted to last ``predicted``."""
        self._check(instance)
        return float(self.state.scale[instance]) * predicted

    @property
    def scales(self) -> NDArray[np.float64]:
        """Scale of every instance, shape (n,); a copy."""
        return self.state.scale.copy()

    def _check(self, instance: int) -> None:
        if not 0 <= instance < len(self.state.scale):
            raise ValueError(f"instance is {instance}, expected 0 to {len(self.state.scale) - 1}")
