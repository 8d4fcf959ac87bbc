"""Published systems and their parameters; each rule and its source are in the module that it runs.

Names end in ``-style``: they are re-implementations in this simulator, adapted where it has no such mechanism;
docs/policies.md lists what was assumed and what deviates.
"""

# mypy: ignore-errors
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hexopt.memory_rules import Swap
from hexopt.models.lengths import PROMPT_BUCKETS
from hexopt.models.tallies import shrunken_mean
from hexopt.policies import agentmath, autellix, compiled, continuum, infaas, justitia, llumnix
from hexopt.policies.knowledge import Knowledge
from hexopt.policies.linked import Labelled, Linked, check_positive, mean_service
from hexopt.policies.linking import NO_HOOKS
from hexopt.policies.policy import Fleet, Training
from hexopt.simulation.mechanisms import switch_swap
from hexopt.simulation.state import DECODE, MIXED


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
class Llumnix(Linked):
    """Llumnix: dispatch, migration, priority classes, scaling.

    Parameters
    ----------
    migrate
        Whether running calls move.
    period
        Seconds between looks for pairs.
    threshold
        Freeness below which an instance is a source, above which a destination.
    choose
        The call that moves: the ``shortest``, or the one that runs ``last``.
    priorities, target
        Whether weights above 1 are a high class, and the tokens at most where one of its calls runs.
    scale, low, high, interval, least, start
        Whether instances come and go: mean freeness below and above which, seconds between looks, instances that are
        always open, seconds that one takes to start.
    head_only
        Dispatch counts the first waiting call's demand only.
    """

    migrate: bool = True
    period: float = 0.12
    threshold: float = 3.0
    choose: str = "shortest"
    priorities: bool = False
    target: float = 1600.0
    scale: bool = False
    low: float = 10.0
    high: float = 60.0
    interval: float = 10.0
    least: float = 1.0
    start: float = 30.0
    head_only: bool = False

    name: ClassVar[str] = "llumnix-style"
    rule: ClassVar[Any] = llumnix
    live: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive(self, "period", "interval", "least")
        from hexopt.policies.registry import PolicyError

        if self.choose not in ("shortest", "last"):
            raise PolicyError(f"choose is {self.choose!r}, expected one of shortest, last")

    @property
    def by_priority(self) -> bool:
        """Only classes are queued by."""
        return self.priorities

    def weights(self, training: Training) -> NDArray[np.float64]:
        last = self.choose == "last"
        return np.array(
            [
                *(self.head_only, self.period, self.threshold, last, self.priorities, self.target),
                *(self.scale, self.low, self.high, self.interval, self.least, self.start, self.migrate),
            ],
            dtype=np.float64,
        )

    def memory(self, fleet: Fleet) -> NDArray[np.float64]:
        return np.zeros(llumnix.FREE + 2 * len(fleet.gpus))


@dataclass(frozen=True)
class Continuum(Linked):
    """Continuum: KV stays pinned while tools run.

    Parameters
    ----------
    ttl
        Seconds that contents stay pinned, or ``auto``: what pays most.
    cold
        Durations up to which gaps are taken to be exponential.
    preempted_first
        Whether preempted calls go before all others.
    host_gb
        GB of host memory for each GPU, which keeps what calls leave; 0: it is prefilled again.
    """

    ttl: str = "auto"
    cold: float = 100.0
    preempted_first: bool = True
    host_gb: float = 0.0

    name: ClassVar[str] = "continuum-style"
    rule: ClassVar[Any] = continuum
    per_workflow: ClassVar[int] = continuum.COLUMNS
    live: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.fixed()

    def fixed(self) -> float:
        """The time to live, seconds; negative where it is computed."""
        if self.ttl == "auto":
            return -1.0
        try:
            seconds = float(self.ttl)
        except ValueError:
            seconds = -1.0
        if not 0.0 <= seconds < math.inf:
            from hexopt.policies.registry import PolicyError

            raise PolicyError(f"ttl is {self.ttl!r}, expected auto or seconds from 0 on")
        return seconds

    def configure(self, instance: NDArray[np.void]) -> None:
        if self.host_gb > 0.0:
            for row in instance:
                switch_swap(row, Swap(gb=self.host_gb, granularity="group", keep=True))

    def weights(self, training: Training) -> NDArray[np.float64]:
        return np.array([self.fixed(), self.cold])

    def memory(self, fleet: Fleet) -> NDArray[np.float64]:
        return np.zeros(continuum.MEMORY)

    def table(self, fleet: Fleet, training: Training) -> NDArray[np.float64]:
        return np.zeros((len(training.kinds) + 1, continuum.ROW))


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
        # No session is for engines that only decode: they weigh more than all others.
        never = [np.inf if role == DECODE else 0.0 for role in fleet.roles or (MIXED,) * len(fleet.gpus)]
        return np.array([0.0] * agentmath.LOADS + never)


@dataclass(frozen=True)
class Hexagent(Labelled):
    """HexAGenT's planner.

    Parameters
    ----------
    sort_above
        Longest queue that is planned call by call; longer ones are sorted once.
    horizon
        What a workflow's time is divided by: the horizon of what is ``revealed``, or a ``constant``.
    projected
        Whether the time until the call's projected end counts, too.
    """

    sort_above: float = 64.0
    horizon: str = "revealed"
    projected: bool = True

    name: ClassVar[str] = "hexagent-style"
    code: ClassVar[int] = compiled.PLANNER
    by_priority: ClassVar[bool] = False
    live: ClassVar[bool] = False

    def __post_init__(self) -> None:
        from hexopt.policies.registry import PolicyError

        if self.horizon not in ("revealed", "constant"):
            raise PolicyError(f"horizon is {self.horizon!r}, expected one of revealed, constant")

    def weights(self, training: Training) -> NDArray[np.float64]:
        return np.array([self.sort_above, self.horizon == "revealed", self.projected], dtype=np.float64)

    def configure(self, instance: NDArray[np.void]) -> None:
        # It numbers what waits to decode; elsewhere it sends calls in their order.
        instance["by_priority"][instance["role"] == DECODE] = 1

    def linked(self, board: Any, know: Knowledge) -> tuple[int, ...]:
        # Asked before a run is timed.
        from hexopt.policies.hexagent import compile_for

        compile_for(board, know)
        return NO_HOOKS

    def scheduler(self, fleet: Fleet) -> Any:
        from hexopt.policies.hexagent import Planner

        return Planner()


@dataclass(frozen=True)
class Qlm(Labelled):
    """QLM's virtual queues of request groups.

    Parameters
    ----------
    granularity
        Seconds within which due times are the same.
    period
        Seconds between two linear programs at least.
    """

    granularity: float = 10.0
    period: float = 5.0

    name: ClassVar[str] = "qlm-style"
    code: ClassVar[int] = compiled.PLANNER
    by_priority: ClassVar[bool] = False
    live: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive(self, "granularity")

    def weights(self, training: Training) -> NDArray[np.float64]:
        """Mean prompt and output tokens of a call."""
        calls = training.calls if training.calls.any() else np.ones(len(training.kinds))
        return np.array([np.average(training.prompt, weights=calls), np.average(training.output, weights=calls)])

    def linked(self, board: Any, know: Knowledge) -> tuple[int, ...]:
        # Asked before a run is timed.
        from hexopt.policies.qlm import compile_for

        compile_for(board, know)
        return NO_HOOKS

    def scheduler(self, fleet: Fleet) -> Any:
        from hexopt.policies.qlm import VirtualQueues

        return VirtualQueues(self.granularity, self.period)
