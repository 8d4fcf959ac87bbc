"""What the policies share that are asked by address: labels, checks of parameters, addresses."""

# mypy: ignore-errors
from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
from numba import types

from hexopt.policies import compiled
from hexopt.policies.knowledge import Knowledge, alone_seconds
from hexopt.policies.linking import address_of
from hexopt.policies.policy import Fleet, Policy, Training
from hexopt.simulation.state import PREFILL


def mean_service(fleet: Fleet, training: Training) -> float:
    """Mean seconds of the training's calls, alone on the mean instance."""
    mean, budget = fleet.coef.mean(axis=0), float(fleet.max_batched[0])
    calls = training.calls if training.calls.any() else np.ones(len(training.kinds))
    seconds = [alone_seconds(mean, p, 0.0, o, budget) for p, o in zip(training.prompt, training.output, strict=True)]
    return float(np.dot(calls / calls.sum(), seconds))


def check_positive(policy: Policy, *names: str) -> None:
    """Refuse parameters that are 0."""
    from hexopt.policies.registry import PolicyError

    for name in names:
        if not getattr(policy, name) > 0:
            raise PolicyError(f"policy {policy.name!r}: {name} is {getattr(policy, name):g}, expected more than 0")


class Labelled(Policy):
    """A policy whose label names the parameters that are not the usual ones."""

    @property
    def label(self) -> str:
        changed = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]
        shown = ", ".join(
            f"{name}={str(v).lower() if isinstance(v, bool) else v if isinstance(v, str) else f'{v:g}'}"
            for name, v in changed
        )
        return f"{self.name}({shown})" if shown else self.name


class Linked(Labelled):
    """A policy that the event loop asks by address, see :mod:`hexopt.policies.linking`."""

    code: ClassVar[int] = compiled.LINKED
    rule: ClassVar[Any]
    """The module with its kernels."""

    def place(self, board: Any, know: Knowledge, r: int, now: float) -> tuple[int, float]:
        i = int(self.rule.place(board, know, int(r), float(now)))
        return i, float(board.stage["priority"][r])

    def linked(self, board: Any, know: Knowledge) -> tuple[int, ...]:
        call = (board, know, types.int64)
        apart = bool((board.instance["role"] == PREFILL).any())
        return (
            address_of(self.rule.place, *call, types.float64),
            address_of(getattr(self.rule, "ended", None), *call),
            address_of(getattr(self.rule, "handed", None) if apart else None, *call, types.float64),
            address_of(getattr(self.rule, "tick", None), board, know, types.float64),
        )
