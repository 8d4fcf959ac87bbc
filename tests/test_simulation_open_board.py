"""The open board against plain dictionaries, and the same work on an open board and in the simulator."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workload import small_cluster

from hexopt.simulation.engine import arrive, begin_step, end_step
from hexopt.simulation.kvcache import admit, credit, found_blocks, release, take_blocks
from hexopt.simulation.open_board import BoardError, OpenBoard
from hexopt.simulation.simulator import fleet_of, instance_table
from hexopt.simulation.state import NONE
from hexopt.simulation.withdraw import is_at, withdraw

BLOCK = 16
Path = tuple[str, ...]


def small_board(chunk: int = BLOCK, **room: int) -> OpenBoard:
    """A board of four instances of 150 blocks each, one of which is cut to 12."""
    cluster = small_cluster()
    table = instance_table(cluster, True)
    table["blocks"][0] = table["free"][0] = 12
    return OpenBoard(table, fleet_of(cluster).coef, chunk_tokens=chunk, **room)


class DictionaryCache:
    """One instance's prefix cache, a node a block: cached paths, their holders, and the free queue block by block."""

    def __init__(self, blocks: int) -> None:
        self.holders: dict[Path, int] = {}
        self.free: list[Path | None] = [None] * blocks

    def found(self, path: Path, limit: int) -> int:
        count = 0
        while count < min(limit, len(path)) and path[: count + 1] in self.holders:
            count += 1
        return count

    def admit(self, path: Path, limit: int, blocks: int) -> list[Path]:
        """Take ``blocks`` in all, and fill the path with them; what the stage then holds of it."""
        held = [path[: k + 1] for k in range(self.found(path, limit))]
        for node in held:
            if self.holders[node] == 0:
                self.free.remove(node)
            self.holders[node] += 1
        for _ in range(blocks - len(held)):
            gone = self.free.pop(0)
            if gone is not None:
                del self.holders[gone]
        return held

    def fill(self, path: Path, held: list[Path], full: int) -> None:
        for k in range(len(held), min(full, len(path))):
            if path[: k + 1] in self.holders:
                return
            self.holders[path[: k + 1]] = 1
            held.append(path[: k + 1])

    def release(self, held: list[Path], blocks: int) -> None:
        self.free += [None] * (blocks - len(held))
        for node in reversed(held):
            self.holders[node] -= 1
            if self.holders[node] == 0:
                self.free.append(node)


def check_references(board: OpenBoard, paths: dict[int, Path]) -> None:
    """Every node's references are the stages that end there and the nodes below it."""
    wanted = Counter(above for above, _ in board._number)
    wanted.update(int(board.sim.stage["leaf"][r]) for r in paths)
    for (above, key), v in board._number.items():
        assert board._references[v] == wanted[v]
        assert board.sim.node["parent"][v] == above and board._name[v] == (above, key)
    assert sorted([*board._free_nodes, *board._number.values()]) == list(range(board.sim.node.shape[0]))


