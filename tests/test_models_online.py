"""The online correction: an exponentially weighted ratio that stays within its clamps."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexopt.models.online import OnlineCorrection, empty_online, observe, scale

seconds = st.floats(1e-6, 1e6)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), seconds, seconds), max_size=60), st.floats(0.5, 100))
def test_equals_a_plain_recomputation_and_stays_clamped(
    events: list[tuple[int, float, float]], half_life: float
) -> None:
    state = empty_online(3, half_life)
    expected = [1.0, 1.0, 1.0]
    keep = 2.0 ** (-1.0 / half_life)
    for instance, predicted, observed in events:
        observe(state, instance, predicted, observed)
        ratio = float(np.clip(observed / predicted, 0.5, 2.0))
        expected[instance] = keep * expected[instance] + (1 - keep) * ratio
    np.testing.assert_allclose(state.scale, expected, rtol=1e-9)
    assert all(0.5 - 1e-12 <= scale(state, i) <= 2.0 + 1e-12 for i in range(3))


def test_after_the_half_life_half_of_a_shift_is_learned() -> None:
    correction = OnlineCorrection(2, half_life=10)
    for _ in range(10):
        correction.observe(0, 1.0, 1.5)
    np.testing.assert_allclose(correction.scales, [1.25, 1.0], rtol=1e-12)
    assert correction.corrected(0, 0.04) == pytest.approx(0.05)


def test_one_stall_moves_the_scale_by_at_most_the_weight() -> None:
    state = empty_online(1, half_life=64)
    observe(state, 0, 0.02, 3600.0)
    assert 1.0 < scale(state, 0) <= 1.0 + (1 - 2 ** (-1 / 64)) + 1e-12


def test_converges_to_the_true_ratio_under_noise() -> None:
    rng = np.random.default_rng(0)
    correction = OnlineCorrection(1)
    for _ in range(4000):
        predicted = rng.uniform(0.01, 0.2)
        correction.observe(0, predicted, predicted * 1.2 * rng.uniform(0.8, 1.2))
    assert correction.scales[0] == pytest.approx(1.2, rel=0.03)


@pytest.mark.parametrize(("predicted", "observed"), [(0.0, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, -1.0)])
def test_what_has_no_ratio_is_passed_over_by_kernels_and_refused_by_the_class(
    predicted: float, observed: float
) -> None:
    correction = OnlineCorrection(1)
    observe(correction.state, 0, predicted, observed)
    assert correction.scales[0] == 1.0
    with pytest.raises(ValueError, match="expected positive seconds"):
        correction.observe(0, predicted, observed)


def test_refuses_unknown_instances_and_senseless_half_lives() -> None:
    with pytest.raises(ValueError, match="instance is 2, expected 0 to 1"):
        OnlineCorrection(2).observe(2, 1.0, 1.0)
    with pytest.raises(ValueError, match="half_life is 0"):
        OnlineCorrection(2, half_life=0)
    with pytest.raises(ValueError, match="instances is -1"):
        OnlineCorrection(-1)
