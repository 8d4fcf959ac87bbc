"""A plan: where every stage goes and in what order; what it costs under the one judge, and what a solver claims."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

HELD = -1
"""Instance of a stage that is held, or that fits nowhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What a plan costs.

    Parameters
    ----------
    objective
        The weighted sum of the terms.
    terms
        The terms before their weights, by the names of :class:`hexopt.solvers.problem.ObjectiveWeights`.
    start, completion
        Seconds from now of each stage, NaN for one without an instance (its completion is ``hold`` if it is held).
        Shape (n,).
    tardiness
        Seconds of each workflow, shape (q,).
    """

    objective: float
    terms: dict[str, float]
    start: NDArray[np.float64]
    completion: NDArray[np.float64]
    tardiness: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A solver's answer.

    Parameters
    ----------
    instance
        Of each stage, ``HELD`` for none. Shape (n,).
    order
        The stages, first to be dispatched first; an instance takes its own in this order. Shape (n,).
    objective
        As the judge finds it.
    bound
        No plan costs less; minus infinity if nothing is known.
    solver, seconds
        Who found it, and how long that took.
    status
        ``feasible``, or ``optimal`` if it is proven.
    """

    instance: NDArray[np.int64]
    order: NDArray[np.int64]
    objective: float
    bound: float = -math.inf
    solver: str = ""
    seconds: float = 0.0
    status: str = field(default="feasible")

    @property
    def gap(self) -> float:
        """(objective - bound) / |objective|, infinite without a bound, 0 where both are 0."""
        return gap_between(self.objective, self.bound)


def gap_between(objective: float, bound: float) -> float:
    """(objective - bound) / abs(objective), infinite without a bound, 0 where both are 0."""
    difference = objective - bound
    if difference == 0.0:
        return 0.0
    return difference / abs(objective) if objective else math.inf
