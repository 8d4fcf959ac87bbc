"""The tail predictor against a plain recomputation from the same observations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexopt.models.tails import (
    OCCURRENCES,
    empty_tails,
    expected_tail,
    fit_tails,
    observe_tail,
    tail_quantile,
)
from hexopt.models.tallies import SHRINKAGE

KINDS = 3
row = st.tuples(st.integers(0, KINDS - 1), st.integers(0, 40), st.floats(0, 1e5))


def plain_mean(rows: list[tuple[int, int, float]], kind: int, occurrence: int) -> float:
    """The module's formula, from lists."""
    everything = [s for _, _, s in rows]
    overall = sum(everything) / max(len(everything), 1)
    of_kind = [(min(n, OCCURRENCES - 1), s) for k, n, s in rows if k == kind]
    kind_mean = (sum(s for _, s in of_kind) + SHRINKAGE * overall) / (len(of_kind) + SHRINKAGE)
    key = [s for n, s in of_kind if n == min(occurrence, OCCURRENCES - 1)]
    return (sum(key) + SHRINKAGE * kind_mean) / (len(key) + SHRINKAGE)


@settings(deadline=None)
@given(st.lists(row, max_size=60), st.integers(0, KINDS - 1), st.integers(0, 40))
def test_mean_is_the_stated_formula(rows: list[tuple[int, int, float]], kind: int, occurrence: int) -> None:
    state = empty_tails(KINDS)
    for k, n, s in rows:
        observe_tail(state, k, n, s)
    assert expected_tail(state, kind, occurrence) == pytest.approx(plain_mean(rows, kind, occurrence), rel=1e-9)


@settings(deadline=None)
@given(st.lists(row, min_size=1, max_size=60))
def test_fitting_is_observing_one_by_one(rows: list[tuple[int, int, float]]) -> None:
    kind, occurrence, seconds = (np.array(column) for column in zip(*rows, strict=True))
    state = empty_tails(KINDS)
    for k, n, s in rows:
        observe_tail(state, k, n, s)
    for fitted, observed in zip(fit_tails(KINDS, kind, occurrence, seconds), state, strict=True):
        np.testing.assert_array_equal(fitted, observed)


def test_a_kind_never_seen_is_expected_to_be_like_the_others() -> None:
    state = empty_tails(2)
    assert expected_tail(state, 1, 0) == 0.0
    assert tail_quantile(state, 1, 0, 0.5) == 0.0
    for _ in range(30):
        observe_tail(state, 0, 0, 4.0)
    assert expected_tail(state, 1, 0) == pytest.approx(4.0)
    assert expected_tail(state, -1, 0) == pytest.approx(4.0)
    assert tail_quantile(state, 1, 0, 0.5) == pytest.approx(4.0, rel=0.2)


def test_later_occurrences_are_told_apart() -> None:
    rng = np.random.default_rng(2)
    occurrence = rng.integers(0, 6, 3000)
    state = fit_tails(1, np.zeros(3000, dtype=int), occurrence, 10.0 / (1 + occurrence) * rng.uniform(0.5, 1.5, 3000))
    for nth in range(6):
        assert expected_tail(state, 0, nth) == pytest.approx(10.0 / (1 + nth), rel=0.1)
    assert tail_quantile(state, 0, 0, 0.9) > tail_quantile(state, 0, 0, 0.1)


@pytest.mark.parametrize("q", [0.1, 0.5, 0.95])
def test_quantiles_are_within_a_histogram_bin_of_the_true_ones(q: float) -> None:
    seconds = np.random.default_rng(3).lognormal(1.0, 1.0, 5000)
    state = fit_tails(1, np.zeros(5000, dtype=int), np.zeros(5000, dtype=int), seconds)
    assert tail_quantile(state, 0, 0, q) == pytest.approx(float(np.quantile(seconds, q)), rel=0.2)
