"""The output-length predictor against a plain recomputation from the same observations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexopt.models.lengths import (
    PRIOR_OUTPUT,
    PROMPT_BUCKETS,
    empty_lengths,
    expected_output,
    fit_lengths,
    observe_output,
    output_quantile,
)
from hexopt.models.tallies import SHRINKAGE

KINDS = 3
call = st.tuples(st.integers(-1, KINDS - 1), st.integers(0, 1 << 22), st.integers(1, 1 << 14))


def bucket(prompt: int) -> int:
    return min(int(math.log2(max(prompt, 1))), PROMPT_BUCKETS - 1)


def plain_mean(calls: list[tuple[int, int, int]], kind: int, prompt: int) -> float:
    """The module's formula, from lists."""

    def mean(outputs: list[int], toward: float, weight: float = SHRINKAGE) -> float:
        return (sum(outputs) + weight * toward) / (len(outputs) + weight)

    overall = mean([o for _, _, o in calls], PRIOR_OUTPUT, 1.0)
    of_kind = [(p, o) for k, p, o in calls if kind in (-1, k)]
    kind_mean = mean([o for _, o in of_kind], overall)
    return mean([o for p, o in of_kind if bucket(p) == bucket(prompt)], kind_mean)


@settings(deadline=None)
@given(st.lists(call, max_size=60), st.integers(-1, KINDS - 1), st.integers(0, 1 << 22))
def test_mean_is_the_stated_formula(calls: list[tuple[int, int, int]], kind: int, prompt: int) -> None:
    state = empty_lengths(KINDS)
    for k, p, o in calls:
        observe_output(state, k, float(p), float(o))
    assert expected_output(state, kind, float(prompt)) == pytest.approx(plain_mean(calls, kind, prompt), rel=1e-9)


@settings(deadline=None)
@given(st.lists(call, min_size=1, max_size=60))
def test_fitting_is_observing_one_by_one(calls: list[tuple[int, int, int]]) -> None:
    kind, prompt, output = (np.array(column) for column in zip(*calls, strict=True))
    state = empty_lengths(KINDS)
    for k, p, o in calls:
        observe_output(state, k, float(p), float(o))
    for fitted, observed in zip(fit_lengths(KINDS, kind, prompt, output), state, strict=True):
        np.testing.assert_array_equal(fitted, observed)


@pytest.mark.parametrize("q", [0.05, 0.5, 0.9, 0.99])
def test_quantiles_are_within_a_histogram_bin_of_the_true_ones(q: float) -> None:
    rng = np.random.default_rng(1)
    outputs = rng.lognormal(5.0, 0.8, 5000).astype(int) + 1
    state = fit_lengths(1, np.zeros(5000, dtype=int), np.full(5000, 900), outputs)
    assert output_quantile(state, 0, 900.0, q) == pytest.approx(float(np.quantile(outputs, q)), rel=0.2)


def test_quantile_grows_with_q_and_falls_back_from_bucket_to_kind_to_all() -> None:
    state = empty_lengths(2)
    assert output_quantile(state, 0, 100.0, 0.5) == PRIOR_OUTPUT
    for _ in range(30):
        observe_output(state, 0, 1000.0, 64.0)
    assert 64 <= output_quantile(state, 1, 1000.0, 0.5) < 80  # kind 1 has no call of its own
    assert 64 <= output_quantile(state, 0, 5.0, 0.5) < 80  # nor has this prompt bucket
    for _ in range(30):
        observe_output(state, 0, 5.0, 1024.0)
    assert output_quantile(state, 0, 5.0, 0.5) > 1000
    grid = [output_quantile(state, 1, 7.0, q) for q in np.linspace(0, 1, 21)]
    assert grid == sorted(grid)


def test_knows_only_what_it_was_told() -> None:
    state = empty_lengths(2)
    assert expected_output(state, 0, 500.0) == PRIOR_OUTPUT
    observe_output(state, 0, 500.0, 1000.0)
    after = expected_output(state, 0, 500.0)
    assert PRIOR_OUTPUT < expected_output(state, 1, 500.0) < after < 1000.0
