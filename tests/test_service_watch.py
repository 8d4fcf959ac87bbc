"""What live traffic says about new weights, against the definition of Fisher's test."""

from math import comb

import numpy as np
import pytest

pytest.importorskip("sqlalchemy")

from hexopt.service.watch import LEAST, MOST, Ended, Outcome, Watch

CHANGED = 10_000.0


def some(met, count, since, gap=1.0):
    """``count`` workflows ``gap`` seconds apart, the first ``met`` of them in time."""
    return [Ended(since + gap * k, k < met) for k in range(count)]


def chance(met, count, met_before, count_before):
    """Of so few in time among ``count``, if all who were in time had been spread at random."""
    total, good = count + count_before, met + met_before
    ways = sum(comb(good, k) * comb(total - good, count - k) for k in range(met + 1) if count - k <= total - good)
    return ways / comb(total, count)


@pytest.mark.parametrize("met_before", [50, 80, 95, 100])
def test_rolls_back_just_where_chance_hardly_explains_the_misses(met_before):
    before = some(met_before, 100, CHANGED - 100.0)
    seen = set()
    for met in range(LEAST + 1):
        outcome = Watch(before, CHANGED).judge(some(met, LEAST, CHANGED), CHANGED + LEAST)
        assert (outcome is Outcome.ROLL_BACK) == (chance(met, LEAST, met_before, 100) < 0.005)
        seen.add(outcome)
    assert seen == {Outcome.ROLL_BACK, Outcome.WAIT}


def test_waits_for_enough_workflows_and_for_comparable_load():
    before = some(100, 100, CHANGED - 100.0)
    assert Watch(before, CHANGED).judge(some(0, LEAST - 1, CHANGED), CHANGED + 39.0) is Outcome.WAIT
    heavier = Watch(before, CHANGED)
    assert heavier.judge(some(0, LEAST, CHANGED, 0.5), CHANGED + LEAST / 2) is Outcome.WAIT
    assert heavier.judge(some(0, LEAST, CHANGED, 0.5), CHANGED + LEAST) is Outcome.ROLL_BACK
    assert heavier.found == {"before": 1.0, "after": 0.0, "workflows": LEAST, "load": 1.0}


def test_looks_only_when_the_number_has_doubled():
    watch = Watch(some(100, 100, CHANGED - 100.0), CHANGED)
    assert watch.judge(some(LEAST, LEAST, CHANGED), CHANGED + LEAST) is Outcome.WAIT
    for count in range(LEAST + 1, 2 * LEAST):
        assert watch.judge(some(0, count, CHANGED), CHANGED + count) is Outcome.WAIT
    assert watch.judge(some(0, 2 * LEAST, CHANGED), CHANGED + 2 * LEAST) is Outcome.ROLL_BACK


def test_keeps_what_has_nothing_to_be_compared_with_and_what_lasts():
    assert Watch(some(0, LEAST - 1, CHANGED - 100.0), CHANGED).judge([], CHANGED) is Outcome.KEEP
    watch = Watch(some(900, 1000, CHANGED - 1000.0), CHANGED)
    outcomes = {watch.judge(some(k * 9 // 10, k, CHANGED), CHANGED + k) for k in range(MOST)}
    assert outcomes == {Outcome.WAIT}
    assert watch.judge(some(MOST * 9 // 10, MOST, CHANGED), CHANGED + MOST) is Outcome.KEEP


def test_weights_as_good_as_before_are_seldom_rolled_back():
    rng = np.random.default_rng(7)
    rolled_back = 0
    for _ in range(300):
        watch = Watch([Ended(CHANGED - k, bool(rng.random() < 0.8)) for k in range(500, 0, -1)], CHANGED)
        after = [Ended(CHANGED + k, bool(rng.random() < 0.8)) for k in range(MOST)]
        found = (watch.judge(after[:k], CHANGED + k) for k in (40, 80, 160, 320, 640))
        rolled_back += Outcome.ROLL_BACK in list(found)
    assert rolled_back <= 300 / 40
