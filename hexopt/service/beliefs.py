"""What the live service learns of stage kinds and of what follows them, from workflows that it has seen end."""

# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hexopt.cluster import Cluster
from hexopt.models.lengths import PRIOR_OUTPUT, empty_lengths
from hexopt.models.tails import empty_tails
from hexopt.policies.knowledge import Knowledge, alone_seconds
from hexopt.policies.policy import Training
from hexopt.service.calls import FinishedStage
from hexopt.traces import Workflow

ROOM = 64
"""Kinds that may turn up beyond those of the training trace; further ones count as the last."""
_PRIOR_PROMPT = 1024.0
_LOOK_BACK = 64
"""Stages before one that may be its parents, where it names none."""


class Kinds:
    """Numbers of the stage kinds, given out as they turn up."""

    def __init__(self, known: Sequence[str] = (), room: int = ROOM) -> None:
        self.names: list[str] = list(known)
        self.capacity = len(self.names) + room
        self._number = {name: k for k, name in enumerate(self.names)}

    def number(self, name: str) -> int:
        """The number of kind ``name``."""
        found = self._number.get(name)
        if found is None:
            if len(self.names) == self.capacity:
                return self.capacity - 1
            found = self._number[name] = len(self.names)
            self.names.append(name)
        return found

    def padded(self) -> tuple[str, ...]:
        """The names, and placeholders that no client can send for the room that is left."""
        return (*self.names, *(f"\n{k}" for k in range(self.capacity - len(self.names))))


def training_of(kinds: Kinds, workflows: Sequence[Workflow], cluster: Cluster) -> Training:
    """What predictors start from: finished workflows where there are any, priors otherwise."""
    if workflows:
        from hexopt.simulation.experiment import train

        return train(workflows, kinds.padded(), cluster)
    n = kinds.capacity
    return Training(
        kinds=kinds.padded(),
        lengths=empty_lengths(n),
        tails=empty_tails(n),
        prompt=np.full(n, _PRIOR_PROMPT),
        output=np.full(n, PRIOR_OUTPUT),
        calls=np.zeros(n),
    )


def workflow_tails(stages: Sequence[FinishedStage], know: Knowledge, budget: float) -> list[float]:
    """Seconds of work and tools after each stage of a workflow that has ended, on the mean instance without company.

    A stage that names no parents is taken to have waited for those that had ended when it came.
    """
    by_id = {stage.id: k for k, stage in enumerate(stages)}
    by_finish = sorted(range(len(stages)), key=lambda k: stages[k].finish)
    finishes = [stages[k].finish for k in by_finish]
    tails = [0.0] * len(stages)
    for k in sorted(range(len(stages)), key=lambda k: -stages[k].ready):
        stage = stages[k]
        parents = [by_id[p] for p in stage.parents if p in by_id and stages[by_id[p]].finish <= stage.ready]
        if not parents:
            end = int(np.searchsorted(finishes, stage.ready, side="right"))
            parents = [p for p in by_finish[max(end - _LOOK_BACK, 0) : end] if p != k]
        if not parents:
            continue
        tools = max(stage.ready - max(stages[p].finish for p in parents), 0.0)
        service = alone_seconds(know.mean_coef, stage.prompt, stage.cached, stage.output, budget)
        for p in parents:
            tails[p] = max(tails[p], tools + service + tails[k])
    return tails
