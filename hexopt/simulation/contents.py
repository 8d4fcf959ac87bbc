"""The tree of shareable contents: which prompts begin alike, and how far."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from hexopt.simulation.state import NODE, NONE


class ContentTree:
    """A radix tree over segments of tokens.

    A node continues its parent's contents by a run of one segment. A path that cuts a segment short splits
    the node; the lower part keeps its number, so numbers handed out stay valid.
    """

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.end: list[int] = []
        self._children: list[dict[str, int]] = []
        self._roots: dict[str, int] = {}
        self._used: set[int] = set()

    def __len__(self) -> int:
        return len(self.parent)

    def _add(self, parent: int, end: int) -> int:
        self.parent.append(parent)
        self.end.append(end)
        self._children.append({})
        return len(self.parent) - 1

    def _below(self, node: int) -> dict[str, int]:
        return self._roots if node == NONE else self._children[node]

    def _end(self, node: int) -> int:
        return 0 if node == NONE else self.end[node]

    def insert(self, path: Iterable[tuple[str, int]], start: int = NONE) -> int:
        """Add the path of (segment, tokens) below node ``start``; return its last node (``start`` if empty)."""
        node = start
        for segment, tokens in path:
            left = tokens
            while left > 0:
                below = self._below(node)
                child = below.get(segment)
                if child is None:
                    child = below[segment] = self._add(node, self._end(node) + left)
                length = self.end[child] - self._end(node)
                if length > left:
                    top = self._add(node, self._end(node) + left)
                    below[segment] = top
                    self._children[top][segment] = child
                    self.parent[child] = top
                    child, length = top, left
                left -= length
                node = child
        if node != NONE:
            self._used.add(node)
        return node

    def table(self) -> tuple[NDArray[np.void], NDArray[np.int32]]:
        """The tree as NODE records, parents first, without nodes that tell no two paths apart.

        Returns
        -------
        nodes, number
            NODE, shape (k,); and the new number of each old node, shape (len(self),), NONE for those left out.
        """
        kept = [v for v in range(len(self)) if v in self._used or len(self._children[v]) != 1]
        kept.sort(key=self.end.__getitem__)  # a split puts a node above an older one
        number = np.full(len(self), NONE, dtype=np.int32)
        number[kept] = np.arange(len(kept))
        nodes = np.zeros(len(kept), dtype=NODE)
        for new, v in enumerate(kept):
            above = self.parent[v]
            while above != NONE and number[above] == NONE:
                above = self.parent[above]
            nodes[new] = (NONE if above == NONE else number[above], self.end[v])
        return nodes, number
