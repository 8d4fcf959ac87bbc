"""What a policy is: one object that the simulator and the live service both ask."""

# mypy: ignore-errors
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hexopt.models.successors import Successors, no_successors
from hexopt.models.tallies import Tally
from hexopt.policies import compiled, greedy_urgency
from hexopt.policies.knowledge import Knowledge, alone_seconds
from hexopt.policies.linking import NO_HOOKS, hands_over
from hexopt.simulation.state import DECODE, MIXED, PREFILL

_SLOWED_BY_HEXGEN_FLOW = frozenset({"a6000", "l40s"})


@dataclass(frozen=True)
class Training:
    """What was learned before the run, from finished workflows of another trace or of a pilot run.

    Parameters
    ----------
    kinds
        Names of the stage kinds; every array by kind has this order.
    lengths, tails
        Predictors to start from; each run works on its own copy.
    prompt, output, calls
        Mean prompt tokens, mean output tokens, mean number of calls a workflow, each shape (kinds,).
    successors
        What follows a call.
    costs
        KV token-time of a workflow, by its first call's kind and prompt, see :mod:`hexopt.policies.justitia`; None
        where none was learned.
    """

    kinds: tuple[str, ...]
    lengths: Tally
    tails: Tally
    prompt: NDArray[np.float64]
    output: NDArray[np.float64]
    calls: NDArray[np.float64]
    successors: Successors = field(default_factory=no_successors)
    costs: Tally | None = None


@dataclass(frozen=True)
class Fleet:
    """What a policy is told of the m instances.

    Parameters
    ----------
    coef
        Believed roofline coefficients, shape (m, N_FEATURES), seconds.
    gpus
        GPU types.
    max_batched
        Token budgets of a step, shape (m,).
    price
        Money an hour, shape (m,).
    roles
        Roles of :mod:`hexopt.simulation.state`, shape (m,); none given: all prefill and decode.
    """

    coef: NDArray[np.float64]
    gpus: tuple[str, ...]
    max_batched: NDArray[np.int64]
    price: NDArray[np.float64]
    roles: tuple[int, ...] = ()


@dataclass(frozen=True)
class Policy:
    """A scheduling policy.

    A compiled policy is a number in :mod:`hexopt.policies.compiled` and its arrays; any other one sets ``code`` to
    ``EXTERNAL`` and overrides :meth:`place`.
    """

    name: ClassVar[str] = ""
    code: ClassVar[int] = compiled.EXTERNAL
    by_priority: ClassVar[bool] = True
    """Whether the instances order their queues by the policy's priorities, or first come first served."""
    preempted_first: ClassVar[bool] = False
    """Whether calls that were preempted go before all others, where queues are ordered by priorities."""
    per_workflow: ClassVar[int] = 0
    """Numbers that the kernel keeps of each workflow."""
    live: ClassVar[bool] = True
    """Whether a gateway can decide so: it does not know the truth, and does not tell policies what ended."""

    @property
    def label(self) -> str:
        """Name with the parameters that tell two of a kind apart."""
        return self.name

    def weights(self, training: Training) -> NDArray[np.float64]:
        """Parameters for the kernel."""
        return np.zeros(1)

    def memory(self, fleet: Fleet) -> NDArray[np.float64]:
        """Numbers that the kernel keeps between decisions."""
        return np.zeros(1)

    def table(self, fleet: Fleet, training: Training) -> NDArray[np.float64]:
        """The kernel's own table."""
        return np.zeros((1, 1))

    def counts_calls(self) -> bool:
        """Whether the kernel counts each workflow's calls by kind."""
        return False

    def prepare(self, fleet: Fleet, training: Training, workflows: int) -> Knowledge:
        """Fresh knowledge for one run; nothing is shared with another run."""
        mean = fleet.coef.mean(axis=0)
        kinds = len(training.kinds)
        return Knowledge(
            coef=np.ascontiguousarray(fleet.coef),
            mean_coef=mean,
            scale=np.ones(len(fleet.gpus)),
            speed=_speeds(fleet, training),
            lengths=_copied(training.lengths),
            tails=_copied(training.tails),
            successors=training.successors,
            weights=self.weights(training),
            memory=self.memory(fleet),
            table=self.table(fleet, training),
            counts=np.zeros((workflows if self.counts_calls() else 0, kinds), dtype=np.int16),
            programs=np.zeros((workflows if self.per_workflow else 0, max(self.per_workflow, 1))),
            length_noise=np.zeros(0),
            taken_for=np.zeros(0, dtype=np.int64),
        )

    def configure(self, instance: NDArray[np.void]) -> None:
        """Set the switches of the instances that it needs, in their INSTANCE records, shape (m,), before a run."""

    def linked(self, board: Any, know: Knowledge) -> tuple[int, ...]:
        """Addresses of what the event loop calls, see :mod:`hexopt.policies.linking`; 0 where nothing is."""
        return NO_HOOKS

    def scheduler(self, fleet: Fleet) -> Any:
        """Who plans one run, where ``code`` is ``PLANNER``: an object with ``decide(board, know)``."""
        raise NotImplementedError(f"{self.name} does not plan")

    def place(self, board: Any, know: Knowledge, r: int, now: float) -> tuple[int, float]:
        """Instance and priority (lower is earlier) for the ready stage ``r`` at time ``now``.

        ``board`` is a :class:`hexopt.simulation.state.Simulation`: the live service keeps one of the same form.
        """
        i = int(compiled.place(self.code, board, know, r, now))
        return i, float(board.stage["priority"][r])


