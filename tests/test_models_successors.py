"""The successor model against a plain recomputation from the same edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexopt.models.successors import TRAITS, fit_successors, no_successors
from hexopt.models.tails import OCCURRENCES
from hexopt.models.tallies import SHRINKAGE

KINDS = 3


def random_calls(rng: np.random.Generator, n: int):
    """Kinds, occurrences, edges from earlier to later calls, and traits of the edges."""
    kind, occurrence = rng.integers(-1, KINDS, n), rng.integers(0, 20, n) * rng.integers(0, 2)
    edges = [(p, c) for c in range(n) for p in range(max(0, c - 3), c) if rng.random() < 0.4]
    parent, child = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    return kind, occurrence, parent, child, rng.uniform(0.0, 9.0, (len(edges), len(TRAITS)))


def plain(kind, occurrence, parent, child, traits, of: int, nth: int):
    """Probability, count and traits by successor kind, from lists."""
    last = OCCURRENCES - 1
    calls = [c for c in range(len(kind)) if kind[c] == of and min(occurrence[c], last) == min(nth, last)]
    if len(calls) < SHRINKAGE:
        calls = [c for c in range(len(kind)) if kind[c] == of]
    result = {}
    for after in range(KINDS):
        edges = [e for e in range(len(parent)) if parent[e] in calls and kind[child[e]] == after]
        share = {e: 1.0 / (child == child[e]).sum() for e in edges}
        number = {c: sum(share[e] for e in edges if parent[e] == c) for c in calls}
        came = sum(min(x, 1.0) for x in number.values())
        if came > 0.0:
            total = sum(number.values())
            result[after] = [came / len(calls), total / came, *(sum(share[e] * traits[e] for e in edges) / total)]
    return result


@given(st.integers(0, 2**31), st.integers(1, 80))
@settings(max_examples=100, deadline=None)
def test_is_its_definition(seed, n):
    calls = random_calls(np.random.default_rng(seed), n)
    model = fit_successors(KINDS, *calls)
    for of in range(KINDS):
        for nth in (0, 3, 19):
            _, rows = model.after(np.array([of]), np.array([nth]))
            found = {
                int(model.kind[r]): [model.probability[r], model.number[r], *model.traits[r]] for r in rows.tolist()
            }
            wanted = plain(*calls, of, nth)
            assert found.keys() == wanted.keys()
            for after, numbers in wanted.items():
                assert found[after] == pytest.approx(numbers, rel=1e-9)
                assert 0.0 < numbers[0] <= 1.0 + 1e-9 and numbers[1] >= 1.0 - 1e-9


def test_rows_are_found_for_many_calls_at_once():
    model = fit_successors(KINDS, *random_calls(np.random.default_rng(1), 60))
    kind, nth = np.array([2, -1, 0, 1, 99]), np.array([0, 0, 5, 40, 0])
    whose, rows = model.after(kind, nth)
    single = [(k, r) for k in range(5) for r in model.after(kind[k : k + 1], nth[k : k + 1])[1].tolist()]
    assert list(zip(whose.tolist(), rows.tolist(), strict=True)) == single
    assert set(whose.tolist()) == {0, 2, 3}


def test_nothing_follows_where_nothing_was_seen():
    nothing = fit_successors(KINDS, [0, 1], [0, 0], [], [], np.zeros((0, len(TRAITS))))
    for model in (nothing, no_successors()):
        whose, rows = model.after(np.array([0, 1]), np.array([0, 3]))
        assert whose.size == rows.size == 0
