"""The rolling horizon's settings; :mod:`hexopt.scheduler` is what runs."""

# mypy: ignore-errors
from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hexopt.policies import compiled, greedy_urgency
from hexopt.policies.knowledge import Knowledge
from hexopt.policies.linking import hands_over
from hexopt.policies.policy import Fleet, Policy, Training


@dataclass(frozen=True)
class RollingHorizon(Policy):
    """HexOpt's scheduler: an epoch problem solved on events and on a timer, greedy urgency in between.

    Parameters
    ----------
    solver
        A name of :data:`hexopt.solvers.SOLVERS`.
    objective
        What is minimised: a preset of :data:`hexopt.objective.PRESETS`, with weights after a colon.
    epoch
        Seconds between solves while nothing happens.
    floor
        Seconds between solves at least; what becomes ready in between is placed by greedy urgency.
    time_limit
        Seconds that a solve may take.
    late_binding
        Whether stages wait in the scheduler until their instance can start them.
    reassign
        Whether waiting stages are planned anew.
    congestion
        Whether the epoch problem knows that its stages will delay each other.
    tail_share
        Due dates are tightened by the tail that this share of workflows stays within; 0: by the expected tail.
    lookahead
        Seconds within which a running call must be predicted to end for room to be left for its expected successors;
        0: only ready stages are planned.
    together
        Stages an instance that are planned together at most, the most urgent ones; greedy urgency places the others one
        by one, each with the former ones on the board. 0: all are planned together.
    freeze
        Whether solving takes no simulated time and search is limited by moves, so that runs repeat bit for bit.
    moves
        Moves of annealing a stage where ``freeze`` is set.
    solve_seconds
        Simulated seconds that a solve takes; 0: as long as it really took.
    spoil
        Gap up to which each plan is made worse at random before it is followed, 0 to below 1: an experiment about what
        a gap costs (:func:`hexopt.solvers.spoiling.spoil`).
    """

    solver: str = "annealing"
    objective: str = "deadline"
    epoch: float = 0.2
    floor: float = 0.005
    time_limit: float = 0.02
    late_binding: bool = True
    reassign: bool = True
    congestion: bool = True
    tail_share: float = 0.0
    lookahead: float = 0.0
    together: float = 2.0
    freeze: bool = False
    moves: float = 300
    solve_seconds: float = 0.0
    spoil: float = 0.0

    name: ClassVar[str] = "rolling-horizon"
    code: ClassVar[int] = compiled.PLANNER

    def __post_init__(self) -> None:
        from hexopt.objective import make_objective
        from hexopt.policies.registry import PolicyError
        from hexopt.solvers import SOLVERS

        if self.solver not in SOLVERS:
            raise PolicyError(f"solver {self.solver!r}: expected one of {', '.join(SOLVERS)}")
        for name in ("epoch", "time_limit"):
            if not (0.0 < getattr(self, name) < math.inf):
                raise PolicyError(f"{name} is {getattr(self, name)}, expected more than 0 seconds")
        for name in ("floor", "solve_seconds", "lookahead", "together"):
            if not (0.0 <= getattr(self, name) < math.inf):
                raise PolicyError(f"{name} is {getattr(self, name)}, expected at least 0 seconds")
        if not (self.moves >= 1 and self.moves == int(self.moves)):
            raise PolicyError(f"moves is {self.moves:g}, expected a whole number of at least 1")
        for name in ("tail_share", "spoil"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise PolicyError(f"{name} is {getattr(self, name)}, expected 0 to below 1")
        make_objective(self.objective)

    @property
    def label(self) -> str:
        usual = RollingHorizon(solver=self.solver, objective=self.objective)
        changed = [self.objective] if self.objective != "deadline" else []
        for name in (field.name for field in fields(RollingHorizon)):
            value = getattr(self, name)
            if value != getattr(usual, name) and name not in ("freeze", "solve_seconds"):
                changed.append(f"{name}={str(value).lower() if isinstance(value, bool) else f'{value:g}'}")
        return f"{self.name}({', '.join([self.solver, *changed])})"

    def weights(self, training: Training) -> NDArray[np.float64]:
        from hexopt.objective import make_objective

        objective = make_objective(self.objective)
        return np.array([objective.weights.imposed, 1.0, objective.urgency, objective.lost])

    def place(self, board: Any, know: Knowledge, r: int, now: float) -> tuple[int, float]:
        """Where greedy urgency places a call: what the horizon does with one on its own."""
        i = int(compiled.place(compiled.GREEDY_URGENCY, board, know, r, now))
        return i, float(board.stage["priority"][r])

    def linked(self, board: Any, know: Knowledge) -> tuple[int, ...]:
        return hands_over(greedy_urgency.handed, board, know)

    def scheduler(self, fleet: Fleet) -> Any:
        from hexopt.scheduler import Scheduler

        return Scheduler(self, fleet)
