"""Conversations with people: the shape of ShareGPT.

* turns a conversation: 6.66 in the mean, 80 at most; tokens that a turn adds: 256 in the mean; output tokens:
  277 in the mean (ShareGPT programs of Autellix, arXiv 2502.13965);
* the messages' spread: median 74 (ShareGPT, Llumnix, arXiv 2406.03243); that turns are geometric and outputs
  log-normal is ours;
* ShareGPT has no times: the time to read and to type is ours, log-normal with median 30 s.
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

NAME = "chat"


@dataclass(frozen=True, slots=True)
class ChatParameters:
    """Parameters of ``chat``; lengths in tokens, times in seconds.

    Parameters
    ----------
    turns_mean, max_turns
        Turns a conversation: geometric, cut at ``max_turns``.
    system_tokens
        System prompt that all conversations share; 0 for none.
    message_median, message_sigma
        What the user says: log-normal.
    output_median, output_sigma
        What the model answers: log-normal.
    think_median, think_sigma, max_think
        Time between an answer and the next message: log-normal, cut at ``max_think``.
    max_context
        A conversation ends before a prompt and its output would together be longer.
    """

    turns_mean: float = 6.66
    max_turns: int = 80
    system_tokens: int = 0
    message_median: float = 74.0
    message_sigma: float = 1.58
    output_median: float = 201.0
    output_sigma: float = 0.8
    think_median: float = 30.0
    think_sigma: float = 1.0
    max_think: float = 600.0
    max_context: int = 32_768

    def __post_init__(self) -> None:
        for name in ("turns_mean", "message_median", "output_median"):
            check_number(self, name, 1)
        for name in ("message_sigma", "output_sigma", "think_sigma"):
            check_number(self, name, 0, 5)
        for name in ("think_median", "max_think"):
            check_number(self, name, 0)
        check_whole(self, "max_turns", 1)
        check_whole(self, "max_context", 256)
        check_whole(self, "system_tokens", 0, self.max_context // 2)


def draw(id: str, rng: np.random.Generator, parameters: ChatParameters) -> Workflow:
    """Draw one conversation."""
    p = parameters
    history = History((Prefix(f"{NAME}/system", p.system_tokens),) if p.system_tokens else ())
    stages: list[Stage] = []
    for turn in range(min(int(rng.geometric(1 / p.turns_mean)), p.max_turns)):
        message = lognormal_tokens(rng, p.message_median, p.message_sigma, 1, p.max_context // 4)
        output = lognormal_tokens(rng, p.output_median, p.output_sigma, 1, p.max_context // 4)
        delay = lognormal_seconds(rng, p.think_median, p.think_sigma, p.max_think) if turn else 0.0
        if history.prompt_tokens + message + output > p.max_context:
            break
        history.tokens += message
        stages.append(history.call(str(turn), "chat", output, tuple(s.id for s in stages[-1:]), delay))
    return Workflow(id, tuple(stages), family=NAME)


FAMILY = Family(NAME, "conversation with think times between the turns", ChatParameters, draw)
