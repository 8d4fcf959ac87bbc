"""From workflows to arrays: templates once, then any number of runs drawn from them without Python objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hexopt.simulation.contents import ContentTree
from hexopt.simulation.state import NONE, STAGE, WORKFLOW
from hexopt.traces.workflow import TraceError, Workflow

LONGEST = 1 << 30
"""Tokens of the longest call that the arrays have room for."""


@dataclass(frozen=True)
class Jobs:
    """The work of one run, ready to simulate; see :class:`hexopt.simulation.state.Simulation` for the arrays."""

    stage: NDArray[np.void]
    child: NDArray[np.int32]
    workflow: NDArray[np.void]
    node: NDArray[np.void]
    template: NDArray[np.int64]
    """Index of the workflow's template, shape (w,)."""


def _ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """``concatenate([arange(s, s + c) for s, c in zip(starts, counts)])``."""
    total = int(counts.sum())
    offsets = np.repeat(starts - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
    return np.arange(total) + offsets


def _shifts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.int64)


class Workload:
    """Workflows compiled to arrays.

    Parameters
    ----------
    workflows
        At least one. Segments that are not local are shared by all; local ones by the stages of one workflow *of a
        run*, so that a template drawn twice does not find its own history in the cache.

    Raises
    ------
    TraceError
        If there is no workflow, or a call is longer than ``LONGEST`` tokens.
    """

    def __init__(self, workflows: Sequence[Workflow]) -> None:
        if not workflows:
            raise TraceError("the trace has no workflows")
        self.workflows = tuple(workflows)
        self.kinds: tuple[str, ...] = tuple(dict.fromkeys(s.kind for w in workflows for s in w.stages))
        self.tenants: tuple[str, ...] = tuple(dict.fromkeys(w.tenant for w in workflows))
        self.arrival = np.array([w.arrival for w in workflows], dtype=np.float64)
        self.deadline = np.array([np.nan if w.deadline is None else w.deadline for w in workflows])
        self.stages = np.array([len(w.stages) for w in workflows], dtype=np.int64)
        self.first_stage = _shifts(self.stages)
        self._compile()

    def __len__(self) -> int:
        return len(self.workflows)

    def _compile(self) -> None:
        kind = {name: k for k, name in enumerate(self.kinds)}
        shared = ContentTree()
        stage = np.zeros(int(self.stages.sum()), dtype=STAGE)
        children: list[int] = []
        edges: list[int] = []
        locals_parent: list[int] = []
        locals_end: list[int] = []
        local_nodes: list[int] = []
        leaf_local = np.full(stage.shape[0], NONE, dtype=np.int64)
        leaf_shared = np.full(stage.shape[0], NONE, dtype=np.int64)
        root_of_local: list[int] = []
        r = 0
        for workflow in self.workflows:
            below: dict[int, ContentTree] = {}
            leaves: list[tuple[int, int, int]] = []
            position = {s.id: k for k, s in enumerate(workflow.stages)}
            offspring: list[list[int]] = [[] for _ in workflow.stages]
            made: dict[str, int] = {}
            for k, s in enumerate(workflow.stages):
                if s.prompt_tokens + s.output_tokens > LONGEST:
                    raise TraceError(
                        f"workflow {workflow.id!r}, stage {s.id!r}: {s.prompt_tokens} prompt and {s.output_tokens} "
                        f"output tokens, expected at most {LONGEST} together"
                    )
                for parent in dict.fromkeys(s.parents):
                    offspring[position[parent]].append(k)
                row = stage[r + k]
                row["prompt"], row["output"] = s.prompt_tokens, s.output_tokens
                row["kind"], row["tool_delay"] = kind[s.kind], s.tool_delay
                row["parents_left"] = len(set(s.parents))
                row["occurrence"] = made.get(s.kind, 0)
                made[s.kind] = made.get(s.kind, 0) + 1
                cut = next((n for n, p in enumerate(s.prefixes) if p.local), len(s.prefixes))
                root = shared.insert((p.segment, p.tokens) for p in s.prefixes[:cut])
                leaf_shared[r + k] = root
                path = [(p.segment, p.tokens) for p in s.prefixes[cut:]]
                if s.output_segment is not None:
                    path.append((s.output_segment, s.output_tokens))
                if path:
                    tree = below.setdefault(root, ContentTree())
                    leaves.append((r + k, root, tree.insert(path)))
            base = len(locals_parent)
            for root, tree in below.items():
                nodes, number = tree.table()
                start = len(locals_parent) - base
                offset = shared.end[root] if root != NONE else 0
                for node in nodes:
                    inner = node["parent"] != NONE
                    locals_parent.append(int(node["parent"]) + start if inner else NONE)
                    root_of_local.append(NONE if inner else root)
                    locals_end.append(int(node["end"]) + offset)
                for stage_index, its_root, leaf in leaves:
                    if its_root == root:
                        leaf_local[stage_index] = number[leaf] + start
            local_nodes.append(len(locals_parent) - base)
            for k, found in enumerate(offspring):
                stage[r + k]["first_child"] = len(children)
                stage[r + k]["children"] = len(found)
                children += found
            edges.append(sum(len(found) for found in offspring))
            r += len(workflow.stages)
        self.shared_node, number = shared.table()
        renumber = np.append(number, NONE)
        self._stage = stage
        self._child = np.array(children, dtype=np.int32)
        self._edges = np.array(edges, dtype=np.int64)
        self._leaf_shared = renumber[leaf_shared]
        self._leaf_local = leaf_local
        self._local_parent = np.array(locals_parent, dtype=np.int64)
        self._local_root = renumber[np.array(root_of_local, dtype=np.int64)]
        self._local_end = np.array(locals_end, dtype=np.int64)
        self._local_nodes = np.array(local_nodes, dtype=np.int64)

    @property
    def calls(self) -> int:
        """LLM calls over all templates."""
        return int(self.stages.sum())

    def template_stages(self) -> NDArray[np.void]:
        """STAGE records of all templates one after the other, shape (calls,); child indices within the workflow."""
        return self._stage

    def template_children(self) -> NDArray[np.int32]:
        """Children of the template stages, as positions within their workflow."""
        return self._child

    def draw(self, picks: NDArray[np.int64], arrivals: NDArray[np.float64], deadlines: NDArray[np.float64]) -> Jobs:
        """The run in which template ``picks[j]`` arrives at ``arrivals[j]`` with ``deadlines[j]`` seconds.

        All three of shape (w,); arrivals ascending, seconds.
        """
        counts = self.stages[picks]
        rows = _ranges(self.first_stage[picks], counts)
        stage = self._stage[rows]
        shift = _shifts(counts)
        owner = np.repeat(np.arange(picks.shape[0]), counts)
        stage["workflow"] = owner
        edge_counts = self._edges[picks]
        edge_rows = _ranges(_shifts(self._edges)[picks], edge_counts)
        child = self._child[edge_rows] + np.repeat(shift, edge_counts)
        stage["first_child"] += np.repeat(_shifts(edge_counts) - _shifts(self._edges)[picks], counts)
        node_counts = self._local_nodes[picks]
        node_rows = _ranges(_shifts(self._local_nodes)[picks], node_counts)
        node_base = self.shared_node.shape[0] + _shifts(node_counts)
        node = np.zeros(self.shared_node.shape[0] + node_rows.shape[0], dtype=self.shared_node.dtype)
        node[: self.shared_node.shape[0]] = self.shared_node
        own = node[self.shared_node.shape[0] :]
        inner = self._local_parent[node_rows]
        own["parent"] = np.where(inner == NONE, self._local_root[node_rows], inner + np.repeat(node_base, node_counts))
        own["end"] = self._local_end[node_rows]
        local = self._leaf_local[rows]
        stage["leaf"] = np.where(local == NONE, self._leaf_shared[rows], local + np.repeat(node_base, counts))
        for field in ("ready", "start", "first_token", "finish"):
            stage[field] = np.nan
        for field in ("instance", "node", "left", "right", "next_here", "previous_here"):
            stage[field] = NONE
        workflow = np.zeros(picks.shape[0], dtype=WORKFLOW)
        workflow["arrival"] = arrivals
        workflow["deadline"] = arrivals + deadlines
        workflow["weight"] = np.array([w.weight for w in self.workflows])[picks]
        tenant = {name: k for k, name in enumerate(self.tenants)}
        workflow["tenant"] = np.array([tenant[w.tenant] for w in self.workflows])[picks]
        workflow["finish"] = np.nan
        workflow["first_stage"] = shift
        workflow["stages"] = counts
        workflow["stages_left"] = counts
        return Jobs(stage, child.astype(np.int32), workflow, node, picks)
