"""The content tree against prompts written out token by token."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hexopt.simulation.contents import ContentTree
from hexopt.simulation.state import NONE

# Few segments and short runs, so that paths agree, split each other and repeat a segment.
PATH = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5)), max_size=5)


def text(path) -> str:
    """Every token by its segment: a segment directly after itself goes on."""
    return "".join(segment * tokens for segment, tokens in path)


def common(one: str, other: str) -> str:
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return one[:length]


def chain(nodes, leaf: int) -> list[int]:
    """From the root to ``leaf``."""
    path = []
    while leaf != NONE:
        path.append(leaf)
        leaf = int(nodes["parent"][leaf])
    return path[::-1]


@given(st.lists(PATH, min_size=1, max_size=12))
def test_two_paths_share_nodes_as_far_as_their_tokens_agree(paths):
    tree = ContentTree()
    leaves = [tree.insert(path) for path in paths]
    nodes, number = tree.table()
    number = np.append(number, NONE)
    texts = [text(path) for path in paths]
    chains = [chain(nodes, int(number[leaf])) for leaf in leaves]
    for written, nodes_of in zip(texts, chains, strict=True):
        assert len(written) == (nodes["end"][nodes_of[-1]] if nodes_of else 0)
    for a, b in combinations(range(len(paths)), 2):
        shared = [u for u, v in zip(chains[a], chains[b], strict=False) if u == v]
        assert (nodes["end"][shared[-1]] if shared else 0) == len(common(texts[a], texts[b]))


@given(st.lists(PATH, min_size=1, max_size=12))
def test_there_is_a_node_for_every_end_and_every_parting_and_no_other(paths):
    tree = ContentTree()
    for path in paths:
        tree.insert(path)
    nodes, number = tree.table()
    texts = {text(path) for path in paths}
    wanted = texts | {common(a, b) for a, b in combinations(texts, 2)}
    assert len(nodes) == len(wanted - {""})
    assert sorted(number[number != NONE].tolist()) == list(range(len(nodes)))
    # Parents come first and end earlier.
    inner = nodes["parent"] != NONE
    assert (nodes["parent"] < np.arange(len(nodes))).all()
    assert (nodes["end"][inner] > nodes["end"][nodes["parent"][inner]]).all()


@given(PATH, PATH, st.lists(PATH, max_size=6))
def test_going_on_from_a_node_is_one_longer_path(first, second, others):
    tree = ContentTree()
    middle = tree.insert(first)
    for path in others:
        tree.insert(path)  # may split what lies above the node; its number stays
    assert tree.insert(second, start=middle) == tree.insert([*first, *second])


def test_a_path_without_tokens_is_no_node():
    tree = ContentTree()
    assert tree.insert([]) == NONE
    assert tree.insert([], start=tree.insert([("a", 3)])) == 0
    assert len(tree) == 1
