"""LightLLM's Past-Future scheduler (ASPLOS'25, arXiv 2507.10150), and the rules that it is compared with.

A waiting call is admitted, first come first served, if the forecast peak of the batch's memory with it stays below
``(1 - reserve) * capacity``::

    M* = max_i (b_i * i + sum_{j <= i} a_j),   b descending

a_i tokens are held, b_i to come: sampled from the lengths of the last calls, given that they are longer than what the
call has generated already. ``rule=aggressive`` admits while the memory in use stays below a share of the capacity,
``conservative`` while every call's prompt and longest output fit, ``true`` by the true lengths without a reserve.

The rule runs in the simulated instance (:mod:`hexopt.simulation.admission`), which this policy switches on; calls go to
the instance with the fewest, see :mod:`hexopt.policies.least_loaded`.

Source: the paper, and the published simulator of its artifact (behavior-analysis): history of 1000 lengths, at first
500 of 512 tokens, reserve 3%, a look every 10 steps, 32768 tokens of prompts a look.

Assumed: dispatch to the least loaded instance, for the paper has one; 4096 tokens are the longest output of any call.

Deviations: a call that was evicted counts all of its tokens against ``aggressive``'s limit, where the artifact counts
the prompt and lets memory overflow; nothing is reserved for paused calls; blocks that calls share through the prefix
cache are counted for each.
"""

# mypy: ignore-errors
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hexopt.memory_rules import RULES, Admission
from hexopt.policies import compiled
from hexopt.policies.linked import Labelled, check_positive
from hexopt.simulation.mechanisms import switch_admission


@dataclass(frozen=True)
class PastFuture(Labelled):
    """Past-Future admission behind least-loaded dispatch.

    Parameters
    ----------
    rule
        ``past-future``, ``aggressive``, ``conservative`` or ``true``.
    share
        Share of the memory that the rule may fill; 0: the rule's own (0.97, 0.95, 1, 1).
    every
        Steps between two looks at those that wait.
    max_new
        Tokens of the longest output of any call.
    """

    rule: str = "past-future"
    share: float = 0.0
    every: float = 10.0
    max_new: float = 4096.0

    name: ClassVar[str] = "past-future-style"
    code: ClassVar[int] = compiled.LEAST_LOADED
    by_priority: ClassVar[bool] = False
    live: ClassVar[bool] = False

    def __post_init__(self) -> None:
        from hexopt.policies.registry import PolicyError

        if self.rule not in RULES[1:]:
            raise PolicyError(f"policy {self.name!r}: rule is {self.rule!r}, expected one of {', '.join(RULES[1:])}")
        if not 0.0 <= self.share <= 1.0:
            raise PolicyError(f"policy {self.name!r}: share is {self.share:g}, expected 0 to 1")
        check_positive(self, "every", "max_new")

    def configure(self, instance: NDArray[np.void]) -> None:
        rule = Admission(
            rule=self.rule, share=self.share or None, every=max(int(self.every), 1), max_new=max(int(self.max_new), 1)
        )
        for row in instance:
            switch_admission(row, rule)
