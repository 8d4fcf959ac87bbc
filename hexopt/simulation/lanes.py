"""Drawing stages that run at once: no two in one lane."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pack_lanes(start: ArrayLike, end: ArrayLike) -> NDArray[np.int32]:
    """Lowest free lane for every interval, in order of their starts.

    Greedy interval partitioning (Kleinberg and Tardos, Algorithm Design, section 4.1): it uses as many lanes as
    intervals overlap at most, which no packing can beat.

    Parameters
    ----------
    start, end
        Half-open intervals, shape (n,), ``start <= end``: one may begin where another ends.

    Returns
    -------
    NDArray[np.int32]
        Lane of each interval, from 0, shape (n,).
    """
    starts, ends = np.asarray(start).tolist(), np.asarray(end).tolist()
    lanes = np.zeros(len(starts), dtype=np.int32)
    taken: list[tuple[float, int]] = []
    free: list[int] = []
    used = 0
    for k in np.lexsort((ends, starts)).tolist():
        while taken and taken[0][0] <= starts[k]:
            heapq.heappush(free, heapq.heappop(taken)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            lane, used = used, used + 1
        lanes[k] = lane
        heapq.heappush(taken, (ends[k], lane))
    return lanes
