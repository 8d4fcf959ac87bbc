"""The roofline step time: features against their definition, closed forms against sums step by step."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexopt.models.roofline import (
    C_KNOTS,
    FEATURE_NAMES,
    N_FEATURES,
    Q_KNOTS,
    Q_STEPS,
    decode_run_seconds,
    decode_steps_within,
    features,
    seconds,
    step_seconds,
    token_seconds,
)

slope = st.sampled_from([0.0, 1e-9, 1e-6, 1e-3]) | st.floats(0, 1e-2)
coefficients = st.lists(slope, min_size=N_FEATURES, max_size=N_FEATURES)
chunk = st.tuples(st.integers(1, 5000), st.integers(0, 60000))
context = st.integers(1, 60000)


def as_step(chunks: list[tuple[int, int]], contexts: list[int]) -> tuple[float, ...]:
    """S, T, A, K, B, C of chunks (new, cached) and decode contexts."""
    return (
        float(len(chunks)),
        float(sum(n for n, _ in chunks)),
        sum(n * (p + n / 2) for n, p in chunks),
        float(sum(n + p for n, p in chunks)),
        float(len(contexts)),
        float(sum(contexts)),
    )


def by_definition(coef: list[float], step: tuple[float, ...]) -> float:
    """The sum over features, each written out."""
    s, t, a, k, b, c = step
    q = t + b
    value = {"1": 1.0, "[T>0]": float(t > 0), "A": a, "K": k, "S": s, "C": c, "[B>0]": float(b > 0), "B": b}
    for low, high in zip((0, *Q_KNOTS), (*Q_KNOTS, math.inf), strict=True):
        value[f"Q in {low}..{'' if high == math.inf else high}"] = max(min(q, high) - low, 0.0)
    value |= {f"[Q>{step}]": float(q > step) for step in Q_STEPS}
    value |= {f"max(C,{int(knot)})[B>0]": max(c, knot) * (b > 0) for knot in C_KNOTS}
    return sum(x * value[name] for x, name in zip(coef, FEATURE_NAMES, strict=True))


@settings(deadline=None)
@given(coefficients, st.lists(chunk, max_size=4), st.lists(context, max_size=8))
def test_scalar_and_matrix_forms_are_the_definition(
    coef: list[float], chunks: list[tuple[int, int]], contexts: list[int]
) -> None:
    step = as_step(chunks, contexts)
    expected = by_definition(coef, step)
    assert step_seconds(np.array(coef), *step) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    matrix = features(*([x] for x in step))
    assert matrix.shape == (1, N_FEATURES)
    assert seconds(coef, matrix)[0] == pytest.approx(expected, rel=1e-12, abs=1e-15)


@settings(deadline=None)
@given(coefficients, st.lists(chunk, max_size=4), st.lists(context, max_size=4), st.integers(1, 3000), chunk)
def test_more_work_never_takes_less_time(
    coef: list[float], chunks: list[tuple[int, int]], contexts: list[int], more: int, extra: tuple[int, int]
) -> None:
    array = np.array(coef)

    def cost(chunks: list[tuple[int, int]], contexts: list[int]) -> float:
        return step_seconds(array, *as_step(chunks, contexts)) * (1 + 1e-12) + 1e-15

    least = step_seconds(array, *as_step(chunks, contexts))
    assert least <= cost([*chunks, extra], contexts)
    assert least <= cost(chunks, [*contexts, more])
    if chunks:
        (new, cached), *others = chunks
        assert least <= cost([(new + more, cached), *others], contexts)
        assert least <= cost([(new, cached + more), *others], contexts)
    if contexts:
        assert least <= cost(chunks, [contexts[0] + more, *contexts[1:]])


@settings(deadline=None)
@given(coefficients, st.integers(1, 600), st.integers(1, 3000), st.integers(0, 400))
def test_a_decode_run_is_the_sum_of_its_steps(coef: list[float], decodes: int, each: int, steps: int) -> None:
    array = np.array(coef)
    run = decode_run_seconds(array, float(decodes), float(decodes * each), float(steps))
    one_by_one = math.fsum(
        step_seconds(array, 0.0, 0.0, 0.0, 0.0, float(decodes), float(decodes * (each + j))) for j in range(steps)
    )
    assert run == pytest.approx(one_by_one, rel=1e-10, abs=1e-12)


@settings(deadline=None)
@given(coefficients, st.integers(1, 600), st.integers(1, 3000), st.integers(1, 300), st.floats(0.001, 1.2))
def test_steps_within_is_the_first_run_that_is_long_enough(
    coef: list[float], decodes: int, each: int, limit: int, share: float
) -> None:
    coef[0] += 1e-3
    array, b, c = np.array(coef), float(decodes), float(decodes * each)
    wanted = share * decode_run_seconds(array, b, c, float(limit))
    steps = decode_steps_within(array, b, c, wanted, limit)
    assert 1 <= steps <= limit
    tolerance = 1e-9 * wanted
    if steps < limit:
        assert decode_run_seconds(array, b, c, float(steps)) >= wanted - tolerance
    if steps > 1:
        assert decode_run_seconds(array, b, c, float(steps - 1)) <= wanted + tolerance


def test_an_empty_run_takes_no_time() -> None:
    coef = np.ones(N_FEATURES)
    assert decode_run_seconds(coef, 0.0, 0.0, 10.0) == 0.0
    assert decode_run_seconds(coef, 4.0, 100.0, 0.0) == 0.0


@pytest.mark.parametrize("knot", sorted({*Q_KNOTS, *Q_STEPS}))
def test_token_seconds_at_the_knots(knot: int) -> None:
    coef = np.random.default_rng(0).uniform(0.0, 1.0, N_FEATURES)
    for tokens in (knot - 1, knot, knot + 1):
        step = (0.0, 0.0, 0.0, 0.0, float(tokens), 0.0)
        without = coef.copy()
        without[FEATURE_NAMES.index("A") :] = 0.0
        assert token_seconds(coef, float(tokens)) == pytest.approx(by_definition(list(without), step), rel=1e-12)
