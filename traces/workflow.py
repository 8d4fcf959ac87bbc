"""The unit of work: a workflow of LLM calls with one deadline for the whole."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


class TraceError(ValueError):
    """A trace, a workflow or a stage that is not well formed; the message says where and what was expected."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """A run of tokens at the start of a prompt that other prompts may share.

    Parameters
    ----------
    segment
        Name of the content. Two prompts share the longest common run of equal segments from position zero;
        a segment that one of them cuts short is shared as far as both have it, and a segment directly after itself
        goes on (a history that grows by one name).
    tokens
        Length of the run, in tokens; at least 1.
    local
        True where only stages of the same workflow share it (a conversation's history), false where every
        workflow does (a prompt template). Everything after a local segment is local too.
    """

    segment: str
    tokens: int
    local: bool = False

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise TraceError(f"prefix {self.segment!r}: tokens is {self.tokens}, expected at least 1")


@dataclass(frozen=True, slots=True)
class Stage:
    """One LLM call of a workflow.

    Parameters
    ----------
    id
        Unique within its workflow.
    kind
        What the call does (``revise``); predictors learn per kind.
    prompt_tokens, output_tokens
        Lengths in tokens, both at least 1. The output length is the truth: policies never see it before the end.
    parents
        Ids of the stages that must end first.
    prefixes
        Shared segments from position zero of the prompt, in order; together at most ``prompt_tokens``.
        The rest of the prompt is private to this call.
    output_segment
        Segment name under which later prompts of the same workflow quote this stage's output, directly after
        its whole prompt; ``None`` where nothing does. Needs ``prefixes`` that cover the whole prompt.
    tool_delay
        Seconds between the end of the last parent (or the workflow's arrival) and the moment the call is ready:
        tools, databases, people.
    """

    id: str
    kind: str
    prompt_tokens: int
    output_tokens: int
    parents: tuple[str, ...] = ()
    prefixes: tuple[Prefix, ...] = ()
    output_segment: str | None = None
    tool_delay: float = 0.0

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1:
            raise TraceError(f"stage {self.id!r}: prompt_tokens is {self.prompt_tokens}, expected at least 1")
        if self.output_tokens < 1:
            raise TraceError(f"stage {self.id!r}: output_tokens is {self.output_tokens}, expected at least 1")
        if not (math.isfinite(self.tool_delay) and self.tool_delay >= 0):
            raise TraceError(f"stage {self.id!r}: tool_delay is {self.tool_delay}, expected seconds >= 0")
        covered = sum(prefix.tokens for prefix in self.prefixes)
        if covered > self.prompt_tokens:
            raise TraceError(
                f"stage {self.id!r}: prefixes hold {covered} tokens, more than its prompt of {self.prompt_tokens}"
            )
        if self.output_segment is not None and covered != self.prompt_tokens:
            raise TraceError(
                f"stage {self.id!r}: output_segment needs prefixes that cover the whole prompt "
                f"({covered} of {self.prompt_tokens} tokens covered)"
            )


@dataclass(frozen=True, slots=True)
class Workflow:
    """One end-to-end user request: a DAG of stages.

    Parameters
    ----------
    id
        Unique within its trace.
    stages
        In topological order (parents before children); at least one.
    arrival
        Seconds from the start of the trace.
    deadline
        Seconds after arrival by which all stages should have ended; ``None`` where the trace sets none.
    weight
        Importance in weighted objectives, > 0.
    tenant, family
        Who asked; which kind of application it is (``text-to-sql``).
    """

    id: str
    stages: tuple[Stage, ...]
    arrival: float = 0.0
    deadline: float | None = None
    weight: float = 1.0
    tenant: str = ""
    family: str = ""

    def __post_init__(self) -> None:
        where = f"workflow {self.id!r}"
        if not self.stages:
            raise TraceError(f"{where}: has no stages")
        if not (math.isfinite(self.arrival) and self.arrival >= 0):
            raise TraceError(f"{where}: arrival is {self.arrival}, expected seconds >= 0")
        if self.deadline is not None and not (math.isfinite(self.deadline) and self.deadline > 0):
            raise TraceError(f"{where}: deadline is {self.deadline}, expected seconds > 0")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise TraceError(f"{where}: weight is {self.weight}, expected > 0")
        seen: set[str] = set()
        for stage in self.stages:
            if stage.id in seen:
                raise TraceError(f"{where}: two stages are named {stage.id!r}")
            for parent in stage.parents:
                if parent not in seen:
                    raise TraceError(f"{where}: stage {stage.id!r} has parent {parent!r}, which no earlier stage is")
            seen.add(stage.id)


def topological(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """Order ``stages`` so that parents come first, keeping the given order where it is free.

    Raises
    ------
    TraceError
        On an unknown parent, a duplicate id or a cycle; the message names the stages.
    """
    waiting = list(stages)
    known = {stage.id for stage in waiting}
    if len(known) != len(waiting):
        twice = sorted({s.id for s in waiting if sum(o.id == s.id for o in waiting) > 1})
        raise TraceError(f"two stages are named {twice[0]!r}")
    for stage in waiting:
        for parent in stage.parents:
            if parent not in known:
                raise TraceError(f"stage {stage.id!r} has parent {parent!r}, which is no stage of its workflow")
    done: set[str] = set()
    ordered: list[Stage] = []
    while waiting:
        ready = [stage for stage in waiting if done.issuperset(stage.parents)]
        if not ready:
            raise TraceError(f"stages form a cycle: {', '.join(sorted(stage.id for stage in waiting))}")
        ordered += ready
        done.update(stage.id for stage in ready)
        waiting = [stage for stage in waiting if stage.id not in done]
    return tuple(ordered)
