import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hexopt.simulation.lanes import pack_lanes

# Few distinct ends, so that intervals touch, coincide and are empty.
POINT = st.integers(0, 12)
INTERVALS = st.lists(st.tuples(POINT, POINT).map(sorted), max_size=25)


def overlap(a, b) -> bool:
    return a[0] < b[1] and b[0] < a[1]


@given(INTERVALS)
def test_no_two_intervals_of_a_lane_overlap(intervals):
    lanes = pack_lanes([a for a, _ in intervals], [b for _, b in intervals])
    for i, one in enumerate(intervals):
        for j in range(i):
            assert lanes[i] != lanes[j] or not overlap(one, intervals[j])


@given(INTERVALS)
def test_as_many_lanes_as_intervals_overlap_at_most(intervals):
    lanes = pack_lanes([a for a, _ in intervals], [b for _, b in intervals])
    # The most that overlap do so where one of them starts: with those open there, and with it, if it is not empty.
    deepest = max((1 + sum(b < a < c for b, c in intervals) for a, d in intervals if a == d), default=0)
    deepest = max([deepest, *(sum(b <= a < c for b, c in intervals) for a, d in intervals if a < d)])
    assert set(lanes.tolist()) == set(range(deepest))


def test_the_lowest_free_lane_is_taken():
    assert pack_lanes([0.0, 1.0, 3.0, 2.0], [2.0, 9.0, 4.0, 3.0]).tolist() == [0, 1, 0, 0]
    assert pack_lanes(np.zeros(0), np.zeros(0)).shape == (0,)
