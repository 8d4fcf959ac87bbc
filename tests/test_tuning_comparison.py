"""Intervals against SciPy's own test, and how often they are right."""

import numpy as np
import pytest
from scipy import stats

from hexopt.tuning.comparison import paired
from hexopt.tuning.goals import GOALS, Figures


def test_the_interval_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(1)
    old, new = rng.normal(10.0, 2.0, 12), rng.normal(9.5, 2.0, 12)
    for confidence in (0.9, 0.95, 0.975):
        expected = stats.ttest_rel(old, new).confidence_interval(confidence)
        found = paired(old - new, confidence)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
        assert found.mean == pytest.approx((old - new).mean())


def test_one_run_proves_nothing():
    assert paired(np.array([0.3])).low == -np.inf


def test_no_gain_is_claimed_in_one_case_of_forty_at_most_where_there_is_none():
    rng = np.random.default_rng(2)
    claimed = sum(paired(rng.normal(0.0, 1.0, 20)).low > 0.0 for _ in range(2000))
    assert 30 <= claimed <= 70


def test_gains_are_positive_where_a_figure_is_better():
    old, new = Figures(200.0, 0.8, 4.0), Figures(100.0, 0.85, 8.0)
    assert GOALS["p95"].gains([new], [old]) == pytest.approx(np.log(2.0))
    assert GOALS["attainment"].gains([new], [old]) == pytest.approx(0.05)
    assert GOALS["cost"].gains([new], [old]) == pytest.approx(-np.log(2.0))
    assert GOALS["cost"].gains([Figures(1.0, 1.0, 0.0)], [Figures(1.0, 1.0, 0.0)]) == 0.0
    assert GOALS["p95"].said(np.log(2.0)) == "-50.00%" and GOALS["attainment"].said(-0.0125) == "-1.25 points"
