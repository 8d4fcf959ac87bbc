"""The epoch problem as data."""

from __future__ import annotations

import pickle
from dataclasses import fields

import numpy as np
from solver_problems import random_problem


def test_a_problem_stays_read_only_in_another_process() -> None:
    problem = random_problem(np.random.default_rng(0), 4, 3)
    copy = pickle.loads(pickle.dumps(problem))
    for field in fields(problem):
        array = getattr(problem, field.name)
        if isinstance(array, np.ndarray):
            np.testing.assert_array_equal(getattr(copy, field.name), array)
            assert not getattr(copy, field.name).flags.writeable, field.name
