"""What a race showed: gaps of every solver and limit, by load and by size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hexopt.research.gap.race import FAILED, Raced, gap
from hexopt.research.gap.sizes import Estimate, size_class, size_label, stratified
from hexopt.solvers.exact import PROVEN


@dataclass(frozen=True)
class Problem:
    """A problem that was raced.

    Parameters
    ----------
    name
        Of its file.
    load
        What tells the loads apart, for people; empty where it is not known.
    stages
        n.
    stands_for
        Epochs that it stands for.
    raced
        The answers, and the best that is known.
    """

    name: str
    load: str
    stages: int
    stands_for: float
    raced: Raced


@dataclass(frozen=True)
class GapRow:
    """A solver and its limit on a group of problems.

    Parameters
    ----------
    load, size
        The group; empty for all loads, and for all sizes. Size "2 or more" is all but single stages.
    effort
        Solver and limit.
    problems, epochs
        How many were solved, and how many epochs they stand for.
    seconds
        Median of a solve.
    above_best
        Mean gap to the best known plan.
    above_bound
        Mean gap to the best proven bound; NaN where a problem has none.
    worst
        Largest gap to the best known plan.
    best, proven
        Share of the epochs with the best known plan, and with a plan that the best bound proves to be the best.
    failed
        Problems on which it raised an error.
    """

    load: str
    size: str
    effort: str
    problems: int
    epochs: float
    seconds: float
    above_best: Estimate
    above_bound: Estimate
    worst: float
    best: float
    proven: float
    failed: int


SEVERAL = "2 or more"
"""Name of the group of all epochs with something to plan together."""


def gap_rows(problems: Sequence[Problem]) -> list[GapRow]:
    """A row for every group and effort: all, by load, by size, and by size of each load."""
    loads = list(dict.fromkeys(problem.load for problem in problems))
    rows: list[GapRow] = []
    for load in ["", *(loads if len(loads) > 1 else [])]:
        of_load = [p for p in problems if load in ("", p.load)]
        rows += _rows(load, "", of_load)
        several = [p for p in of_load if p.stages > 1]
        if several and len(several) < len(of_load):
            rows += _rows(load, SEVERAL, several)
        sizes = sorted({size_class(p.stages) for p in of_load})
        for size in sizes if len(sizes) > 1 else []:
            rows += _rows(load, size_label(size), [p for p in of_load if size_class(p.stages) == size])
    return rows


def _rows(load: str, size: str, problems: Sequence[Problem]) -> list[GapRow]:
    efforts = [answer.effort for answer in problems[0].raced.answers]
    # Loads were sampled apart, so sizes of different loads are different strata.
    strata = [stratum_of(p) for p in problems]
    numbers = {stratum: k for k, stratum in enumerate(dict.fromkeys(strata))}
    stratum = [numbers[s] for s in strata]
    weight = np.array([p.stands_for for p in problems])
    rows = []
    for k, effort in enumerate(efforts):
        answers = [p.raced.answers[k] for p in problems]
        pairs = list(zip(answers, problems, strict=True))
        above_best = [max(0.0, gap(a.objective, p.raced.known.objective)) for a, p in pairs]
        above_bound = [max(0.0, gap(a.objective, p.raced.known.bound)) for a, p in pairs]
        rows.append(
            GapRow(
                load=load,
                size=size,
                effort=effort,
                problems=len(problems),
                epochs=float(weight.sum()),
                seconds=float(np.median([a.seconds for a in answers])),
                above_best=stratified(above_best, stratum, weight),
                above_bound=stratified(above_bound, stratum, weight),
                worst=max(above_best),
                best=_share(above_best, weight),
                proven=_share(above_bound, weight),
                failed=sum(a.status == FAILED for a in answers),
            )
        )
    return rows


def stratum_of(problem: Problem) -> tuple[str, int]:
    """The stratum that a problem was sampled from."""
    return problem.load, size_class(problem.stages)


def _share(gaps: Sequence[float], weight: np.ndarray[Any, Any]) -> float:
    return float(weight[np.asarray(gaps) <= PROVEN].sum() / weight.sum())


def answer_rows(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """One flat row a problem and effort, for a table."""
    rows = []
    for p in problems:
        known = p.raced.known
        for a in p.raced.answers:
            rows.append(
                {
                    "problem": p.name,
                    "load": p.load,
                    "stages": p.stages,
                    "stands_for": p.stands_for,
                    "effort": a.effort,
                    "seconds": a.seconds,
                    "objective": a.objective,
                    "bound": a.bound,
                    "status": a.status,
                    "best_known": known.objective,
                    "best_bound": known.bound,
                    "above_best": max(0.0, gap(a.objective, known.objective)),
                    "above_bound": max(0.0, gap(a.objective, known.bound)),
                }
            )
    return rows


def curve(rows: Sequence[GapRow], load: str, size: str, solver: str) -> list[GapRow]:
    """The rows of one solver in a group, by time."""
    own = [r for r in rows if (r.load, r.size) == (load, size) and r.effort.partition(":")[0] == solver]
    return sorted(own, key=lambda row: row.seconds if math.isfinite(row.seconds) else 0.0)
