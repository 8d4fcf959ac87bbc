"""What the templates' calls can share: one tree for all workflows, and each workflow's own trees below its nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hexopt.simulation.contents import ContentTree
from hexopt.simulation.state import NONE
from hexopt.traces.workflow import Stage, Workflow


@dataclass(frozen=True)
class TemplateNodes:
    """Contents of all templates; every array but ``shared`` goes by call or by template-local node.

    Parameters
    ----------
    shared
        NODE records of what all workflows share.
    leaf_shared, leaf_local
        Each call's last node among the shared ones, and among its template's own; NONE without, both shape (calls,).
    local_parent, local_root, local_end
        Of each own node: its parent among the template's own ones; where that is NONE, the shared node above it; the
        token where it ends. Shape (local nodes,).
    local_nodes
        Own nodes of each template, shape (templates,).
    """

    shared: NDArray[np.void]
    leaf_shared: NDArray[np.int64]
    leaf_local: NDArray[np.int64]
    local_parent: NDArray[np.int64]
    local_root: NDArray[np.int64]
    local_end: NDArray[np.int64]
    local_nodes: NDArray[np.int64]


class TemplateContents:
    """Collects the contents of one workflow after another."""

    def __init__(self) -> None:
        self._shared = ContentTree()
        self._leaf_shared: list[int] = []
        self._leaf_local: list[int] = []
        self._parent: list[int] = []
        self._root: list[int] = []
        self._end: list[int] = []
        self._nodes: list[int] = []

    def add(self, workflow: Workflow) -> None:
        """Add the contents of ``workflow``'s calls."""
        own: dict[int, ContentTree] = {}
        leaves: list[tuple[int, int]] = []
        for stage in workflow.stages:
            shared, local = _paths(stage)
            root = self._shared.insert(shared)
            leaves.append((root, own.setdefault(root, ContentTree()).insert(local) if local else NONE))
            self._leaf_shared.append(root)
        first: dict[int, int] = {}
        numbers: dict[int, NDArray[np.int32]] = {}
        count = 0
        for root, tree in own.items():
            nodes, numbers[root] = tree.table()
            first[root] = count
            above = self._shared.end[root] if root != NONE else 0
            for node in nodes:
                inner = node["parent"] != NONE
                self._parent.append(int(node["parent"]) + count if inner else NONE)
                self._root.append(NONE if inner else root)
                self._end.append(int(node["end"]) + above)
            count += len(nodes)
        self._leaf_local += [NONE if leaf == NONE else int(numbers[root][leaf]) + first[root] for root, leaf in leaves]
        self._nodes.append(count)

    def nodes(self) -> TemplateNodes:
        """What has been added, as arrays."""
        shared, number = self._shared.table()
        renumbered = np.append(number, NONE).astype(np.int64)
        return TemplateNodes(
            shared=shared,
            leaf_shared=renumbered[np.array(self._leaf_shared, dtype=np.int64)],
            leaf_local=np.array(self._leaf_local, dtype=np.int64),
            local_parent=np.array(self._parent, dtype=np.int64),
            local_root=renumbered[np.array(self._root, dtype=np.int64)],
            local_end=np.array(self._end, dtype=np.int64),
            local_nodes=np.array(self._nodes, dtype=np.int64),
        )


def _paths(stage: Stage) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Segments of a call that all workflows share, and those behind them that only its own workflow does."""
    cut = next((n for n, prefix in enumerate(stage.prefixes) if prefix.local), len(stage.prefixes))
    path = [(prefix.segment, prefix.tokens) for prefix in stage.prefixes]
    if stage.output_segment is not None:
        path.append((stage.output_segment, stage.output_tokens))
    return path[:cut], path[cut:]
