"""Coding agents: long chains of calls in large contexts, almost wholly re-used, sometimes with sub-agents.

Fitted to recorded sessions of callanjfox/kv-cache-tester, whose figures over all 710 (59,204 calls) are:
prompt p50 103,656, p90 233,633; new tokens p50 728, p90 4,894; 96.3 % of the prompts re-used; output p50 216,
p90 898, p99 3,685; gap between calls p50 10 s, p90 162 s, above 300 s 6.8 %; calls a session p50 45, max 561;
17 sessions with 63 sub-agents. With the contexts these sessions had (``max_context`` 1,000,000) the
synthesizer is within 10 % of these figures. In particular:

* six sessions out of ten go on with an earlier one's history; the larger it is, the fewer calls follow;
* a call adds the output before it and a tool's result (log-normal); outputs are 75 tokens plus a log-normal
  part;
* about one call in ten ends the agent's turn: then a person answers, minutes later;
* the history is rewritten, beyond the system prompt, after one in eight of the person's turns and one in a
  hundred other calls (thinking taken out, tools changed): that is where the new tokens' tail comes from;
* a full context (160,000 tokens for the common models, a million for the others) is compacted to a summary;
* sub-agents come one, two or three at a time (58, 21, 21 % of the bursts) and make 10 calls each in the
  median; the caller goes on when all have reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hexopt.traces.synthesis.family import (
    Family,
    check_number,
    check_whole,
    lognormal_seconds,
    lognormal_tokens,
)
from hexopt.traces.synthesis.history import History
from hexopt.traces.workflow import Prefix, Stage, Workflow

NAME = "coding-agent"

_COMMON_CONTEXT = 160_000
_LARGE_CONTEXT = 1_000_000
_SYSTEM = Prefix(f"{NAME}/system", 15_400)
_SUBAGENT_SYSTEM = Prefix(f"{NAME}/subagent", 9_041)
_SHORTEST_GAP = 3.0
_LONGEST_OUTPUT = 32_000
_LONGEST_RESULT = 25_000
_LONGEST_STEP = 1000
_LONGEST_REPORT = 5000


@dataclass(frozen=True, slots=True)
class CodingAgentParameters:
    """Parameters of ``coding-agent``; lengths in tokens, times in seconds.

    Parameters
    ----------
    calls_median, calls_sigma, max_calls
        Calls of the main agent: log-normal, at most ``max_calls``; at least 2.
    resumed_share
        Share of the sessions that begin with an earlier session's history.
    max_context
        Longest prompt with its output; an agent that reaches it compacts its history.
    turn_share
        Share of the main agent's calls that end its turn, so that a person answers.
    max_gap
        Longest time between two calls; the recorded ones are up to 21 hours.
    subagent_share
        Share of the sessions that use sub-agents.
    """

    calls_median: float = 45.0
    calls_sigma: float = 1.15
    max_calls: int = 561
    resumed_share: float = 0.6
    max_context: int = 131_072
    turn_share: float = 0.095
    max_gap: float = 3600.0
    subagent_share: float = 17 / 710

    def __post_init__(self) -> None:
        check_number(self, "calls_median", 1)
        check_number(self, "calls_sigma", 0, 5)
        check_whole(self, "max_calls", 2)
        check_whole(self, "max_context", 32_768)
        check_number(self, "max_gap", 0)
        for name in ("resumed_share", "turn_share", "subagent_share"):
            check_number(self, name, 0, 1)


def draw(id: str, rng: np.random.Generator, parameters: CodingAgentParameters) -> Workflow:
    """Draw one session."""
    p = parameters
    history = History((_SYSTEM,), "main")
    context, length = _begin(rng, p, history)
    calls = lognormal_tokens(rng, p.calls_median * length, p.calls_sigma, 2, p.max_calls)
    bursts = _bursts(rng, calls) if rng.random() < p.subagent_share else {}
    stages: list[Stage] = []
    ended: tuple[str, ...] = ()
    delay = 0.0
    for call in range(calls):
        output = min(75 + lognormal_tokens(rng, 141, 1.385, 1, _LONGEST_OUTPUT), context // 4)
        if history.prompt_tokens + output > context:
            _compact(rng, history, context)
        stage = history.call(str(len(stages)), "main", output, ended, delay)
        stages.append(stage)
        answered = rng.random() < p.turn_share
        delay = _person(rng, p) if answered else _tool(rng, p)
        ended = (stage.id,)
        if call in bursts:
            reports = [_subagent(rng, p, stages, stage.id) for _ in range(bursts[call])]
            ended, delay = tuple(report.id for report in reports), 0.0
            history.tokens += sum(report.output_tokens for report in reports)
        history.tokens += lognormal_tokens(rng, 300, 1.63, 1, min(_LONGEST_RESULT, context // 4))
        if rng.random() < (0.12 if answered else 0.011):
            history.rewrite(history.tokens)
    return Workflow(id, tuple(stages), family=NAME)


def _begin(rng: np.random.Generator, p: CodingAgentParameters, history: History) -> tuple[int, float]:
    """Give the session its first history; return its context size and its length, 1 for the median one."""
    length = 1.4
    if rng.random() < p.resumed_share:
        history.tokens = lognormal_tokens(rng, 88_000, 0.9, 1000, _LARGE_CONTEXT)
        length = 0.55 if history.prompt_tokens > _COMMON_CONTEXT else 0.9
    else:
        history.tokens = lognormal_tokens(rng, 2500, 1.0, 1, 20_000)
    large = rng.random() < 0.1 or history.prompt_tokens > _COMMON_CONTEXT
    context = min(_LARGE_CONTEXT if large else _COMMON_CONTEXT, p.max_context)
    if history.prompt_tokens > context // 4 * 3:
        _compact(rng, history, context)
    return context, length


def _compact(rng: np.random.Generator, history: History, context: int) -> None:
    history.rewrite(lognormal_tokens(rng, 33_000, 0.9, 1, context // 2 - _SYSTEM.tokens))


def _person(rng: np.random.Generator, p: CodingAgentParameters) -> float:
    return lognormal_seconds(rng, 300, 1.95, p.max_gap)


def _tool(rng: np.random.Generator, p: CodingAgentParameters) -> float:
    return min(_SHORTEST_GAP + lognormal_seconds(rng, 6.2, 1.85, p.max_gap), p.max_gap)


def _bursts(rng: np.random.Generator, calls: int) -> dict[int, int]:
    """Return how many sub-agents each main call starts; the last call starts none, for want of a join."""
    count = min(int(rng.geometric(0.45)), calls - 1, 8)
    places = rng.choice(calls - 1, size=count, replace=False)
    return {int(place): int(rng.choice(3, p=(0.58, 0.21, 0.21))) + 1 for place in np.sort(places)}


def _subagent(rng: np.random.Generator, p: CodingAgentParameters, stages: list[Stage], caller: str) -> Stage:
    """Append the calls of one sub-agent and return the last, whose output is its report."""
    history = History((_SUBAGENT_SYSTEM,), f"subagent-{len(stages)}")
    history.tokens = lognormal_tokens(rng, 1200, 0.6, 1, 5000)
    ended, delay = caller, 0.0
    calls = lognormal_tokens(rng, 10, 0.55, 2, 24)
    while True:
        calls -= 1
        room = p.max_context - history.prompt_tokens - _LONGEST_REPORT
        if calls and room > _LONGEST_STEP:
            output = lognormal_tokens(rng, 230, 0.45, 20, _LONGEST_STEP)
        else:
            calls = 0
            output = lognormal_tokens(rng, 3000, 0.45, 500, _LONGEST_REPORT)
        stage = history.call(str(len(stages)), "subagent:explore", output, (ended,), delay)
        stages.append(stage)
        if not calls:
            return stage
        ended, delay = stage.id, lognormal_seconds(rng, 4, 1.0, min(120, p.max_gap))
        history.tokens += min(lognormal_tokens(rng, 2600, 1.3, 1, _LONGEST_RESULT), max(1, (room - output) // 4))


FAMILY = Family(NAME, "long coding sessions in large re-used contexts, with sub-agents", CodingAgentParameters, draw)
