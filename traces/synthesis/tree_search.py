"""Tree search by a language model: the shape of LATS (Zhou et al., ICML 2024, arXiv 2310.04406) on HotpotQA.

* five samples an expansion, trajectories of at most seven steps (LATS, HotpotQA); every sample acts (a
  search) and is then rated by a value call; the next node is chosen when all ratings are there;
* calls a program: 159.7 in the mean, prompt of 467 and output of 73 tokens in the mean (LATS programs of
  Autellix, arXiv 2502.13965), hence 16 rounds in the mean. That rounds are geometric, how the prompt is
  shared out among instructions, question and observations, and how often the search goes deeper are ours;
* seconds in a tool: median 0.22 (TraceLab); the spread is ours.
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
from hexopt.traces.workflow import Prefix, Stage, Workflow

NAME = "tree-search"

_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class TreeSearchParameters:
    """Parameters of ``tree-search``; lengths in tokens, times in seconds.

    Parameters
    ----------
    width
        Samples an expansion.
    rounds_mean, max_rounds
        Expansions a workflow: geometric, cut at ``max_rounds``.
    max_depth
        Steps of a trajectory at most.
    deepen_share
        Share of the rounds that go on below the node expanded last; the others take any open node.
    instruction_tokens
        Instructions to act, and others to rate, shared by all workflows.
    question_median, question_sigma
        The task: log-normal.
    step_median, step_sigma
        Output of a sample and of a rating: log-normal.
    observation_median, observation_sigma
        What the tool answers to a step: log-normal.
    tool_median, tool_sigma, max_tool
        Time in the tool, before the rating: log-normal, cut at ``max_tool``.
    """

    width: int = 5
    rounds_mean: float = 16.0
    max_rounds: int = 60
    max_depth: int = 7
    deepen_share: float = 0.35
    instruction_tokens: int = 90
    question_median: float = 25.0
    question_sigma: float = 0.3
    step_median: float = 65.0
    step_sigma: float = 0.48
    observation_median: float = 18.0
    observation_sigma: float = 0.6
    tool_median: float = 0.22
    tool_sigma: float = 1.0
    max_tool: float = 30.0

    def __post_init__(self) -> None:
        for name in ("width", "max_rounds", "max_depth", "instruction_tokens"):
            check_whole(self, name, 1)
        for name in ("rounds_mean", "question_median", "step_median", "observation_median"):
            check_number(self, name, 1)
        for name in ("question_sigma", "step_sigma", "observation_sigma", "tool_sigma"):
            check_number(self, name, 0, 5)
        for name in ("tool_median", "max_tool"):
            check_number(self, name, 0)
        check_number(self, "deepen_share", 0, 1)


@dataclass(frozen=True, slots=True)
class _Node:
    path: tuple[Prefix, ...]
    depth: int


def draw(id: str, rng: np.random.Generator, parameters: TreeSearchParameters) -> Workflow:
    """Draw one search: rounds of samples from one node, then ratings of all of them."""
    p = parameters
    stages: list[Stage] = []
    question = lognormal_tokens(rng, p.question_median, p.question_sigma, 1, _LONGEST)
    open_nodes: list[_Node] = []
    node = _Node((Prefix("question", question, local=True),), 0)
    parents: tuple[str, ...] = ()
    rounds = min(int(rng.geometric(1 / p.rounds_mean)), p.max_rounds)
    for number in range(rounds):
        samples = [_sample(rng, p, str(len(stages) + k), node, parents) for k in range(p.width)]
        stages += samples
        children = [_child(rng, p, node, sample) for sample in samples]
        ratings = [
            _rating(rng, p, str(len(stages) + k), child, sample.id)
            for k, (child, sample) in enumerate(zip(children, samples, strict=True))
        ]
        stages += ratings
        parents = tuple(stage.id for stage in ratings)
        deeper = children if node.depth + 1 < p.max_depth else []
        open_nodes += deeper
        if not open_nodes or number + 1 == rounds:
            break
        near = deeper if deeper and rng.random() < p.deepen_share else open_nodes
        node = near[int(rng.integers(len(near)))]
        open_nodes.remove(node)
    return Workflow(id, tuple(stages), family=NAME)


def _sample(rng: np.random.Generator, p: TreeSearchParameters, id: str, node: _Node, parents: tuple[str, ...]) -> Stage:
    prefixes = (Prefix(f"{NAME}/expand", p.instruction_tokens), *node.path)
    return Stage(
        id=id,
        kind="expand",
        prompt_tokens=sum(prefix.tokens for prefix in prefixes),
        output_tokens=lognormal_tokens(rng, p.step_median, p.step_sigma, 1, _LONGEST),
        parents=parents,
        prefixes=prefixes,
        output_segment=f"step-{id}",
    )


def _rating(rng: np.random.Generator, p: TreeSearchParameters, id: str, node: _Node, parent: str) -> Stage:
    prefixes = (Prefix(f"{NAME}/value", p.instruction_tokens), *node.path)
    return Stage(
        id=id,
        kind="value",
        prompt_tokens=sum(prefix.tokens for prefix in prefixes),
        output_tokens=lognormal_tokens(rng, p.step_median, p.step_sigma, 1, _LONGEST),
        parents=(parent,),
        prefixes=prefixes,
        tool_delay=lognormal_seconds(rng, p.tool_median, p.tool_sigma, p.max_tool),
    )


def _child(rng: np.random.Generator, p: TreeSearchParameters, node: _Node, sample: Stage) -> _Node:
    """Return the node below ``node`` that the sample leads to: its output, then what the tool observed."""
    observed = lognormal_tokens(rng, p.observation_median, p.observation_sigma, 1, _LONGEST)
    step = Prefix(f"step-{sample.id}", sample.output_tokens + observed, local=True)
    return _Node((*node.path, step), node.depth + 1)


FAMILY = Family(NAME, "rounds of parallel samples and ratings in a growing tree", TreeSearchParameters, draw)
