"""What policies believe wrongly: lengths of answers and speeds of GPUs, while the truth stays what it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hexopt.policies.knowledge import Knowledge
from hexopt.policies.policy import Fleet


@dataclass(frozen=True)
class Mistakes:
    """Errors of what policies predict; all of them draws of ``seed``, the same for every policy.

    Parameters
    ----------
    output_error
        Each predicted output length is multiplied by exp(s z - s^2 / 2) with s this and z standard normal, once a
        call: log-normal with mean 1. Lengths that the client tells are none that are predicted.
    shuffled_lengths
        Whether each call is taken for another one, drawn at random, when its length is predicted: the predictions keep
        their distribution and say nothing.
    speed_error
        Step times of each GPU type are believed to be exp(s z) times the true ones with s this, once a run.
    seed
        Of the draws.

    Raises
    ------
    ValueError
        If an error is negative or not finite.
    """

    output_error: float = 0.0
    shuffled_lengths: bool = False
    speed_error: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("output_error", "speed_error"):
            if not 0.0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number of at least 0")

    def believed(self, fleet: Fleet) -> Fleet:
        """What is believed of ``fleet``."""
        if self.speed_error == 0.0:
            return fleet
        kinds = list(dict.fromkeys(fleet.gpus))
        drawn = np.random.default_rng((self.seed, 3)).standard_normal(len(kinds))
        factor = np.exp(self.speed_error * drawn[[kinds.index(gpu) for gpu in fleet.gpus]])
        return replace(fleet, coef=fleet.coef * factor[:, None])

    def misled(self, know: Knowledge, stages: int) -> Knowledge:
        """The knowledge with wrong predictions of ``stages`` calls."""
        rng = np.random.default_rng((self.seed, 4))
        if self.output_error > 0.0:
            know = know._replace(length_noise=noise(rng, stages, self.output_error))
        if self.shuffled_lengths:
            know = know._replace(taken_for=rng.permutation(stages))
        return know


def noise(rng: np.random.Generator, count: int, error: float) -> NDArray[np.float64]:
    """Log-normal factors of mean 1 and standard deviation ``error`` of their logarithm, shape (count,)."""
    factors: NDArray[np.float64] = np.exp(error * rng.standard_normal(count) - error**2 / 2.0)
    return factors
