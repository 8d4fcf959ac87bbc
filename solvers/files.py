"""Epoch problems as JSON files: the arrays by name, null for infinite, weights as a table."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from hexopt.solvers.problem import EpochProblem, ObjectiveWeights, ProblemError


def read_problem(path: Path) -> EpochProblem:
    """The problem in a JSON file.

    Raises
    ------
    ProblemError
        Naming the file, and the array and place that is wrong or missing.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProblemError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ProblemError(f"{path}: {error}") from None
    try:
        return problem_from(table)
    except ProblemError as error:
        raise ProblemError(f"{path}: {error}") from None


def problem_from(table: Any) -> EpochProblem:
    """The problem that a decoded JSON object holds; errors as :func:`read_problem`'s."""
    if not isinstance(table, dict):
        raise ProblemError("expected an object of arrays")
    names = {field.name: field for field in fields(EpochProblem)}
    for name in table:
        if name not in names:
            raise ProblemError(f"{name!r} is unknown; there are {', '.join(names)}")
    required = ("service", "tail", "workflow", "due", "weight", "seats", "kv_capacity", "kv")
    for name in required:
        if name not in table:
            raise ProblemError(f"{name} is missing")
    arrays = {name: _array(name, value) for name, value in table.items() if name != "weights"}
    return EpochProblem(**arrays, weights=_weights(table.get("weights", {})))


def _weights(table: Any) -> ObjectiveWeights:
    if not isinstance(table, dict):
        raise ProblemError("weights: expected an object of numbers")
    known = [field.name for field in fields(ObjectiveWeights)]
    for name, value in table.items():
        if name not in known:
            raise ProblemError(f"weights: {name!r} is unknown; there are {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ProblemError(f"weights: {name} is {value!r}, expected a number")
    return ObjectiveWeights(**table)


def _array(name: str, value: Any) -> Any:
    def number(item: Any) -> Any:
        if item is None:
            return math.inf
        return [number(x) for x in item] if isinstance(item, list) else item

    if not isinstance(value, list):
        raise ProblemError(f"{name}: expected an array")
    try:
        return np.array(number(value), dtype=np.float64)
    except (TypeError, ValueError):
        raise ProblemError(f"{name}: expected an array of numbers whose rows are equally long") from None


def problem_table(problem: EpochProblem) -> dict[str, Any]:
    """What :func:`problem_from` reads."""

    def finite(item: Any) -> Any:
        if isinstance(item, list):
            return [finite(x) for x in item]
        return None if isinstance(item, float) and math.isinf(item) else item

    table: dict[str, Any] = {}
    for field in fields(EpochProblem):
        if field.name != "weights":
            table[field.name] = finite(np.asarray(getattr(problem, field.name)).tolist())
    return table | {"weights": asdict(problem.weights)}
