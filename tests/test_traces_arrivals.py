"""Arrival processes against their theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hexopt.traces.arrivals import diurnal, gamma, poisson, rescaled, with_arrivals
from hexopt.traces.workflow import Stage, TraceError, Workflow

N = 20_000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def gaps(times: np.ndarray) -> np.ndarray:
    return np.diff(times, prepend=0.0)


def test_poisson_gaps_are_exponential() -> None:
    assert stats.kstest(gaps(poisson(2.5, N, rng())), "expon", args=(0, 1 / 2.5)).pvalue > 0.01


@pytest.mark.parametrize("burstiness", [0.3, 1.0, 2.0])
def test_gamma_gaps_have_the_rate_and_the_variation(burstiness: float) -> None:
    found = gaps(gamma(0.5, N, rng(), burstiness))
    assert found.mean() == pytest.approx(2.0, rel=5 * burstiness / math.sqrt(N))
    assert found.std() / found.mean() == pytest.approx(burstiness, rel=0.1)
    shape = burstiness**-2
    assert stats.kstest(found, "gamma", args=(shape, 0, 2.0 / shape)).pvalue > 0.01


@pytest.mark.parametrize("amplitude", [0.0, 0.6, 1.0])
def test_diurnal_arrivals_follow_the_sine(amplitude: float) -> None:
    """Put through the integral of the rate, the arrivals are a Poisson process of rate one."""
    rate, period = 3.0, 500.0
    times = diurnal(rate, N, rng(), period, amplitude)
    swing = amplitude * period / (2 * math.pi)
    unit = rate * (times + swing * (1 - np.cos(2 * math.pi * times / period)))
    assert stats.kstest(gaps(unit), "expon").pvalue > 0.01
    # An independent view of the same: shares of the arrivals by phase over whole periods.
    whole = times[times < times[-1] // period * period]
    counts = np.histogram(whole % period, bins=20, range=(0, period))[0]
    edge = np.linspace(0, period, 21)
    expected = np.diff(edge - swing * (np.cos(2 * math.pi * edge / period) - 1)) / period
    assert stats.chisquare(counts, expected / expected.sum() * counts.sum()).pvalue > 0.001


@given(
    st.lists(st.floats(0, 1e6), min_size=2, max_size=30).filter(lambda x: max(x) - min(x) > 1e-3),
    st.floats(1e-3, 1e3),
    st.integers(0, 100),
)
def test_rescaled_keeps_the_shape_and_the_rate(timestamps: list[float], rate: float, n: int) -> None:
    times = rescaled(timestamps, rate, n)
    assert times.shape == (n,) and times.dtype == np.float64
    assert bool(np.all(np.diff(times) >= 0))
    m = len(timestamps)
    two = rescaled(timestamps, rate, 2 * m)
    assert two[0] == 0
    assert two[m:] - two[:m] == pytest.approx(np.full(m, m / rate))
    original = np.sort(timestamps)
    scale = (m - 1) / rate / (original[-1] - original[0])
    assert two[:m] == pytest.approx((original - original[0]) * scale, rel=1e-6, abs=1e-9 * m / rate)
    assert times == pytest.approx(np.resize(two[:m], n) + m / rate * (np.arange(n) // m))


def test_same_seed_same_times() -> None:
    for draw in (
        lambda: poisson(1, 50, rng(3)),
        lambda: gamma(1, 50, rng(3), 2),
        lambda: diurnal(1, 50, rng(3), 60, 0.5),
    ):
        assert draw().tobytes() == draw().tobytes()
        assert draw().dtype == np.float64 and draw().shape == (50,)
        assert bool(np.all(np.diff(draw()) >= 0))
    assert poisson(1, 0, rng()).shape == (0,)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_impossible_rates_are_refused(rate: float) -> None:
    for draw in (
        lambda: poisson(rate, 3, rng()),
        lambda: gamma(rate, 3, rng(), 1),
        lambda: diurnal(rate, 3, rng(), 60, 0.5),
        lambda: rescaled([0, 1], rate, 3),
    ):
        with pytest.raises(ValueError, match=r"rate is .* above 0"):
            draw()


def test_other_impossible_values_are_refused() -> None:
    with pytest.raises(ValueError, match="n is -1"):
        poisson(1, -1, rng())
    with pytest.raises(ValueError, match="burstiness is 0"):
        gamma(1, 3, rng(), 0)
    with pytest.raises(ValueError, match="period is nan"):
        diurnal(1, 3, rng(), math.nan, 0.5)
    for amplitude in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="amplitude"):
            diurnal(1, 3, rng(), 60, amplitude)
    for timestamps in ([], [1.0], [2.0, 2.0], [0.0, math.nan], [[0.0, 1.0]], 3.0):
        with pytest.raises(ValueError, match="timestamps"):
            rescaled(timestamps, 1, 3)


def test_with_arrivals_sets_them_in_order() -> None:
    workflows = [Workflow(f"w{k}", (Stage("a", "call", 1, 1),)) for k in range(3)]
    assert [w.arrival for w in with_arrivals(workflows, np.array([0.5, 1.5, 2.5]))] == [0.5, 1.5, 2.5]
    with pytest.raises(ValueError, match="times holds 2, expected one for each of 3"):
        with_arrivals(workflows, [1, 2])
    with pytest.raises(TraceError, match="arrival is nan"):
        with_arrivals(workflows, [0, 1, math.nan])
