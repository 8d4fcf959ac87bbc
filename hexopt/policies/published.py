"""Classical and published rules, and their parameters; each rule and its source are in the module that it runs.

Names that end in ``-style`` are re-implementations of published systems in this simulator, adapted where it has no
such mechanism; docs/policies.md lists what was assumed and what deviates.
"""

# mypy: ignore-errors
from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numba import types
from numpy.typing import NDArray

from hexopt.models.lengths import PROMPT_BUCKETS
from hexopt.models.tallies import shrunken_mean
from hexopt.policies import (
    agentmath,
    apparent_tardiness,
    autellix,
    clairvoyant,
    compiled,
    heft,
    infaas,
    justitia,
    shortest_remaining,
    workflow_fcfs,
)
from hexopt.policies.knowledge import Knowledge, alone_seconds
from hexopt.policies.linking import address_of
from hexopt.policies.policy import Fleet, Policy, Training


def mean_service(fleet: Fleet, training: Training) -> float:
    """Mean seconds of the training's calls, alone on the mean instance."""
    mean, budget = fleet.coef.mean(axis=0), float(fleet.max_batched[0])
    calls = training.calls if training.calls.any() else np.ones(len(training.kinds))
    seconds = [alone_seconds(mean, p, 0.0, o, budget) for p, o in zip(training.prompt, training.output, strict=True)]
    return float(np.dot(calls / calls.sum(), seconds))


class Linked(Policy):
    """A policy that the event loop asks by address, see :mod:`hexopt.policies.linking`."""

    code: ClassVar[int] = compiled.LINKED
    rule: ClassVar[Any]
    """The module with its kernels."""

    @property
    def label(self) -> str:
        changed = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]
        shown = ", ".join(
            f"{name}={str(v).lower() if isinstance(v, bool) else v if isinstance(v, str) else f'{v:g}'}"
            for name, v in changed
        )
        return f"{self.name}({shown})" if shown else self.name

    def place(self, board: Any, know: Knowledge, r: int, now: float) -> tuple[int, float]:
        i = int(self.rule.place(board, know, int(r), float(now)))
        return i, float(board.stage["priority"][r])

    def linked(self, board: Any, know: Knowledge) -> tuple[int, int]:
        return (
            address_of(self.rule.place, board, know, types.int64, types.float64),
            address_of(getattr(self.rule, "ended", None), board, know, types.int64),
        )


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


@dataclass(frozen=True)
class Infaas(Linked):
    """Llumnix's dispatch without migration.

    Parameters
    ----------
    head_only
        Whether only the first waiting call's demand counts, as in the paper, or all, as in the published code.
    """

    head_only: bool = False

    name: ClassVar[str] = "infaas-style"
    rule: ClassVar[Any] = infaas
    by_priority: ClassVar[bool] = False

    def weights(self, training: Training) -> NDArray[np.float64]:
        return np.array([float(self.head_only)])


@dataclass(frozen=True)
class AutellixPlas(Linked):
    """Autellix's program-level attained service.

    Parameters
    ----------
    queues
        How many there are.
    quantum
        Seconds of service at which the first one's bin ends; 0: the mean service of a call.
    beta
        Waiting over service from which a program starves.
    long
        Prompt tokens above which a call keeps to its program's engine.
    by_speed
        Whether an engine's use is divided by its speed.
    """

    queues: float = 8.0
    quantum: float = 0.0
    beta: float = 10.0
    long: float = 2048.0
    by_speed: bool = True

    name: ClassVar[str] = "autellix-plas-style"
    rule: ClassVar[Any] = autellix
    per_workflow: ClassVar[int] = autellix.COLUMNS
    live: ClassVar[bool] = False
    critical_path: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive(self, "queues", "beta")

    def weights(self, training: Training) -> NDArray[np.float64]:
        return np.array(
            [self.critical_path, self.queues, self.quantum, self.beta, self.long, self.by_speed], dtype=np.float64
        )

    def table(self, fleet: Fleet, training: Training) -> NDArray[np.float64]:
        return np.array([[mean_service(fleet, training)]])


@dataclass(frozen=True)
class AutellixAtlas(AutellixPlas):
    """Autellix's attained service along the critical path."""

    name: ClassVar[str] = "autellix-atlas-style"
    critical_path: ClassVar[bool] = True


@dataclass(frozen=True)
class Justitia(Linked):
    """Justitia's virtual-time fair queueing."""

    name: ClassVar[str] = "justitia-style"
    rule: ClassVar[Any] = justitia
    per_workflow: ClassVar[int] = justitia.COLUMNS
    live: ClassVar[bool] = False

    def weights(self, training: Training) -> NDArray[np.float64]:
        calls = training.calls if training.calls.any() else np.ones(len(training.kinds))
        return np.array([np.average(training.prompt + training.output / 2.0, weights=calls)])

    def memory(self, fleet: Fleet) -> NDArray[np.float64]:
        return np.zeros(justitia.MEMORY)

    def table(self, fleet: Fleet, training: Training) -> NDArray[np.float64]:
        """Expected cost of a workflow by its first call's kind and prompt, shape (kinds, buckets)."""
        if training.costs is None:
            return np.ones((len(training.kinds), PROMPT_BUCKETS))
        return np.array(
            [
                [shrunken_mean(training.costs, kind, bucket, 0.0, 0.0) for bucket in range(PROMPT_BUCKETS)]
                for kind in range(len(training.kinds))
            ]
        )


@dataclass(frozen=True)
class AgentMath(Linked):
    """AgentMath's weighted load balancing with sticky sessions.

    Parameters
    ----------
    base_tokens, base_weight
        L_base and w_base.
    sessions
        How many are remembered; 0: none is.
    """

    base_tokens: float = 8192.0
    base_weight: float = 1.0
    sessions: float = 4096.0

    name: ClassVar[str] = "agentmath-style"
    rule: ClassVar[Any] = agentmath
    by_priority: ClassVar[bool] = False
    per_workflow: ClassVar[int] = agentmath.COLUMNS
    live: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive(self, "base_tokens")

    def weights(self, training: Training) -> NDArray[np.float64]:
        return np.array([self.base_tokens, self.base_weight, self.sessions])

    def memory(self, fleet: Fleet) -> NDArray[np.float64]:
        return np.zeros(agentmath.LOADS + len(fleet.gpus))


def check_positive(policy: Policy, *names: str) -> None:
    """Refuse parameters that are 0."""
    from hexopt.policies.registry import PolicyError

    for name in names:
        if not getattr(policy, name) > 0:
            raise PolicyError(f"policy {policy.name!r}: {name} is {getattr(policy, name):g}, expected more than 0")
