"""A ReAct agent that calls functions: the shape of BFCL multi-turn tasks.

* calls a workflow: 10.75 in the mean, 70 at most; output tokens a call: 34 in the mean (BFCL-v3 programs of
  Autellix, arXiv 2502.13965, whose traces HexAGenT, arXiv 2605.16637, uses too). The log-normal shapes are
  ours;
* prompt tokens that a call adds: 735 in the mean (ibid.), taken as system prompt and tools, counted once a
  workflow, plus what user and tools say before each call. How the two share the 735 is ours, and so are the
  eight sizes of tool descriptions: one a BFCL API class;
* seconds in tools: mean 1.923, standard deviation 2.133, log-normal (BFCL-v4 web, Continuum, arXiv
  2511.02230).
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
from hexopt.traces.workflow import Prefix, Stage, TraceError, Workflow

NAME = "tool-agent"


@dataclass(frozen=True, slots=True)
class ToolAgentParameters:
    """Parameters of ``tool-agent``; lengths in tokens, times in seconds.

    Parameters
    ----------
    calls_median, calls_sigma, max_calls
        Calls a workflow: log-normal, at most ``max_calls``; at least 2.
    system_tokens
        System prompt, shared by all workflows.
    toolset_tokens
        Sizes of the tool descriptions; each workflow uses one, drawn evenly, and shares it with all that do.
    input_median, input_sigma
        What the user or a tool says before each call: log-normal.
    output_median, output_sigma
        Output of each call: log-normal.
    tool_median, tool_sigma, max_tool
        Time in a tool before each call but the first: log-normal, cut at ``max_tool``.
    max_context
        A workflow ends before a prompt and its output would together be longer.
    """

    calls_median: float = 9.0
    calls_sigma: float = 0.6
    max_calls: int = 70
    system_tokens: int = 800
    toolset_tokens: tuple[int, ...] = (1500, 2200, 3000, 3600, 4400, 5200, 6100, 7600)
    input_median: float = 120.0
    input_sigma: float = 1.27
    output_median: float = 28.0
    output_sigma: float = 0.62
    tool_median: float = 1.29
    tool_sigma: float = 0.895
    max_tool: float = 60.0
    max_context: int = 32_768

    def __post_init__(self) -> None:
        for name in ("calls_median", "input_median", "output_median"):
            check_number(self, name, 1)
        for name in ("calls_sigma", "input_sigma", "output_sigma", "tool_sigma"):
            check_number(self, name, 0, 5)
        for name in ("tool_median", "max_tool"):
            check_number(self, name, 0)
        check_whole(self, "max_calls", 2)
        check_whole(self, "system_tokens", 1)
        check_whole(self, "max_context", 1024)
        largest = self.max_context // 2 - self.system_tokens
        sizes = self.toolset_tokens
        if not (
            isinstance(sizes, tuple) and sizes and all(type(size) is int and 1 <= size <= largest for size in sizes)
        ):
            raise TraceError(
                f"toolset_tokens is {sizes!r}, expected a tuple of whole numbers from 1 to {largest} "
                "(half of max_context less system_tokens)"
            )


def draw(id: str, rng: np.random.Generator, parameters: ToolAgentParameters) -> Workflow:
    """Draw one workflow: a chain of calls, each of which sees all that was said before."""
    p = parameters
    calls = lognormal_tokens(rng, p.calls_median, p.calls_sigma, 2, p.max_calls)
    toolset = int(rng.integers(len(p.toolset_tokens)))
    history = History(
        (
            Prefix(f"{NAME}/system", p.system_tokens),
            Prefix(f"{NAME}/tools/{toolset + 1}", p.toolset_tokens[toolset]),
        )
    )
    stages: list[Stage] = []
    for place in range(calls):
        added = lognormal_tokens(rng, p.input_median, p.input_sigma, 1, p.max_context // 4)
        output = lognormal_tokens(rng, p.output_median, p.output_sigma, 1, p.max_context // 4)
        delay = lognormal_seconds(rng, p.tool_median, p.tool_sigma, p.max_tool) if place else 0.0
        if history.prompt_tokens + added + output > p.max_context:
            break
        history.tokens += added
        stages.append(history.call(str(place), "act", output, tuple(s.id for s in stages[-1:]), delay))
    return Workflow(id, tuple(stages), family=NAME)


FAMILY = Family(NAME, "function calls over a growing history, with tool times", ToolAgentParameters, draw)
