"""What is in a trace: counts, lengths, shapes, and how much of the prompts is shared."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hexopt.traces.sharing import InfiniteCache
from hexopt.traces.workflow import TraceError, Workflow


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution in a few numbers; quantiles are interpolated linearly."""

    mean: float
    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class KindSummary:
    """The calls of one kind.

    Parameters
    ----------
    calls
        How many there are.
    prompt_tokens, output_tokens
        Their sums.
    prompt, output
        Tokens a call.
    tool_delay
        Seconds before a call, 0 included.
    prefix_hit_ratio
        As of ``TraceSummary``, over this kind's prompts.
    """

    calls: int
    prompt_tokens: int
    output_tokens: int
    prompt: Spread
    output: Spread
    tool_delay: Spread
    prefix_hit_ratio: float


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """A trace in figures; ``dataclasses.asdict`` makes it JSON.

    Parameters
    ----------
    workflows, calls
        How many there are.
    prompt_tokens, output_tokens
        Sums over all calls.
    span
        Seconds from the first to the last arrival.
    arrival_rate
        Workflows a second: (workflows - 1) / span; ``None`` where all arrive at once.
    burstiness
        Coefficient of variation of the gaps between arrivals (1 for a Poisson process); ``None`` where all
        arrive at once.
    calls_per_workflow
        Stages a workflow.
    depth
        Stages on a workflow's longest path.
    width
        The most stages of a workflow at one depth: how parallel it can get if all take equally long.
    critical_output_tokens
        Largest sum of output tokens along a path of a workflow.
    tool_seconds
        Sum of the tool delays along the path on which that sum is largest, a workflow.
    prefix_hit_ratio
        Share of all prompt tokens that an infinite prefix cache would hold when their call begins.
    with_deadline
        Workflows that have a deadline.
    kinds, families, tenants
        Calls by kind, workflows by family and by tenant; most calls or workflows first.
    """

    workflows: int
    calls: int
    prompt_tokens: int
    output_tokens: int
    span: float
    arrival_rate: float | None
    burstiness: float | None
    calls_per_workflow: Spread
    depth: Spread
    width: Spread
    critical_output_tokens: Spread
    tool_seconds: Spread
    prefix_hit_ratio: float
    with_deadline: int
    kinds: dict[str, KindSummary]
    families: dict[str, int]
    tenants: dict[str, int]


@dataclass(slots=True)
class _Calls:
    """The calls of one kind, one value each."""

    prompt: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    delay: list[float] = field(default_factory=list)
    found: list[int] = field(default_factory=list)

    def summary(self) -> KindSummary:
        return KindSummary(
            calls=len(self.prompt),
            prompt_tokens=sum(self.prompt),
            output_tokens=sum(self.output),
            prompt=_spread(self.prompt),
            output=_spread(self.output),
            tool_delay=_spread(self.delay),
            prefix_hit_ratio=sum(self.found) / sum(self.prompt),
        )


@dataclass(slots=True)
class _Shapes:
    """The workflows, one value each."""

    arrival: list[float] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    width: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    delay: list[float] = field(default_factory=list)

    def add(self, workflow: Workflow) -> None:
        depth: dict[str, int] = {}
        output: dict[str, int] = {}
        delay: dict[str, float] = {}
        for stage in workflow.stages:
            depth[stage.id] = 1 + max((depth[parent] for parent in stage.parents), default=0)
            output[stage.id] = stage.output_tokens + max((output[parent] for parent in stage.parents), default=0)
            delay[stage.id] = stage.tool_delay + max((delay[parent] for parent in stage.parents), default=0.0)
        self.arrival.append(workflow.arrival)
        self.calls.append(len(workflow.stages))
        self.depth.append(max(depth.values()))
        self.width.append(max(Counter(depth.values()).values()))
        self.output.append(max(output.values()))
        self.delay.append(max(delay.values()))


def describe(workflows: Iterable[Workflow]) -> TraceSummary:
    """Return the figures of a trace.

    Parameters
    ----------
    workflows
        Read once, in any order; the prefix hits take their calls one after the other.

    Raises
    ------
    TraceError
        Where there is no workflow.
    """
    kinds: defaultdict[str, _Calls] = defaultdict(_Calls)
    families: Counter[str] = Counter()
    tenants: Counter[str] = Counter()
    shapes = _Shapes()
    cache = InfiniteCache()
    with_deadline = 0
    for workflow in workflows:
        shapes.add(workflow)
        families[workflow.family] += 1
        tenants[workflow.tenant] += 1
        with_deadline += workflow.deadline is not None
        for stage, found in zip(workflow.stages, cache.add(workflow), strict=True):
            calls = kinds[stage.kind]
            calls.prompt.append(stage.prompt_tokens)
            calls.output.append(stage.output_tokens)
            calls.delay.append(stage.tool_delay)
            calls.found.append(found)
    if not shapes.calls:
        raise TraceError("the trace has no workflows")
    prompt_tokens = sum(sum(calls.prompt) for calls in kinds.values())
    span, rate, burstiness = _arrivals(shapes.arrival)
    return TraceSummary(
        workflows=len(shapes.calls),
        calls=sum(shapes.calls),
        prompt_tokens=prompt_tokens,
        output_tokens=sum(sum(calls.output) for calls in kinds.values()),
        span=span,
        arrival_rate=rate,
        burstiness=burstiness,
        calls_per_workflow=_spread(shapes.calls),
        depth=_spread(shapes.depth),
        width=_spread(shapes.width),
        critical_output_tokens=_spread(shapes.output),
        tool_seconds=_spread(shapes.delay),
        prefix_hit_ratio=sum(sum(calls.found) for calls in kinds.values()) / prompt_tokens,
        with_deadline=with_deadline,
        kinds={kind: calls.summary() for kind, calls in sorted(kinds.items(), key=lambda item: -len(item[1].prompt))},
        families=dict(families.most_common()),
        tenants=dict(tenants.most_common()),
    )


def _arrivals(times: Sequence[float]) -> tuple[float, float | None, float | None]:
    ordered = np.sort(np.asarray(times, dtype=np.float64))
    span = float(ordered[-1] - ordered[0])
    if span == 0:
        return 0.0, None, None
    gaps = np.diff(ordered)
    return span, gaps.size / span, float(gaps.std() / gaps.mean())


def _spread(values: Sequence[float]) -> Spread:
    array = np.asarray(values, dtype=np.float64)
    p50, p90, p95, p99 = (float(value) for value in np.quantile(array, (0.5, 0.9, 0.95, 0.99)))
    return Spread(float(array.mean()), float(array.min()), p50, p90, p95, p99, float(array.max()))
