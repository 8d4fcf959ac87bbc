"""A board whose stages, workflows and contents come and go in real time.

A simulation knows its work beforehand; a live service does not. The open board is the same
:class:`~hexopt.simulation.state.Simulation`, so that policies and kernels read it unchanged, with free lists behind its
tables. A table that is full doubles: its arrays are then new ones, so hold on to the board, never to ``board.sim``.

Contents are chunks of ``chunk_tokens`` tokens: a node is a chunk behind its parent's. A node stays while a stage has
it, while one below it stays, and while an instance caches blocks of it; of others nothing is worth knowing.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numba import typeof
from numpy.typing import NDArray

from hexopt.models.kernel import kernel
from hexopt.simulation.simulator import build, free_entries
from hexopt.simulation.state import ENTRY, INDICES, NODE, NODE_HERE, NONE, STAGE, WORKFLOW, Simulation
from hexopt.simulation.withdraw import is_at, withdraw
from hexopt.simulation.workload import Jobs

_NO_RANGE = np.iinfo(np.int32).max
"""``first_stage`` of a workflow: its stages are not side by side, so kernels must not walk them."""
_RECLAIMED = 256
"""Nodes to look for at a time when none is free: a whole round that finds fewer means that the table is too small."""


class BoardError(ValueError):
    """A stage or workflow that the board cannot take or give back."""


class OpenBoard:
    """A :class:`Simulation` that is open at both ends.

    Parameters
    ----------
    instance
        INSTANCE records of idle instances, shape (m,), as :func:`~hexopt.simulation.simulator.instance_table` makes
        them.
    coef
        Roofline coefficients, shape (m, N_FEATURES), seconds.
    stages, workflows, nodes
        Room to start with.
    chunk_tokens
        Tokens of a chunk of content, a multiple of every instance's block size.

    Raises
    ------
    BoardError
        If ``chunk_tokens`` is not a multiple of a block size.
    """

    sim: Simulation
    """The board as arrays: always the present ones."""

    def __init__(
        self,
        instance: NDArray[np.void],
        coef: NDArray[np.float64],
        stages: int = 4096,
        workflows: int = 4096,
        nodes: int = 65536,
        chunk_tokens: int = 256,
    ) -> None:
        for block in np.unique(instance["block_size"]).tolist():
            if chunk_tokens < 1 or chunk_tokens % block:
                raise BoardError(f"chunk_tokens is {chunk_tokens}, expected a multiple of the block size {block}")
        self.chunk_tokens = chunk_tokens
        node = np.zeros(nodes, dtype=NODE)
        empty = np.zeros(0, dtype=np.int32)
        jobs = Jobs(_blank_stages(stages), empty, _blank_workflows(workflows), node, empty.astype(np.int64))
        self.sim = build(jobs, instance, coef)
        clock: Any = self.sim.clock
        clock["stages_left"] = 0
        clock["next_workflow"] = np.iinfo(np.int64).max
        self._blank = _blank_stages(1)[0]
        self._live_stages: set[int] = set()
        self._live_workflows: set[int] = set()
        # The lowest number last, to be handed out first.
        self._free_stages = list(range(stages - 1, -1, -1))
        self._free_workflows = list(range(workflows - 1, -1, -1))
        self._free_nodes = list(range(nodes - 1, -1, -1))
        self._number: dict[tuple[int, Hashable], int] = {}
        self._name: list[tuple[int, Hashable] | None] = [None] * nodes
        self._references = np.full(nodes, NONE, dtype=np.int32)
        self._hand = 0
        self._found = np.zeros(nodes, dtype=np.int32)
        self._compile()

    def _compile(self) -> None:
        """Compile what later calls use, so that none of them is the one to wait."""
        is_at(self.sim, 0, 0)
        _reclaim(self.sim, self._references, 0, 0, self._found)
        compiled: Any = withdraw
        compiled.compile(tuple(typeof(x) for x in (self.sim, 0, 0, 0.0)))

    @property
    def stages(self) -> int:
        """Stages on the board."""
        return len(self._live_stages)

    @property
    def nodes(self) -> int:
        """Content nodes in the tables, those that may be recycled included."""
        return len(self._number)

    def add_workflow(self, arrival: float, deadline: float, weight: float = 1.0, tenant: int = 0) -> int:
        """A workflow that arrived at ``arrival`` and is due at ``deadline``, both absolute seconds; its index."""
        if not self._free_workflows:
            self._grow_workflows()
        w = self._free_workflows.pop()
        self._live_workflows.add(w)
        row: Any = self.sim.workflow[w]
        row["arrival"], row["deadline"], row["weight"], row["tenant"] = arrival, deadline, weight, tenant
        row["finish"] = math.nan
        row["stages_left"] = 0
        return w

    def remove_workflow(self, w: int) -> None:
        """Forget workflow ``w``, whose stages have all been removed.

        Raises
        ------
        BoardError
            If it is not on the board, or stages of it are.
        """
        if w not in self._live_workflows:
            raise BoardError(f"workflow {w} is not on the board")
        left = int(self.sim.workflow[w]["stages_left"])
        if left:
            raise BoardError(f"workflow {w} still has {left} stages on the board")
        self._live_workflows.remove(w)
        self._free_workflows.append(w)

    def add_stage(
        self,
        workflow: int,
        kind: int,
        prompt: int,
        output: int,
        chunks: Sequence[Hashable] = (),
        occurrence: int = 0,
    ) -> int:
        """A stage of ``workflow``; its index.

        Parameters
        ----------
        prompt, output
            Tokens; the longest output that it may have, where the true one is not known.
        chunks
            Keys of the successive whole chunks from token zero on; two stages share chunk c where their keys up to c
            are equal. They may reach into the output, where later prompts quote it.
        occurrence
            How many stages of this kind its workflow had before.

        Raises
        ------
        BoardError
            If the workflow is not on the board, or there are more chunks than tokens for them.
        """
        if workflow not in self._live_workflows:
            raise BoardError(f"workflow {workflow} is not on the board")
        if len(chunks) * self.chunk_tokens > prompt + output:
            raise BoardError(
                f"{len(chunks)} chunks of {self.chunk_tokens} tokens are more than {prompt} prompt and "
                f"{output} output tokens"
            )
        if not self._free_stages:
            self._grow_stages()
        leaf = self._leaf(chunks) if chunks else NONE
        r = self._free_stages.pop()
        self._live_stages.add(r)
        self.sim.stage[r] = self._blank
        row: Any = self.sim.stage[r]
        row["prompt"], row["output"], row["kind"], row["workflow"] = prompt, output, kind, workflow
        row["occurrence"], row["leaf"] = occurrence, leaf
        self.sim.workflow[workflow]["stages_left"] += 1
        return r

    def remove_stage(self, r: int) -> None:
        """Forget stage ``r``; withdraw it first from an instance where it still waits or runs.

        Raises
        ------
        BoardError
            If it is not on the board.
        """
        if r not in self._live_stages:
            raise BoardError(f"stage {r} is not on the board")
        row: Any = self.sim.stage[r]
        i = int(row["instance"])
        if i != NONE and is_at(self.sim, i, r):
            withdraw(self.sim, i, r, float(self.sim.clock["now"][0]))
        leaf = int(row["leaf"])
        if leaf != NONE:
            self._references[leaf] -= 1
        self.sim.workflow[int(row["workflow"])]["stages_left"] -= 1
        self._live_stages.remove(r)
        self._free_stages.append(r)

    def _leaf(self, chunks: Sequence[Hashable]) -> int:
        """The last node of the chain of ``chunks``, made as far as it is missing, with one reference more."""
        number = self._number
        leaf, known = NONE, 0
        for key in chunks:
            v = number.get((leaf, key))
            if v is None:
                break
            leaf, known = v, known + 1
        if leaf != NONE:
            # The stage's reference, or the first new node's.
            self._references[leaf] += 1
        missing = len(chunks) - known
        if missing:
            leaf = self._extend(leaf, known, chunks[known:], missing)
        return leaf

    def _extend(self, parent: int, known: int, keys: Sequence[Hashable], count: int) -> int:
        if len(self._free_nodes) < count:
            self._make_room(count)
        new = self._free_nodes[-count:]
        new.reverse()
        del self._free_nodes[-count:]
        number, name = self._number, self._name
        above = parent
        for v, key in zip(new, keys, strict=True):
            entry = (above, key)
            number[entry] = v
            name[v] = entry
            above = v
        self._references[new] = 1
        rows = np.empty(count, dtype=NODE)
        rows["parent"] = [parent, *new[:-1]]
        rows["end"] = np.arange(known + 1, known + count + 1) * self.chunk_tokens
        self.sim.node[new] = rows
        return above

    def _make_room(self, count: int) -> None:
        """Recycle nodes, or grow, until ``count`` are free."""
        wanted = max(count - len(self._free_nodes), _RECLAIMED)
        found, self._hand = _reclaim(self.sim, self._references, self._hand, wanted, self._found)
        for v in self._found[:found].tolist():
            del self._number[self._name[v]]  # type: ignore[arg-type]
            self._name[v] = None
            self._free_nodes.append(v)
        if found < wanted:
            self._grow_nodes(count)

    def _grow_nodes(self, count: int) -> None:
        old = self.sim.node.shape[0]
        size = old
        while size - old + len(self._free_nodes) < count or size == old:
            size *= 2
        self.sim = self.sim._replace(
            node=_longer(self.sim.node, np.zeros(size - old, dtype=NODE)),
            here=_wider_here(self.sim.here, size),
            entry=_wider_entries(self.sim, free_entries(self.sim.instance, size)),
            path=np.zeros(size + 1, dtype=np.int32),
        )
        self._references = _longer(self._references, np.full(size - old, NONE, dtype=np.int32))
        self._found = np.zeros(size, dtype=np.int32)
        self._name += [None] * (size - old)
        self._free_nodes[:0] = range(size - 1, old - 1, -1)

    def _grow_stages(self) -> None:
        old = self.sim.stage.shape[0]
        self.sim = self.sim._replace(
            stage=_longer(self.sim.stage, _blank_stages(old)),
            delayed=_longer(self.sim.delayed, np.zeros(old, dtype=np.int32)),
            ready=_longer(self.sim.ready, np.zeros(old, dtype=np.int32)),
        )
        self._free_stages[:0] = range(2 * old - 1, old - 1, -1)

    def _grow_workflows(self) -> None:
        old = self.sim.workflow.shape[0]
        self.sim = self.sim._replace(workflow=_longer(self.sim.workflow, _blank_workflows(old)))
        self._free_workflows[:0] = range(2 * old - 1, old - 1, -1)


def _blank_stages(count: int) -> NDArray[np.void]:
    stage = np.zeros(count, dtype=STAGE)
    for field in ("ready", "start", "first_token", "finish", "handed"):
        stage[field] = math.nan
    for field in INDICES:
        stage[field] = NONE
    return stage


def _blank_workflows(count: int) -> NDArray[np.void]:
    workflow = np.zeros(count, dtype=WORKFLOW)
    workflow["finish"] = math.nan
    workflow["first_stage"] = _NO_RANGE
    return workflow


def _longer(table: NDArray[Any], more: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate((table, more))


def _wider_here(here: NDArray[np.void], nodes: int) -> NDArray[np.void]:
    wider = np.zeros((here.shape[0], nodes), dtype=NODE_HERE)
    wider["entry"] = NONE
    wider[:, : here.shape[1]] = here
    return wider


def _wider_entries(sim: Simulation, entries: int) -> NDArray[np.void]:
    """The free queues with ``entries`` entries each; the new ones go in front of the spare ones."""
    old = sim.entry.shape[1]
    if entries <= old:
        return sim.entry
    wider = np.zeros((sim.entry.shape[0], entries), dtype=ENTRY)
    wider[:, :old] = sim.entry
    wider["next"][:, old:] = np.arange(old + 1, entries + 1)
    wider["next"][:, -1] = sim.instance["lru_spare"]
    sim.instance["lru_spare"] = old
    return wider


@kernel
def _reclaim(sim, references, hand, wanted, found):  # type: ignore[no-untyped-def]
    """Write nodes that nothing needs any more to ``found``, from ``hand`` on, until ``wanted`` or a round is done.

    Returns
    -------
    count, hand
        How many, and where to go on.
    """
    nodes = sim.node.shape[0]
    count = 0
    for _ in range(nodes):
        v = hand
        hand = hand + 1 if hand + 1 < nodes else 0
        while v != NONE and references[v] == 0:
            used = False
            for i in range(sim.instance.shape[0]):
                here = sim.here[i, v]
                if here.cached > 0 or here.holders > 0:
                    used = True
                    break
            if used:
                break
            references[v] = NONE
            found[count] = v
            count += 1
            v = sim.node[v].parent
            if v != NONE:
                references[v] -= 1
        if count >= wanted:
            break
    return count, hand
