"""What is no pair problem is refused by name."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from hexopt.solvers.pairs import PairProblem, greedy_pairs, solve_pairs
from hexopt.solvers.problem import ProblemError

GOOD = {
    "prefill": [[1.0, 2.0], [1.0, np.inf]],
    "decode": [[3.0], [4.0]],
    "transfer": [[[0.1], [0.2]], [[0.1], [0.2]]],
    "tail": [0.0, 1.0],
    "workflow": [0, 0],
    "due": [5.0],
    "weight": [1.0],
    "kv": [3, 4],
    "kv_capacity": [5],
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prefill": [1.0]}, r"prefill has shape \(1,\), expected \(calls, instances\)"),
        ({"decode": [[], []]}, r"decode has shape \(2, 0\), expected \(calls, instances\)"),
        ({"decode": [[3.0]]}, r"decode has shape \(1, 1\), expected \(2, 1\)"),
        ({"transfer": [[0.1], [0.1]]}, r"transfer has shape \(2, 1\), expected \(2, 2, 1\)"),
        ({"prefill": [[1.0, 2.0], [np.nan, 1.0]]}, r"prefill\[1, 0\] is nan"),
        ({"prefill": [[1.0, 0.0], [1.0, 1.0]]}, r"prefill\[0, 1\] is 0, expected more than 0"),
        ({"transfer": [[[-0.1], [0.2]], [[0.1], [0.2]]]}, r"transfer\[0, 0, 0\] is -0.1, expected at least 0"),
        ({"due": [np.nan]}, r"due\[0\] is nan, expected a finite number"),
        ({"workflow": [0, 1]}, r"workflow\[1\] is 1, expected a whole number from 0 to 0"),
        ({"kv": [3, 4.5]}, r"kv\[1\] is 4.5, expected a whole number of at least 0"),
        ({"kv_capacity": [-1]}, r"kv_capacity\[0\] is -1, expected a whole number of at least 0"),
        ({"seats": [0]}, r"seats\[0\] is 0, expected a whole number of at least 1"),
        ({"kv_ready": [[np.nan], [1.0]]}, r"kv_ready\[0, 0\] is nan"),
        ({"bound": [0, 1]}, r"bound\[1\] is 1, expected a whole number from -1 to 0"),
        ({"prefill_free": [np.inf, 0.0]}, r"prefill_free\[0\] is inf"),
        ({"busy_instance": [0], "busy_until": [1.0], "busy_kv": [-2]}, r"busy_kv\[0\] is -2"),
        ({"kv": [3, 6]}, r"call 1: no pair .* hold\[1\]"),
        ({"prefill": [[1.0, 2.0], [np.inf, np.inf]]}, "call 1: no pair"),
        ({"weight": ["a"]}, "weight: expected numbers"),
    ],
)
def test_says_what_is_wrong(changes, message):
    with pytest.raises(ProblemError, match=message):
        PairProblem(**(GOOD | changes))


def test_a_call_without_a_pair_may_be_held_and_a_settled_one_needs_no_prefill():
    held = PairProblem(**(GOOD | {"kv": [3, 6], "hold": [np.inf, 9.0]}))
    assert greedy_pairs(held).decode.tolist() == [0, -1]
    settled = PairProblem(**(GOOD | {"prefill": [[1.0, 2.0], [np.inf, np.inf]], "kv_ready": [[np.inf], [1.0]]}))
    assert settled.settled.tolist() == [False, True]
    plan = greedy_pairs(settled)
    assert plan.prefill[1] == -1 and plan.decode.tolist() == [0, 0]


def test_without_calls_there_is_nothing_to_pay():
    empty = PairProblem(**(GOOD | {"prefill": np.ones((0, 2)), "decode": np.ones((0, 1)),
                                   "transfer": np.ones((0, 2, 1)), "tail": [], "workflow": [], "kv": []}))  # fmt: skip
    for solver in ("greedy", "annealing", "portfolio", "cp-sat"):
        plan = solve_pairs(empty, solver=solver)
        assert plan.objective == 0.0 and len(plan.order) == 0


def test_pickled_it_stays_the_same_and_read_only():
    problem = PairProblem(**GOOD)
    again = pickle.loads(pickle.dumps(problem))
    assert not again.prefill.flags.writeable
    assert greedy_pairs(again).objective == greedy_pairs(problem).objective


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"solver": "best"}, "'best': expected one of greedy"), ({"time_limit": 0.0}, "time_limit is 0.0")],
)
def test_says_which_solvers_there_are(arguments, message):
    with pytest.raises(ValueError, match=message):
        solve_pairs(PairProblem(**GOOD), **arguments)
