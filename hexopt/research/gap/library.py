"""A folder of epoch problems with the best that is known of each, as ``docs/research.md`` describes it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hexopt.atomic import atomic_write
from hexopt.research.gap.race import Known
from hexopt.solvers import EpochProblem, evaluate
from hexopt.solvers.files import problem_from
from hexopt.solvers.problem import ProblemError

INDEX = "best_known.json"
FORMAT, VERSION = "hexopt epoch problems", 1
_EXACT = 1e-9
"""Relative difference to the judge's objective that an entry may have."""


class LibraryError(ValueError):
    """A folder of problems that cannot be read; the message names the file, and the problem and field."""


@dataclass(frozen=True)
class Entry:
    """A problem of the folder.

    Parameters
    ----------
    name
        Of its file.
    text
        What the file holds.
    problem
        The same, read.
    facts
        Where it comes from: ``rate``, ``load``, ``seed``, ``at_s``, ``stands_for``, as far as is known.
    known
        The best that is known; None of a problem that nobody has solved.
    """

    name: str
    text: str
    problem: EpochProblem
    facts: Mapping[str, Any]
    known: Known | None


def write_library(folder: Path, about: Mapping[str, Any], entries: list[Entry]) -> None:
    """Write the problems and the index; files of the same names are written over."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        with atomic_write(folder / entry.name) as stream:
            stream.write(entry.text)
    write_index(folder, about, entries)


def write_index(folder: Path, about: Mapping[str, Any], entries: list[Entry]) -> None:
    """Write what is known of the problems."""
    document = {"format": FORMAT, "version": VERSION, "about": dict(about), "problems": {}}
    for entry in entries:
        row = {
            "sha256": _digest(entry.text),
            "stages": entry.problem.stages,
            "instances": entry.problem.instances,
            **entry.facts,
        }
        if entry.known is not None:
            known = entry.known
            row |= {
                "objective": known.objective,
                "bound": known.bound if math.isfinite(known.bound) else None,
                "status": known.status,
                "solver": known.solver,
                "bound_by": known.bound_by,
                "instance": list(known.instance),
                "order": list(known.order),
            }
        document["problems"][entry.name] = row
    with atomic_write(folder / INDEX) as stream:
        stream.write(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_library(folder: Path) -> tuple[dict[str, Any], list[Entry]]:
    """What the folder holds: every problem in it, with each known plan scored by the judge.

    Raises
    ------
    LibraryError
        Naming the file, and the problem and field where one is wrong: a problem that changed or is missing, a plan
        that cannot be, or does not cost what is said.
    """
    if not folder.is_dir():
        raise LibraryError(f"{folder}: there is no such folder")
    index = folder / INDEX
    document: dict[str, Any] = {"about": {}, "problems": {}}
    if index.exists():
        document = _index(index)
    names = sorted({*document["problems"], *(path.name for path in folder.glob("*.json") if path.name != INDEX)})
    if not names:
        raise LibraryError(f"{folder}: holds no epoch problem (*.json)")
    return document["about"], [_entry(folder, name, document["problems"].get(name, {})) for name in names]


def _index(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LibraryError(f"{path}: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise LibraryError(f"{path}: format is not {FORMAT!r}")
    if document.get("version") != VERSION:
        raise LibraryError(f"{path}: version is {document.get('version')!r}, expected {VERSION}")
    for name in ("about", "problems"):
        if not isinstance(document.get(name), dict):
            raise LibraryError(f"{path}: {name} is missing, expected an object")
    return document


def _entry(folder: Path, name: str, row: Any) -> Entry:
    place = f"{folder / INDEX}: {name}"
    if not isinstance(row, dict):
        raise LibraryError(f"{place}: expected an object")
    path = folder / name
    try:
        text = path.read_text(encoding="utf-8")
        problem = problem_from(json.loads(text))
    except FileNotFoundError:
        raise LibraryError(f"{place}: there is no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, ProblemError) as error:
        raise LibraryError(f"{path}: {error}") from None
    if "sha256" in row and row["sha256"] != _digest(text):
        raise LibraryError(f"{place}: sha256 is another one: the problem was changed")
    facts = {key: row[key] for key in ("rate", "load", "seed", "at_s", "stands_for") if key in row}
    stands_for = facts.get("stands_for", 1.0)
    if not _number(stands_for) or stands_for < 1.0:
        raise LibraryError(f"{place}: stands_for is {stands_for!r}, expected a number of at least 1")
    return Entry(name, text, problem, facts, _known(place, problem, row) if "objective" in row else None)


def _known(place: str, problem: EpochProblem, row: dict[str, Any]) -> Known:
    for key in ("objective", "bound"):
        if not _number(row.get(key)) and not (key == "bound" and row.get(key) is None):
            raise LibraryError(f"{place}: {key} is {row.get(key)!r}, expected a number")
    try:
        instance, order = (np.array(row[key], dtype=np.int64) for key in ("instance", "order"))
        found = evaluate(problem, instance, order)
    except KeyError as error:
        raise LibraryError(f"{place}: {error.args[0]} is missing") from None
    except (TypeError, ValueError) as error:
        raise LibraryError(f"{place}: {error}") from None
    objective = float(row["objective"])
    if abs(found.objective - objective) > _EXACT * max(1.0, abs(found.objective)):
        raise LibraryError(f"{place}: objective is {objective:.9g}, but its plan costs {found.objective:.9g}")
    bound = -math.inf if row.get("bound") is None else float(row["bound"])
    return Known(
        found.objective, tuple(instance.tolist()), tuple(order.tolist()), str(row.get("solver", "")), bound,
        str(row.get("bound_by", "")),
    )  # fmt: skip


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