def _speeds(fleet: Fleet, training: Training) -> NDArray[np.float64]:
    """Service rate of each instance on the training's calls relative to the mean one of its role, shape (m,).

    Of a call, a prefill instance serves what comes before the first token, a decode instance what comes behind it.
    """
    # None of the kinds was seen in training: all count alike.
    calls = training.calls if training.calls.any() else np.ones(len(training.kinds))
    share = calls / calls.sum()
    roles = np.array(fleet.roles or (MIXED,) * len(fleet.gpus))
    speed = np.empty(len(fleet.gpus))
    for i, role in enumerate(roles):
        budget = float(fleet.max_batched[i])
        seconds = [
            _served_seconds(fleet.coef[i], int(role), p, o, budget)
            for p, o in zip(training.prompt, training.output, strict=True)
        ]
        speed[i] = 1.0 / float(np.dot(share, seconds))
    for role in np.unique(roles):
        speed[roles == role] /= speed[roles == role].mean()
    return speed


def _served_seconds(coef: NDArray[np.float64], role: int, prompt: float, output: float, budget: float) -> float:
    first = alone_seconds(coef, prompt, 0.0, 1.0, budget)
    if role == PREFILL:
        return float(first)
    if role == DECODE:
        # Calls that are handed over have at least a second token.
        return float(alone_seconds(coef, prompt, 0.0, max(output, 2.0), budget) - first)
    return float(alone_seconds(coef, prompt, 0.0, output, budget))


def _copied(state: Any) -> Any:
    return type(state)(*(np.array(x) if isinstance(x, np.ndarray) else x for x in state))


@dataclass(frozen=True)
class RoundRobin(Policy):
    """vLLM behind a plain balancer: instances in turn, first come first served."""

    name: ClassVar[str] = "round-robin"
    code: ClassVar[int] = compiled.ROUND_ROBIN
    by_priority: ClassVar[bool] = False


@dataclass(frozen=True)
class LeastLoaded(Policy):
    """Fewest requests, first come first served."""

    name: ClassVar[str] = "least-loaded"
    code: ClassVar[int] = compiled.LEAST_LOADED
    by_priority: ClassVar[bool] = False


@dataclass(frozen=True)
class EarliestDeadline(Policy):
    """Earliest workflow deadline first."""

    name: ClassVar[str] = "edf"
    code: ClassVar[int] = compiled.EDF


@dataclass(frozen=True)
class LeastLaxity(Policy):
    """Least laxity first."""

    name: ClassVar[str] = "llf"
    code: ClassVar[int] = compiled.LLF


