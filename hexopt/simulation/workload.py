"""From workflows to arrays: templates once, then any number of runs drawn from them without Python objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hexopt.simulation.state import INDICES, NONE, STAGE, WORKFLOW
from hexopt.simulation.templates import TemplateContents
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
        contents = TemplateContents()
        self._stage = np.zeros(int(self.stages.sum()), dtype=STAGE)
        children: list[int] = []
        edges: list[int] = []
        for first, workflow in zip(self.first_stage, self.workflows, strict=True):
            contents.add(workflow)
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
                row = self._stage[first + k]
                row["prompt"], row["output"] = s.prompt_tokens, s.output_tokens
                row["kind"], row["tool_delay"] = kind[s.kind], s.tool_delay
                row["parents_left"] = len(set(s.parents))
                row["occurrence"] = made.get(s.kind, 0)
                made[s.kind] = made.get(s.kind, 0) + 1
            for k, found in enumerate(offspring):
                self._stage[first + k]["first_child"] = len(children)
                self._stage[first + k]["children"] = len(found)
                children += found
            edges.append(sum(len(found) for found in offspring))
        self._child = np.array(children, dtype=np.int32)
        self._edges = np.array(edges, dtype=np.int64)
        self._nodes = contents.nodes()

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
        for field in ("ready", "start", "first_token", "finish", "handed"):
            stage[field] = np.nan
        for field in INDICES:
            stage[field] = NONE
        stage["leaf"], node = self._nodes_of(picks, rows)
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

    def _nodes_of(
        self, picks: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.void]]:
        """Each call's leaf, and all nodes: the shared ones, then each drawn workflow's own."""
        nodes = self._nodes
        counts = nodes.local_nodes[picks]
        own_rows = _ranges(_shifts(nodes.local_nodes)[picks], counts)
        base = nodes.shared.shape[0] + _shifts(counts)
        node = np.zeros(nodes.shared.shape[0] + own_rows.shape[0], dtype=nodes.shared.dtype)
        node[: nodes.shared.shape[0]] = nodes.shared
        own = node[nodes.shared.shape[0] :]
        inner = nodes.local_parent[own_rows]
        own["parent"] = np.where(inner == NONE, nodes.local_root[own_rows], inner + np.repeat(base, counts))
        own["end"] = nodes.local_end[own_rows]
        local = nodes.leaf_local[rows]
        leaf = np.where(local == NONE, nodes.leaf_shared[rows], local + np.repeat(base, self.stages[picks]))
        return leaf, node
