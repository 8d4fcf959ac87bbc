"""Classical rules and their parameters; each rule, its source and what was assumed are in the module that it runs."""

# mypy: ignore-errors
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hexopt.policies import apparent_tardiness, clairvoyant, heft, shortest_remaining, workflow_fcfs
from hexopt.policies.linked import Linked, check_positive, mean_service
from hexopt.policies.policy import Fleet, Training


@dataclass(frozen=True)
class WorkflowFcfs(Linked):
    """Workflows first come first served."""

    name: ClassVar[str] = "workflow-fcfs"
    rule: ClassVar[Any] = workflow_fcfs


@dataclass(frozen=True)
class ShortestRemaining(Linked):
    """Shortest expected remaining time of the workflow first."""

    name: ClassVar[str] = "shortest-remaining"
    rule: ClassVar[Any] = shortest_remaining


@dataclass(frozen=True)
class ApparentTardiness(Linked):
    """Apparent tardiness cost.

    Parameters
    ----------
    k
        Look-ahead: how many mean services of slack count for little.
    """

    k: float = 2.0

    name: ClassVar[str] = "atc"
    rule: ClassVar[Any] = apparent_tardiness

    def __post_init__(self) -> None:
        check_positive(self, "k")

    def weights(self, training: Training) -> NDArray[np.float64]:
        return np.array([self.k])

    def table(self, fleet: Fleet, training: Training) -> NDArray[np.float64]:
        return np.array([[mean_service(fleet, training)]])


@dataclass(frozen=True)
class Heft(Linked):
    """Heterogeneous earliest finish time, online."""

    name: ClassVar[str] = "heft-like"
    rule: ClassVar[Any] = heft

    def weights(self, training: Training) -> NDArray[np.float64]:
        # Greedy urgency's: nothing for the imposed delay, the prefix caches looked into.
        return np.array([0.0, 1.0, 0.0, 1.0])


@dataclass(frozen=True)
class Clairvoyant(Linked):
    """A rule that knows the truth.

    Parameters
    ----------
    order
        Whose expectations it replaces: ``remaining``, ``laxity`` or ``urgency``.
    """

    order: str = "remaining"

    name: ClassVar[str] = "clairvoyant"
    rule: ClassVar[Any] = clairvoyant
    per_workflow: ClassVar[int] = 1
    live: ClassVar[bool] = False

    def __post_init__(self) -> None:
        from hexopt.policies.registry import PolicyError

        if self.order not in clairvoyant.ORDERS:
            raise PolicyError(f"order is {self.order!r}, expected one of {', '.join(clairvoyant.ORDERS)}")

    def weights(self, training: Training) -> NDArray[np.float64]:
        return np.array([1.0, 1.0, 0.75, 1.0, clairvoyant.ORDERS.index(self.order)])