@dataclass(frozen=True)
class GreedyUrgency(Policy):
    """HexOpt's greedy rule.

    Parameters
    ----------
    imposed
        Weight of the delay that a call means for those already there, against its own finish.
    affinity
        Whether to prefer instances whose prefix cache holds the prompt's beginning.
    urgency
        Exponent of the urgency that weighs a call's own finish; 0 treats all workflows alike.
    lost
        Factor on the urgency of workflows that cannot make their deadline any more. Below 1 they also queue behind all
        others: more workflows end in time, and the late ones end later.
    """

    imposed: float = 1.0
    affinity: bool = True
    urgency: float = 0.75
    lost: float = 1.0

    name: ClassVar[str] = "greedy-urgency"
    code: ClassVar[int] = compiled.GREEDY_URGENCY

    def linked(self, board: Any, know: Knowledge) -> tuple[int, ...]:
        return hands_over(greedy_urgency.handed, board, know)

    @property
    def label(self) -> str:
        changed = [f"imposed={self.imposed:g}"] if self.imposed != 1.0 else []
        changed += [f"urgency={self.urgency:g}"] if self.urgency != 0.75 else []
        changed += [] if self.affinity else ["affinity=false"]
        changed += [f"lost={self.lost:g}"] if self.lost != 1.0 else []
        return f"{self.name}({', '.join(changed)})" if changed else self.name

    def weights(self, training: Training) -> NDArray[np.float64]:
        return np.array([self.imposed, float(self.affinity), self.urgency, self.lost])


@dataclass(frozen=True)
class HexGenFlow(Policy):
    """HexGen-Flow's dispatch score and urgency queue.

    Parameters
    ----------
    alpha
        Weight of the speed ratio against the accumulated work, 0 to 1.
    as_shipped
        Whether all workflows share one mutable template, as in the code that was published first.
    """

    alpha: float = 0.2
    as_shipped: bool = False

    name: ClassVar[str] = "hexgen-flow"
    code: ClassVar[int] = compiled.HEXGEN_FLOW

    @property
    def label(self) -> str:
        return f"{self.name}{'-shipped' if self.as_shipped else ''}(alpha={self.alpha:g})"

    def weights(self, training: Training) -> NDArray[np.float64]:
        kinds = training.kinds
        text_to_sql = "unit_tester" in kinds and "revise" in kinds
        closes = kinds.index("unit_tester") if text_to_sql else -1
        closed = kinds.index("revise") if text_to_sql else -1
        return np.array([self.alpha, float(self.as_shipped), closes, closed])

    def memory(self, fleet: Fleet) -> NDArray[np.float64]:
        slowed = [0.5 if gpu in _SLOWED_BY_HEXGEN_FLOW else 1.0 for gpu in fleet.gpus]
        return np.array([0.0] * len(fleet.gpus) + slowed)

    def table(self, fleet: Fleet, training: Training) -> NDArray[np.float64]:
        """Rows: T_e(s) of every instance, their mean, the template's count of each kind; shape (m + 2, kinds)."""
        instances = len(fleet.gpus)
        table = np.empty((instances + 2, len(training.kinds)))
        for i in range(instances):
            for s in range(len(training.kinds)):
                table[i, s] = alone_seconds(
                    fleet.coef[i], training.prompt[s], 0.0, training.output[s], float(fleet.max_batched[i])
                )
        table[instances] = table[:instances].mean(axis=0)
        table[instances + 1] = [
            STANDARD_WORKFLOW.get(kind, round(calls))
            for kind, calls in zip(training.kinds, training.calls, strict=True)
        ]
        return table

    def counts_calls(self) -> bool:
        return not self.as_shipped


STANDARD_WORKFLOW = {
    "information_retriever": 4,
    "extract_keywords": 1,
    "generate_candidate": 1,
    "revise": 4,
    "unit_tester": 3,
    "generate_unit_test": 1,
    "evaluate": 1,
}
"""HexGen-Flow's template of a Text-to-SQL workflow; other kinds count as often as in the training trace."""
