import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hexopt.research.statistics import bootstrap_mean, holm, rank_biserial, signed_ranks, smallest_p, wilcoxon

TIED = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=9)


def every_sign(differences):
    """Wilcoxon's p-value by trying all signs."""
    d = [x for x in differences if x]
    ranks = stats.rankdata(np.abs(d))
    centre = ranks.sum() / 2
    observed = abs(sum(r for r, x in zip(ranks, d, strict=True) if x > 0) - centre)
    sums = [
        sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in itertools.product((0, 1), repeat=len(d))
    ]
    return np.mean([abs(s - centre) >= observed - 1e-9 for s in sums])


@given(TIED)
def test_wilcoxon_is_what_trying_all_signs_gives(differences):
    if any(differences):
        assert wilcoxon(differences) == pytest.approx(every_sign(differences), abs=1e-12)
    else:
        assert wilcoxon(differences) == 1.0


@pytest.mark.parametrize("n", [3, 6, 10, 25, 50])
def test_wilcoxon_is_scipys_where_no_ranks_are_shared(n):
    d = np.random.default_rng(n).normal(0.3, 1.0, n)
    assert wilcoxon(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, rel=1e-9)


def test_wilcoxon_of_many_is_close_to_the_exact_one():
    d = np.random.default_rng(1).normal(0.2, 1.0, 60)
    assert wilcoxon(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, rel=0.03)


@pytest.mark.parametrize("n", [1, 2, 6, 12])
def test_smallest_p_is_that_of_winning_every_time(n):
    assert wilcoxon(np.arange(1.0, n + 1)) == pytest.approx(smallest_p(n))


def test_holm_by_hand():
    # 0.01 * 4, 0.02 * 3, then never less than before: 0.03 * 2 = 0.06, 0.04 * 1 becomes 0.06.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_stepping_down_rejects(p_values):
    corrected = holm(p_values)
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for k, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if p_values[index] * (len(p_values) - k) > level:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(corrected) if p <= level} == rejected


def test_rank_biserial_closed_forms():
    assert rank_biserial([1.0, 2.0, 3.0]) == 1.0
    assert rank_biserial([-1.0, -2.0]) == -1.0
    assert rank_biserial([0.0, 0.0]) == 0.0
    assert rank_biserial([1.0, -2.0, 3.0]) == pytest.approx((4 - 2) / 6)


@given(TIED)
def test_signed_ranks_share_out_all_ranks(differences):
    positive, negative, ranks = signed_ranks(differences)
    n = sum(1 for d in differences if d)
    assert positive + negative == pytest.approx(n * (n + 1) / 2)
    assert ranks.sum() == pytest.approx(positive + negative)
    assert rank_biserial([-d for d in differences]) == pytest.approx(-rank_biserial(differences))


def bca_by_enumeration(values, level):
    """BCa's end points from all resamples of a few values (Efron 1987), the distribution itself instead of draws."""
    x = np.asarray(values)
    means = np.sort([np.mean(c) for c in itertools.product(x, repeat=x.size)])
    # scipy counts draws below and, half, equal to the estimate.
    below = (np.sum(means < x.mean() - 1e-12) + np.sum(means < x.mean() + 1e-12)) / (2 * means.size)
    z0 = stats.norm.ppf(below)
    jackknife = np.array([np.delete(x, i).mean() for i in range(x.size)])
    gap = jackknife.mean() - jackknife
    a = (gap**3).sum() / (6 * (gap**2).sum() ** 1.5)
    z = stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    return np.quantile(means, stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))))


def test_bootstrap_is_bca():
    values = [0.3, 1.9, 2.2, 7.0, 3.1]
    found = bootstrap_mean(values, resamples=60_000)
    assert found.mean == pytest.approx(np.mean(values))
    assert [found.low, found.high] == pytest.approx(bca_by_enumeration(values, 0.95), abs=0.06)


def test_bootstrap_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for k in range(200):
        found = bootstrap_mean(rng.normal(5.0, 2.0, 20), resamples=600, seed=k)
        inside += found.low <= 5.0 <= found.high
    assert 0.87 <= inside / 200 <= 0.99


def test_bootstrap_at_its_edges():
    assert bootstrap_mean([2.0, 2.0, 2.0]).low == bootstrap_mean([2.0, 2.0, 2.0]).high == 2.0
    for few in ([], [1.0], [1.0, math.inf], [1.0, math.nan]):
        assert math.isnan(bootstrap_mean(few).low)
    assert bootstrap_mean([1.0, 3.0]) == bootstrap_mean([1.0, 3.0])
