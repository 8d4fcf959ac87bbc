"""What the service writes down of every finished stage and every decision."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One call, after its end. Times are unix seconds.

    Parameters
    ----------
    workflow, stage, parents
        Ids; those of parents as the client named them.
    kind, tenant, weight, model
        As in the call.
    instance, gpu
        Where it ran; ``None`` if nowhere.
    arrival
        Of the workflow's first call.
    ready, dispatched, first_token, finish
        When the call came in, was sent to its instance, answered its first token, and ended.
    deadline
        Of the workflow; ``None`` if it has none.
    prompt_tokens, cached_tokens, output_tokens
        As the instance counted them; ``None`` where it did not say.
    prefix
        The client's prefix hint.
    status
        ``ok``, ``error``, ``aborted`` or ``rejected``.
    retries
        Times that it was sent again.
    decision_id
        Of the decision that placed it.
    predicted_finish
        As the scheduler thought when it placed it.
    policy
        The policy in force.
    """

    workflow: str
    stage: str
    arrival: float
    ready: float
    finish: float
    status: str
    parents: tuple[str, ...] = ()
    kind: str = "call"
    tenant: str = ""
    weight: float = 1.0
    model: str = ""
    instance: str | None = None
    gpu: str | None = None
    dispatched: float | None = None
    first_token: float | None = None
    deadline: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    prefix: str | None = None
    retries: int = 0
    decision_id: str | None = None
    predicted_finish: float | None = None
    policy: str = ""


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One decision of the scheduler.

    Parameters
    ----------
    id
        Names it in answers and stage records.
    time
        Unix seconds.
    workflow, stage
        What it was about.
    policy, solver
        What decided; ``solver`` is ``None`` where none did.
    chosen
        The instance; ``None`` if the stage was held back or refused.
    receipt
        All that led to it, as JSON text.
    """

    id: str
    time: float
    workflow: str
    stage: str
    policy: str
    solver: str | None
    chosen: str | None
    receipt: str
