"""Solvers on the same epoch problems: every plan scored by the one judge, the best one and the best bound kept."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hexopt.research.gap.effort import Effort
from hexopt.scheduler import warm_up
from hexopt.solvers import EpochProblem, evaluate, greedy
from hexopt.solvers.exact import PROVEN
from hexopt.solvers.extras import MissingExtraError
from hexopt.solvers.files import problem_from

_log = logging.getLogger(__name__)

FAILED = "failed"
"""Status of a solver that raised an error or left stages out; its answer is greedy insertion's plan."""


_SAME = 1e-9
"""Relative difference below which two objectives are the same."""


@dataclass(frozen=True)
class Answer:
    """What a solver made of a problem.

    Parameters
    ----------
    effort
        Label of the solver and its limit.
    objective
        As the judge finds it.
    bound
        As the solver claims it; minus infinity without one.
    seconds
        From handing over the arrays to the plan.
    status
        The solver's, or ``failed``.
    """

    effort: str
    objective: float
    bound: float
    seconds: float
    status: str


@dataclass(frozen=True)
class Known:
    """The best that is known of a problem.

    Parameters
    ----------
    objective, instance, order, solver
        The cheapest plan, and who found it.
    bound, bound_by
        The highest bound, and whose it is; minus infinity and empty without one.
    """

    objective: float
    instance: tuple[int, ...]
    order: tuple[int, ...]
    solver: str
    bound: float = -math.inf
    bound_by: str = ""

    @property
    def status(self) -> str:
        """``optimal`` where the bound proves it, ``feasible`` otherwise."""
        return "optimal" if gap(self.objective, self.bound) <= PROVEN else "feasible"


@dataclass(frozen=True)
class Raced:
    """All answers to one problem, and the best that is known after them."""

    answers: tuple[Answer, ...]
    known: Known


def gap(objective: float, reference: float) -> float:
    """(objective - reference) / |objective|, 0 where both are the same, infinite without a reference."""
    if objective == reference:
        return 0.0
    return (objective - reference) / abs(objective) if objective else math.inf


def race(efforts: tuple[Effort, ...], text: str) -> Raced:
    """Every effort on the problem that the JSON ``text`` holds."""
    problem = problem_from(json.loads(text))
    for effort in efforts:
        warm_up(effort.solver)
    answers, known = [], None
    for effort in efforts:
        answer, found = attempt(problem, effort)
        answers.append(answer)
        known = found if known is None else better_of(known, found)
    assert known is not None
    return Raced(tuple(answers), known)


def attempt(problem: EpochProblem, effort: Effort) -> tuple[Answer, Known]:
    """One effort on a problem."""
    started = time.perf_counter()
    status = ""
    try:
        plan = effort.plan(problem)
        objective = evaluate(problem, plan.instance, plan.order).objective
    except MissingExtraError:
        raise
    except Exception:
        _log.exception("%s failed on %d stages", effort.label, problem.stages)
        plan, status = greedy(problem), FAILED
        objective = plan.objective
    seconds = time.perf_counter() - started
    # A bound at the plan's own objective may pass it by what sums in another order differ.
    bound = min(plan.bound, objective)
    answer = Answer(effort.label, objective, bound, seconds, status or plan.status)
    by = effort.label if math.isfinite(bound) else ""
    return answer, Known(objective, tuple(plan.instance.tolist()), tuple(plan.order.tolist()), effort.label, bound, by)


def better_of(before: Known, found: Known) -> Known:
    """The cheaper plan with the higher bound; what was there before where neither is better.

    A bound that the cheaper plan refutes is dropped, with an error in the log.
    """
    plan = found if before.objective - found.objective > _SAME * abs(before.objective) else before
    bound, by = -math.inf, ""
    for claim in (before, found):
        if gap(plan.objective, claim.bound) < -PROVEN:
            _log.error(
                "the bound %.9g of %s is refuted by a plan of %s that costs %.9g",
                claim.bound, claim.bound_by, plan.solver, plan.objective,
            )  # fmt: skip
        elif claim.bound > bound:
            bound, by = claim.bound, claim.bound_by
    return replace(plan, bound=min(bound, plan.objective), bound_by=by)


def names(efforts: Sequence[Effort]) -> list[str]:
    """Labels, in order, each once."""
    return list(dict.fromkeys(effort.label for effort in efforts))
