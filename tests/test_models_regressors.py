"""The regressors: one interface, relative errors, monotone where promised, coefficients that equal predictions."""

from dataclasses import replace

import numpy as np
import pytest

from hexopt.models.profiling.fitting import profile_features
from hexopt.models.profiling.frozen import FrozenProfile
from hexopt.models.regressors import DEFAULT, REGRESSORS, ResidualRegressor, RooflineRegressor
from hexopt.models.roofline import N_FEATURES, seconds, step_seconds
from hexopt.models.training import load_profiles

PROFILES = {str(profile.cell): profile for profile in load_profiles()}
SMOOTH = PROFILES["llama-3.1-70b on h100 at tp=4, pp=1"]
JAGGED = PROFILES["llama-3.1-70b-fp8 on h200 at tp=2, pp=1"]


def held_out(model: object, profile: FrozenProfile) -> float:
    rows = profile.split == "test"
    return float(np.abs(model.predict(profile)[rows] / profile.seconds[rows] - 1).mean())  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", REGRESSORS)
def test_learns_from_train_rows_only_and_predicts_all(name: str) -> None:
    fitted = REGRESSORS[name](np.random.default_rng(0)).fit(SMOOTH)
    spoilt = replace(SMOOTH, seconds=np.where(SMOOTH.split == "train", SMOOTH.seconds, 1e6))
    again = REGRESSORS[name](np.random.default_rng(0)).fit(spoilt)
    predicted = fitted.predict(SMOOTH)
    assert predicted.shape == (len(SMOOTH),)
    assert (predicted > 0).all()
    np.testing.assert_array_equal(predicted, again.predict(SMOOTH))
    assert held_out(fitted, SMOOTH) < 0.06


@pytest.mark.parametrize("profile", PROFILES.values(), ids=str)
def test_coefficients_equal_the_predictions(profile: FrozenProfile) -> None:
    model = RooflineRegressor().fit(profile)
    assert model.coefficients.shape == (N_FEATURES,)
    assert (model.coefficients >= 0).all()
    np.testing.assert_allclose(
        seconds(model.coefficients, profile_features(profile)), model.predict(profile), rtol=1e-9, atol=0
    )


def test_compiled_step_equals_the_prediction() -> None:
    model = RooflineRegressor().fit(SMOOTH)
    predicted = model.predict(SMOOTH)
    for i in range(0, len(SMOOTH), 37):
        s, t, p = (float(column[i]) for column in (SMOOTH.n_prefill, SMOOTH.prefill_tokens, SMOOTH.prefill_cached))
        attention = t * (p + t / 2) / max(s, 1.0)
        decode = float(SMOOTH.n_decode[i]), float(SMOOTH.decode_context[i])
        assert step_seconds(model.coefficients, s, t, attention, p + t, *decode) == pytest.approx(
            predicted[i], rel=1e-9
        )


@pytest.mark.parametrize("name", [DEFAULT, "boosting"])
def test_monotone_in_the_number_of_decodes(name: str) -> None:
    decodes = np.arange(1, 513)
    zero = np.zeros(512, dtype=np.int64)
    steps = FrozenProfile(
        JAGGED.cell, JAGGED.provenance, zero, zero, zero, decodes, 1000 * decodes, np.ones(512), np.full(512, "test")
    )
    predicted = REGRESSORS[name](np.random.default_rng(0)).fit(JAGGED).predict(steps)
    assert (np.diff(predicted) >= -1e-12).all()


def test_the_residual_is_clipped_and_helps_where_tables_are_jagged() -> None:
    roofline = RooflineRegressor().fit(JAGGED)
    residual = ResidualRegressor(limit=1.25).fit(JAGGED)
    ratio = residual.predict(JAGGED) / roofline.predict(JAGGED)
    assert 1 / 1.25 - 1e-12 <= ratio.min() < 1 < ratio.max() <= 1.25 + 1e-12
    assert held_out(residual, JAGGED) < held_out(roofline, JAGGED)


def test_only_the_linear_forms_hold_beyond_the_range() -> None:
    def beyond(name: str) -> float:
        rows = SMOOTH.split == "extrapolation"
        model = REGRESSORS[name](np.random.default_rng(0)).fit(SMOOTH)
        return float(np.abs(model.predict(SMOOTH)[rows] / SMOOTH.seconds[rows] - 1).mean())

    assert beyond(DEFAULT) < 0.05
    assert beyond("residual") < 0.05
    assert beyond("forest") > 0.2
    assert beyond("boosting") > 0.2


def test_the_seed_decides_the_forest() -> None:
    first, second, other = (
        REGRESSORS["forest"](np.random.default_rng(s)).fit(SMOOTH).predict(SMOOTH) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
