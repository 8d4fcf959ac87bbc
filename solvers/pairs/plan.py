"""A plan of pairs: where every call prefills and decodes, in what order; what it costs, and what a solver claims."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.plan import gap_between


@dataclass(frozen=True, slots=True, eq=False)
class PairPlan:
    """A solver's answer.

    Parameters
    ----------
    prefill
        Prefill instance of each call; ``HELD`` (-1) if it is held or its prefill is settled. Shape (n,).
    decode
        Decode instance of each call; ``HELD`` if it is held. Shape (n,).
    order
        The calls, first to go first: prefill instances take theirs in this order, and so do decode instances among
        those whose KV cache is there. Shape (n,).
    objective
        As the judge finds it.
    bound
        No plan costs less; minus infinity if nothing is known.
    solver, seconds
        Who found it, and how long that took.
    status
        ``feasible``, or ``optimal`` if it is proven.
    """

    prefill: NDArray[np.int64]
    decode: NDArray[np.int64]
    order: NDArray[np.int64]
    objective: float = math.nan
    bound: float = -math.inf
    solver: str = ""
    seconds: float = 0.0
    status: str = "feasible"

    @property
    def gap(self) -> float:
        """(objective - bound) / abs(objective), infinite without a bound, 0 where both are 0."""
        return gap_between(self.objective, self.bound)


@dataclass(frozen=True, slots=True, eq=False)
class PairEvaluation:
    """What a plan costs.

    Parameters
    ----------
    objective
        The weighted sum of the terms.
    terms
        The terms before their weights, by the names of :class:`hexopt.solvers.problem.ObjectiveWeights`.
    prefill_start, kv_ready, decode_start, completion
        Seconds from now of each call, NaN where it has none; a held call ends at ``hold``. Shape (n,).
    tardiness
        Seconds of each workflow, shape (q,).
    """

    objective: float
    terms: dict[str, float]
    prefill_start: NDArray[np.float64]
    kv_ready: NDArray[np.float64]
    decode_start: NDArray[np.float64]
    completion: NDArray[np.float64]
    tardiness: NDArray[np.float64]
