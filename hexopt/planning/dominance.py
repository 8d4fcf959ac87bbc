"""Which fleets cannot do better than one that failed.

Option a is *no better* than b if b does every call in less time, at every batch size, and holds as much. A fleet is no
better than another one if each of its instances can be paired with one of the other's that it is no better than. By
Hall's theorem that is so exactly if no set of options that contains, with an option, all better ones has more instances
in it than in the other; and only sets count that leave out of the other fleet's options some and what is no better.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from hexopt.planning.efficiency import Efficiency
from hexopt.planning.fleet import Fleet, Option

MOST_KINDS = 7
"""Options of a failed fleet up to which better and worse ones are paired; beyond, counts of each are compared."""


class Dominance:
    """The order of ``options`` by what they can do at best."""

    def __init__(self, options: Sequence[Option], efficiency: Efficiency) -> None:
        size = len(options)
        self.no_better: NDArray[np.bool_] = np.eye(size, dtype=bool)
        for a in range(size):
            for b in range(size):
                self.no_better[a, b] |= _no_better(options, efficiency, a, b)

    def sets(self, fleet: Fleet) -> Iterator[tuple[tuple[int, ...], int]]:
        """Sets of options, and how many instances of each ``fleet`` has: a fleet with more in one is not ruled out."""
        kinds = [j for j, n in enumerate(fleet) if n]
        if len(kinds) > MOST_KINDS:
            yield from (((j,), n) for j, n in enumerate(fleet))
            return
        seen = set()
        for left_out in chain.from_iterable(combinations(kinds, r) for r in range(len(kinds) + 1)):
            members = tuple(np.flatnonzero(~self.no_better[:, list(left_out)].any(axis=1)).tolist())
            if members and members not in seen:
                seen.add(members)
                yield members, sum(fleet[j] for j in members)

    def within(self, fleet: Fleet, other: Fleet) -> bool:
        """Whether ``fleet`` is no better than ``other``."""
        return all(sum(fleet[j] for j in members) <= count for members, count in self.sets(other))


def _no_better(options: Sequence[Option], efficiency: Efficiency, a: int, b: int) -> bool:
    one, other = options[a].instance, options[b].instance
    return bool(
        (efficiency.busy[:, b] <= efficiency.busy[:, a]).all()
        and (efficiency.latency[:, b] <= efficiency.latency[:, a]).all()
        and efficiency.capacity[b] >= efficiency.capacity[a]
        and other.max_num_seqs >= one.max_num_seqs
        and other.max_model_len >= one.max_model_len
    )
