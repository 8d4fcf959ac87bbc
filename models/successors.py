"""What follows a call: which kinds, with which probability, how many, and what they are like; from finished workflows.

A call that waits for several is a successor of each of them in equal shares: whichever ends last brings it. Calls of a
kind are told apart by how many of it the workflow had before, where enough of them were seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hexopt.models.tails import OCCURRENCES
from hexopt.models.tallies import SHRINKAGE

TRAITS = ("delay", "prompt", "shared", "kept", "occurrence")
"""Columns of :attr:`Successors.traits`: seconds of tools before it, prompt tokens, those of them that all workflows
share, those that its parent's instance has, calls of its kind that the workflow had before."""


class Successors(NamedTuple):
    """Rows of successor kinds; those of the o-th call of kind k are ``first[k * OCCURRENCES + o]`` and following."""

    first: NDArray[np.int64]
    """Shape (kinds * OCCURRENCES + 1,)."""
    kind: NDArray[np.int64]
    """Shape (rows,), like all that follow."""
    probability: NDArray[np.float64]
    """That any of the kind comes."""
    number: NDArray[np.float64]
    """How many come, if any does; at least 1."""
    traits: NDArray[np.float64]
    """Means over those that come, shape (rows, traits)."""

    def after(
        self, kind: NDArray[np.int64], occurrence: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Whom the rows follow, and the rows: what comes after each of the given calls."""
        place = kind * OCCURRENCES + np.minimum(occurrence, OCCURRENCES - 1)
        known = np.flatnonzero((kind >= 0) & (place + 1 < self.first.shape[0]))
        first = self.first[place[known]]
        many = self.first[place[known] + 1] - first
        inner = np.arange(int(many.sum())) - np.repeat(np.cumsum(many) - many, many)
        return np.repeat(known, many), np.repeat(first, many) + inner


def no_successors() -> Successors:
    """Nothing is known to follow anything."""
    whole, real = np.zeros(0, dtype=np.int64), np.zeros(0)
    return Successors(np.zeros(1, dtype=np.int64), whole, real, real, np.zeros((0, len(TRAITS))))


def fit_successors(
    kinds: int, kind: ArrayLike, occurrence: ArrayLike, parent: ArrayLike, child: ArrayLike, traits: ArrayLike
) -> Successors:
    """Successors in finished workflows.

    Parameters
    ----------
    kind, occurrence
        Of every call, shape (n,); kind -1 is an unknown one.
    parent, child
        Which calls each edge joins, shape (e,).
    traits
        Of the child of each edge, shape (e, traits).
    """
    of, nth = np.asarray(kind, dtype=np.int64), np.minimum(np.asarray(occurrence), OCCURRENCES - 1)
    begin, end = np.asarray(parent, dtype=np.int64), np.asarray(child, dtype=np.int64)
    means = np.asarray(traits, dtype=np.float64).reshape(-1, len(TRAITS))
    share = 1.0 / np.bincount(end, minlength=of.size)[end]
    there = (of[begin] >= 0) & (of[end] >= 0)
    begin, after, share, means = begin[there], of[end[there]], share[there], means[there]
    place = of * OCCURRENCES + nth
    exact = _rows(kinds, place, begin, after, share, means)
    coarse = _rows(kinds, of, begin, after, share, means)
    seen = np.bincount(place[of >= 0], minlength=kinds * OCCURRENCES)
    parts = []
    for p in range(kinds * OCCURRENCES):
        rows, row = (exact, p) if seen[p] >= SHRINKAGE else (coarse, p // OCCURRENCES)
        parts.append(rows[np.searchsorted(rows[:, 0], row) : np.searchsorted(rows[:, 0], row, side="right"), 1:])
    table = np.concatenate(parts) if parts else np.zeros((0, 3 + len(TRAITS)))
    first = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return Successors(first, table[:, 0].astype(np.int64), table[:, 1].copy(), table[:, 2].copy(), table[:, 3:].copy())


def _rows(
    kinds: int,
    place: NDArray[np.int64],
    begin: NDArray[np.int64],
    after: NDArray[np.int64],
    share: NDArray[np.float64],
    means: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Place of the parent, kind, probability, count and traits of each successor kind, by place."""
    calls = np.bincount(place[place >= 0], minlength=1)
    pairs, pair = np.unique(begin * kinds + after, return_inverse=True)
    number = np.bincount(pair, share, minlength=pairs.size)
    groups, group = np.unique(place[pairs // kinds] * kinds + pairs % kinds, return_inverse=True)
    total = np.bincount(group, number, minlength=groups.size)
    any_ = np.bincount(group, np.minimum(number, 1.0), minlength=groups.size)
    sums = np.zeros((groups.size, means.shape[1]))
    np.add.at(sums, group[pair], share[:, None] * means)
    where = groups // kinds
    columns = [where, groups % kinds, any_ / calls[where], total / any_, *(sums / total[:, None]).T]
    return np.stack([np.asarray(c, dtype=np.float64) for c in columns], axis=1)
