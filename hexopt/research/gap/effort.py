"""How hard a plan is sought: a solver, and its limit in time or in moves."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hexopt.solvers import SOLVERS, EpochProblem, Plan, anneal, greedy, solve
from hexopt.solvers.spoiling import spoil

UNLIMITED = frozenset({"greedy"})
"""Solvers that take no limit."""
SPOILED = "spoiled"
"""Annealing's plans made worse at random: no solver, but the other end of the scale."""
USUAL_MOVES = 300
"""Of annealing a stage, as the rolling horizon has them where its solver is frozen."""


class EffortError(ValueError):
    """An effort that cannot be; the message names the flag and what was expected."""


@dataclass(frozen=True)
class Effort:
    """A solver and its limit.

    Parameters
    ----------
    solver
        A name of :data:`hexopt.solvers.SOLVERS`.
    limit_s
        Seconds; None without a limit in time.
    moves
        Moves of annealing a stage; None without a limit in moves.
    spoil
        Gap up to which the plan is made worse at random (:func:`hexopt.solvers.spoiling.spoil`).
    """

    solver: str
    limit_s: float | None = None
    moves: int | None = None
    spoil: float = 0.0

    @property
    def label(self) -> str:
        """As :func:`effort_from` reads it."""
        if self.spoil:
            return f"{SPOILED}:{100 * self.spoil:g}%"
        if self.moves is not None:
            return f"{self.solver}:{self.moves}"
        if self.limit_s is None:
            return self.solver
        return f"{self.solver}:{1e3 * self.limit_s:g}ms" if self.limit_s < 1.0 else f"{self.solver}:{self.limit_s:g}s"

    @property
    def timed(self) -> bool:
        """Whether the plan depends on the clock."""
        return self.limit_s is not None

    def plan(self, problem: EpochProblem, seed: int = 0) -> Plan:
        """What comes of it, as the rolling horizon would have it with this effort."""
        if problem.stages == 1 and not self.timed:
            found = greedy(problem)
        elif self.moves is not None:
            found = anneal(problem, time_limit=None, moves=self.moves * problem.stages, seed=seed)
        else:
            found = solve(problem, solver=self.solver, time_limit=self.limit_s or 1.0, seed=seed)
        return spoil(problem, found, self.spoil, seed=seed) if self.spoil else found

    def policy(self, objective: str) -> str:
        """The rolling horizon at this effort, frozen, as :func:`hexopt.policies.registry.make_policy` reads it."""
        settings = {"objective": objective, "solver": self.solver, "freeze": "true"}
        if self.moves is not None:
            settings["moves"] = str(self.moves)
        if self.limit_s is not None:
            settings["time_limit"] = f"{self.limit_s:g}"
        if self.spoil:
            settings["spoil"] = f"{self.spoil:g}"
        return "rolling-horizon:" + ",".join(f"{name}={value}" for name, value in settings.items())


def effort_from(text: str, flag: str) -> Effort:
    """``greedy``, ``annealing:300`` (moves a stage), ``exact:1s`` or ``spoiled:5%``.

    Raises
    ------
    EffortError
        Naming ``flag``.
    """
    name, _, limit = text.partition(":")
    if name == SPOILED:
        if not re.fullmatch(r"\d+(\.\d+)?%", limit) or not 0.0 < float(limit[:-1]) < 100.0:
            raise EffortError(f"{flag}: {text!r}, expected a gap below 100% such as {SPOILED}:5%")
        return Effort("annealing", moves=USUAL_MOVES, spoil=float(limit[:-1]) / 100.0)
    if name not in SOLVERS:
        raise EffortError(f"{flag}: solver {name!r} is unknown; there are {', '.join((*SOLVERS, SPOILED))}")
    if name in UNLIMITED:
        if limit:
            raise EffortError(f"{flag}: {text!r}: {name} takes no limit")
        return Effort(name)
    if name == "annealing" and limit.isdigit():
        if not int(limit):
            raise EffortError(f"{flag}: {text!r}, expected at least one move a stage")
        return Effort(name, moves=int(limit))
    time = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", limit)
    if time is None or not float(time[1]):
        how = "moves a stage or a time, such as annealing:300 or annealing:20ms"
        raise EffortError(f"{flag}: {text!r}, expected {how if name == 'annealing' else f'a time such as {name}:20ms'}")
    return Effort(name, limit_s=float(time[1]) * (1e-3 if time[2] == "ms" else 1.0))


def contenders(solvers: list[str], limits_s: list[float]) -> list[Effort]:
    """Every solver at every limit; those that take none once."""
    found = []
    for name in solvers:
        found += [Effort(name)] if name in UNLIMITED else [Effort(name, limit_s=limit) for limit in limits_s]
    return found
