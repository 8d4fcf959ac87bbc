"""From the recorded calls of a coding-agent session, sub-agents included, to a DAG of stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hexopt.traces.workflow import Prefix, Stage

# Times of the main agent are recorded in whole seconds in the public traces.
_CLOCK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded call.

    Parameters
    ----------
    id
        Becomes the stage's id.
    start
        Seconds from the start of the session.
    service
        Seconds the call took; 0 where unknown.
    think
        Recorded seconds between the end of the agent's previous call and this one; ``None`` where unknown.
    prompt_tokens, output_tokens
        Lengths; a call without output failed and becomes no stage.
    prefixes
        Shared segments of the prompt.
    """

    id: str
    start: float
    service: float
    think: float | None
    prompt_tokens: int
    output_tokens: int
    prefixes: tuple[Prefix, ...]

    @property
    def end(self) -> float:
        """Seconds from the start of the session to the call's end."""
        return self.start + self.service


@dataclass(frozen=True, slots=True)
class SubAgent:
    """A sub-agent's calls, at its place in the list of the agent that called it.

    Parameters
    ----------
    kind
        Its type, as recorded (``Explore``).
    time
        The recorded time of the sub-agent, seconds; see ``session_stages`` for what it stands for.
    duration
        Recorded seconds from its start to its end; ``None`` where unknown.
    events
        Its calls and its own sub-agents, in order; starts count from the session's start.
    absolute
        Whether the starts of its calls are true session times; otherwise only their differences count.
    """

    kind: str
    time: float
    duration: float | None
    events: tuple[Call | SubAgent, ...]
    absolute: bool


def session_stages(events: Sequence[Call | SubAgent]) -> tuple[tuple[Stage, ...], int]:
    """Return the stages of a session, parents first, and how many failed calls were left out.

    The calls of one agent run one after the other. The delay before a call is its recorded thinking time
    where there is one, else its start minus the end of the call before, at least 0. A sub-agent forks from
    the call before it and joins at the first later call of its caller that starts no earlier than the
    sub-agent ended: the next call where the caller waited, a later one or none where it did not. Where a
    call joins sub-agents, its delay counts from the latest end among all it waits for.

    The time of a sub-agent in the public traces is the moment its result came back: time minus duration falls
    on the end of the calling call, within the second. So a sub-agent starts at time minus duration where that
    is not before the end of the call it forks from, and at its time otherwise or where it has no duration.
    """
    stages: list[Stage] = []
    failed = _chain(events, "main", None, 0.0, stages)
    return tuple(stages), failed


def _chain(events: Sequence[Call | SubAgent], kind: str, parent: str | None, free: float, stages: list[Stage]) -> int:
    """Append the stages of one agent, whose first call follows ``parent``; return the failed calls."""
    failed = 0
    first = True
    skipped = False
    running: list[tuple[str, float]] = []
    for event in events:
        if isinstance(event, SubAgent):
            failed += _fork(event, parent, free, stages, running)
            continue
        if not event.output_tokens:
            failed += 1
            skipped = True
            continue
        joined = [(id_, end) for id_, end in running if end <= event.start + _CLOCK_SECONDS]
        running = [agent for agent in running if agent not in joined]
        if joined:
            delay = event.start - max(free, *(end for _, end in joined))
        elif event.think is not None and not skipped and not first:
            delay = event.think
        else:
            delay = 0.0 if parent is None else event.start - free
        stages.append(
            Stage(
                id=event.id,
                kind=kind,
                prompt_tokens=event.prompt_tokens,
                output_tokens=event.output_tokens,
                parents=(*(() if parent is None else (parent,)), *(id_ for id_, _ in joined)),
                prefixes=event.prefixes,
                tool_delay=max(0.0, delay),
            )
        )
        parent, free = event.id, event.end
        first = skipped = False
    return failed


def _fork(
    agent: SubAgent, parent: str | None, free: float, stages: list[Stage], running: list[tuple[str, float]]
) -> int:
    calls = [event for event in agent.events if isinstance(event, Call)]
    if not calls:
        return 0
    start, end = calls[0].start, calls[-1].end
    if agent.absolute:
        end = max(end, start + (agent.duration or 0.0))
    else:
        length = max(end - start, agent.duration or 0.0)
        begun = agent.time - (agent.duration or 0.0)
        start = begun if begun >= free - _CLOCK_SECONDS else agent.time
        end = start + length
    before = len(stages)
    # Seen from inside, the sub-agent's clock is that of its calls.
    failed = _chain(agent.events, f"subagent:{agent.kind.lower()}", parent, calls[0].start - (start - free), stages)
    if len(stages) > before:
        running.append((stages[-1].id, end))
    return failed