@given(st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_random_comings_and_goings_equal_a_dictionary(seed):
    rng = np.random.default_rng(seed)
    board = small_board(stages=2, workflows=1, nodes=4)
    caches = [DictionaryCache(int(blocks)) for blocks in board.sim.instance["blocks"]]
    paths: dict[int, Path] = {}
    running: dict[int, tuple[int, list[Path]]] = {}
    owner: dict[int, int] = {}
    for _ in range(150):
        choice = rng.random()
        if choice < 0.4 or not paths:
            w = board.add_workflow(0.0, 1.0)
            path = tuple(rng.choice(list("ab"), size=int(rng.integers(0, 9))).tolist())
            r = board.add_stage(w, 0, BLOCK * len(path) + int(rng.integers(1, 20)), 8, path)
            assert r not in paths
            paths[r], owner[r] = path, w
        elif choice < 0.7:
            r = int(rng.choice(list(paths)))
            i = int(rng.integers(0, 4))
            path, sim, cache = paths[r], board.sim, caches[i]
            stage, inst = sim.stage[r], sim.instance[i]
            limit, full = int(stage["prompt"] - 1) // BLOCK, int(stage["prompt"]) // BLOCK
            found, from_free = found_blocks(sim, i, int(stage["leaf"]), limit)
            assert found == cache.found(path, limit)
            needed = -(-int(stage["prompt"]) // BLOCK)
            if r in running or needed - found > inst["free"] - from_free:
                continue
            assert admit(sim, i, r, limit) == found
            take_blocks(sim, i, needed - found)
            stage["held"], stage["computed"] = needed, stage["prompt"]
            credit(sim, i, r, full)
            held = cache.admit(path, limit, needed)
            if len(held) < full:
                cache.fill(path, held, full)
            running[r] = (i, held)
            assert inst["free"] == len(cache.free)
        else:
            r = int(rng.choice(list(paths)))
            if r in running:
                i, held = running.pop(r)
                caches[i].release(held, int(board.sim.stage["held"][r]))
                release(board.sim, i, r)
            if choice < 0.9:
                board.remove_stage(r)
                del paths[r]
                board.remove_workflow(owner.pop(r))
        check_references(board, paths)
        for i, cache in enumerate(caches):
            for path in set(paths.values()):
                assert found_blocks(board.sim, i, leaf_of(board, path), 100)[0] == cache.found(path, 100)


def leaf_of(board: OpenBoard, path: Path) -> int:
    leaf = NONE
    for key in path:
        leaf = board._number[leaf, key]
    return leaf


def test_recycling_forgets_no_cached_block_and_frees_the_rest():
    board = small_board(nodes=8, stages=1, workflows=1)
    w = board.add_workflow(0.0, 1.0)
    kept = board.add_stage(w, 0, 40, 8, ("kept", "too"))
    run_to_end(board, 1, kept)
    board.remove_stage(kept)
    for k in range(200):
        board.remove_stage(board.add_stage(w, 0, 64, 8, (k, k, k)))
    assert board.sim.node.shape[0] < 1000
    again = board.add_stage(w, 0, 40, 8, ("kept", "too"))
    assert found_blocks(board.sim, 1, int(board.sim.stage["leaf"][again]), 100) == (2, 2)


def run_to_end(board: OpenBoard, i: int, r: int) -> float:
    """Run stage ``r`` alone on instance ``i``; its finish."""
    sim = board.sim
    ended = np.zeros(sim.running.shape[1], dtype=np.int32)
    arrive(sim, i, r, 0.0)
    now = 0.0
    while sim.instance["first_here"][i] != NONE:
        begin_step(sim, i, now)
        now = float(sim.instance["next_event"][i])
        end_step(sim, i, ended)
    return now


def test_a_chunk_of_many_blocks_is_found_block_by_block():
    board = small_board(chunk=4 * BLOCK)
    w = board.add_workflow(0.0, 1.0)
    first = board.add_stage(w, 0, 200, 5, ("a", "b", "c"))
    run_to_end(board, 1, first)
    other = board.add_stage(w, 0, 200, 5, ("a", "b", "x"))
    assert found_blocks(board.sim, 1, int(board.sim.stage["leaf"][other]), 7)[0] == 7
    assert found_blocks(board.sim, 1, int(board.sim.stage["leaf"][other]), 100)[0] == 8
    assert found_blocks(board.sim, 2, int(board.sim.stage["leaf"][other]), 100)[0] == 0


def test_growing_keeps_everything():
    board = small_board(stages=1, workflows=1, nodes=1)
    made = []
    for k in range(100):
        w = board.add_workflow(float(k), k + 1.0, weight=2.0, tenant=k)
        made.append((w, board.add_stage(w, k, 100 + k, k + 1, (k, "x"), occurrence=3)))
    assert len({w for w, _ in made}) == len({r for _, r in made}) == 100 == board.stages
    for k, (w, r) in enumerate(made):
        assert board.sim.workflow[["arrival", "deadline", "tenant", "stages_left"]][w].item() == (k, k + 1, k, 1)
        row = board.sim.stage[["kind", "prompt", "output", "workflow", "occurrence"]][r]
        assert row.item() == (k, 100 + k, k + 1, w, 3)
        assert np.isnan(board.sim.stage["finish"][r])


@given(st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_withdrawing_leaves_the_others_as_they_were(seed):
    """Blocks, queue and running list after random withdrawals; the rest runs to its end."""
    rng = np.random.default_rng(seed)
    board = small_board()
    w = board.add_workflow(0.0, 1.0)
    sim = board.sim
    sim.instance["by_priority"] = seed % 2
    ended = np.zeros(sim.running.shape[1], dtype=np.int32)
    here: set[int] = set()
    gone, now = 0, 0.0
    for _ in range(60):
        if rng.random() < 0.5:
            r = board.add_stage(w, 0, int(rng.integers(1, 150)), int(rng.integers(1, 40)))
            sim.stage["priority"][r] = rng.integers(0, 3)
            arrive(sim, 0, r, now)
            here.add(r)
        if here and rng.random() < 0.3:
            r = int(rng.choice(list(here)))
            assert is_at(sim, 0, r)
            withdraw(sim, 0, r, now)
            assert not is_at(sim, 0, r)
            here.remove(r)
            gone += 1
        now = step_until(sim, now + float(rng.exponential(0.05)), ended, here)
        held = sum(int(sim.stage["held"][r]) for r in here)
        assert held == sim.instance["blocks"][0] - sim.instance["free"][0]
        assert sim.instance["running"][0] + sim.instance["waiting"][0] == len(here)
    step_until(sim, 1e9, ended, here)
    assert not here
    assert sim.instance["finished"][0] + gone == board.stages


def step_until(sim, until: float, ended, here: set[int]) -> float:
    inst = sim.instance[0]
    now = until if inst["busy"] else 0.0
    while True:
        if inst["busy"] == 0 and inst["touched"] == 1:
            begin_step(sim, 0, max(now, float(sim.clock["now"][0])))
        if inst["busy"] == 0 or inst["next_event"] > until:
            sim.clock["now"][0] = until
            return until
        now = float(inst["next_event"])
        sim.clock["now"][0] = now
        here.difference_update(ended[: end_step(sim, 0, ended)].tolist())


def test_a_jump_is_cut_where_a_call_is_withdrawn():
    board = small_board()
    w = board.add_workflow(0.0, 1.0)
    sim = board.sim
    ended = np.zeros(sim.running.shape[1], dtype=np.int32)
    first, second = (board.add_stage(w, 0, 20, 500) for _ in range(2))
    arrive(sim, 1, first, 0.0)
    arrive(sim, 1, second, 0.0)
    begin_step(sim, 1, 0.0)
    end_step(sim, 1, ended)
    start = float(sim.stage["first_token"][first])
    begin_step(sim, 1, start)
    whole, steps = float(sim.instance["next_event"][1]) - start, int(sim.instance["jump"][1])
    assert steps == 499
    sim.clock["now"][0] = start + whole / 2
    board.remove_stage(second)
    end = float(sim.instance["next_event"][1]) - start
    assert whole / 2 <= end < whole / 2 + 2 * whole / steps
    assert end_step(sim, 1, ended) == 0
    assert 200 < sim.stage["generated"][first] < 300 and sim.instance["running"][1] == 1
    assert board.stages == 1


def test_what_does_not_belong_is_refused():
    with pytest.raises(BoardError, match="chunk_tokens is 24, expected a multiple of the block size 16"):
        small_board(chunk=24)
    board = small_board()
    w = board.add_workflow(0.0, 1.0)
    with pytest.raises(BoardError, match="workflow 9 is not on the board"):
        board.add_stage(9, 0, 10, 1)
    with pytest.raises(BoardError, match="2 chunks of 16 tokens are more than 20 prompt and 5 output tokens"):
        board.add_stage(w, 0, 20, 5, ("a", "b"))
    r = board.add_stage(w, 0, 20, 5)
    with pytest.raises(BoardError, match=f"workflow {w} still has 1 stages"):
        board.remove_workflow(w)
    board.remove_stage(r)
    with pytest.raises(BoardError, match=f"stage {r} is not on the board"):
        board.remove_stage(r)
    board.remove_workflow(w)
    with pytest.raises(BoardError, match=f"workflow {w} is not on the board"):
        board.remove_workflow(w)
