"""Why does a stage go where it goes? Each of its candidates with the rest of the plan as it is."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers import HELD, EpochProblem, ObjectiveWeights, Plan, evaluate

TERMS = tuple(field.name for field in fields(ObjectiveWeights))
"""Names of the objective's terms."""


@dataclass(frozen=True)
class Candidate:
    """One place for a stage.

    Parameters
    ----------
    instance
        -1 for held.
    finish
        Seconds from now at which it would end.
    objective
        Of the whole plan.
    terms
        What each term would cost more than on the chosen instance, weighted.
    """

    instance: int
    finish: float
    objective: float
    terms: dict[str, float]


@dataclass(frozen=True)
class Explanation:
    """A stage's candidates, the chosen one first, the others by what the plan would cost.

    ``margin`` is what the plan would cost more with the second one, infinite without one; ``decided`` the term that
    speaks most against it.
    """

    stage: int
    candidates: list[Candidate]
    margin: float
    decided: str


def explain(problem: EpochProblem, plan: Plan, stage: int) -> Explanation:
    """The candidates of ``stage``: every instance where it can run, and holding where it may be held."""
    p: Any = problem
    chosen = int(plan.instance[stage])
    places = [int(i) for i in np.flatnonzero(problem.feasible[stage])]
    places += [HELD] if np.isfinite(p.hold[stage]) or not places else []
    weights = {name: getattr(problem.weights, name) for name in TERMS}
    usual = evaluate(problem, plan.instance, plan.order)
    candidates = []
    for i in places:
        where: NDArray[np.int64] = plan.instance.copy()
        where[stage] = i
        found = evaluate(problem, where, plan.order)
        terms = {name: weights[name] * (found.terms[name] - usual.terms[name]) for name in TERMS}
        candidates.append(Candidate(i, float(found.completion[stage]), found.objective, terms))
    candidates.sort(key=lambda c: (c.instance != chosen, c.objective))
    if len(candidates) == 1:
        return Explanation(stage, candidates, float("inf"), "")
    second = candidates[1]
    margin = second.objective - usual.objective
    decided = max(TERMS, key=lambda name: second.terms[name])
    return Explanation(stage, candidates, margin, decided)
