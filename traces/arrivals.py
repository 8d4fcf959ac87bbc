"""When workflows arrive: point processes with a given mean rate, and times of a trace scaled to one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hexopt.traces.workflow import Workflow

_BISECTIONS = 64


def poisson(rate: float, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the first ``n`` arrivals of a Poisson process.

    Parameters
    ----------
    rate
        Arrivals a second, > 0.
    n
        Arrivals to draw, at least 0.
    rng
        Source of randomness.

    Returns
    -------
    ndarray of float64, shape (n,)
        Seconds, ascending.

    Raises
    ------
    ValueError
        On values out of range.
    """
    _check(rate, n)
    return np.cumsum(rng.standard_exponential(n)) / rate


def gamma(rate: float, n: int, rng: np.random.Generator, burstiness: float) -> NDArray[np.float64]:
    """Draw ``n`` arrivals with independent gamma-distributed gaps.

    Parameters
    ----------
    rate, n, rng
        As of ``poisson``.
    burstiness
        Coefficient of variation of the gaps, from 0.001 to 1000: 1 is a Poisson process, above 1 arrivals come in
        bursts.

    Returns
    -------
    ndarray of float64, shape (n,)
        Seconds, ascending.

    Raises
    ------
    ValueError
        On values out of range.
    """
    _check(rate, n)
    if not 1e-3 <= burstiness <= 1e3:
        raise ValueError(f"burstiness is {burstiness}, expected a number from 0.001 to 1000")
    shape = burstiness**-2
    return np.cumsum(rng.standard_gamma(shape, n)) / (shape * rate)


def diurnal(rate: float, n: int, rng: np.random.Generator, period: float, amplitude: float) -> NDArray[np.float64]:
    """Draw the first ``n`` arrivals of a Poisson process whose rate swings like a sine.

    The rate at time t is ``rate * (1 + amplitude * sin(2 pi t / period))``. Arrivals of a Poisson process of
    rate one are put through the inverse of its integral (Çinlar 1975, time change).

    Parameters
    ----------
    rate, n, rng
        As of ``poisson``; the rate is the mean over whole periods.
    period
        Seconds of one swing, > 0.
    amplitude
        Depth of the swing, from 0 (none) to 1 (down to no arrivals).

    Returns
    -------
    ndarray of float64, shape (n,)
        Seconds, ascending.

    Raises
    ------
    ValueError
        On values out of range.
    """
    _check(rate, n)
    _check_positive("period", period)
    if not 0 <= amplitude <= 1:
        raise ValueError(f"amplitude is {amplitude}, expected a number from 0 to 1")
    even = np.cumsum(rng.standard_exponential(n)) / rate
    swing = amplitude * period / (2 * math.pi)
    # The integral of the rate is 0 to 2 swings ahead of the even one, and never falls: bisect in between.
    low, high = np.maximum(even - 2 * swing, 0.0), even.copy()
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        late = middle + swing * (1 - np.cos(2 * math.pi * middle / period)) > even
        high = np.where(late, middle, high)
        low = np.where(late, low, middle)
    return high


def rescaled(timestamps: ArrayLike, rate: float, n: int) -> NDArray[np.float64]:
    """Stretch the times of a trace to a mean rate, so that its bursts keep their shape.

    Where ``n`` is larger than the trace, it is played again, one mean gap after its last arrival.

    Parameters
    ----------
    timestamps
        Seconds, shape (m,), m >= 2, in any order, not all equal.
    rate
        Arrivals a second, > 0.
    n
        Arrivals to return, at least 0.

    Returns
    -------
    ndarray of float64, shape (n,)
        Seconds, ascending; the first one is 0.

    Raises
    ------
    ValueError
        On values out of range.
    """
    _check(rate, n)
    times = np.asarray(timestamps, dtype=np.float64)
    if times.ndim != 1 or times.size < 2 or not np.isfinite(times).all() or times.min() == times.max():
        raise ValueError("timestamps: expected a list of at least two finite seconds, not all equal")
    times = np.sort(times - times.min())
    # The period is the span and one mean gap, so that replays keep the rate.
    share: NDArray[np.float64] = times * ((times.size - 1) / times[-1])
    rounds, place = np.divmod(np.arange(n), times.size)
    return np.asarray((rounds * times.size + share[place]) / rate, dtype=np.float64)


def with_arrivals(workflows: Sequence[Workflow], times: Iterable[float]) -> list[Workflow]:
    """Return the workflows with ``times`` (seconds, one each) as their arrivals.

    Raises
    ------
    ValueError
        Where there are more or fewer times than workflows.
    TraceError
        On a time that is negative or not finite.
    """
    arrivals = [float(time) for time in times]
    if len(arrivals) != len(workflows):
        raise ValueError(f"times holds {len(arrivals)}, expected one for each of {len(workflows)} workflows")
    return [replace(workflow, arrival=time) for workflow, time in zip(workflows, arrivals, strict=True)]


def _check(rate: float, n: int) -> None:
    _check_positive("rate", rate)
    if n < 0:
        raise ValueError(f"n is {n}, expected at least 0")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}, expected a number above 0")
