"""Route receipts: where a call went, where it could have gone, and why."""

# mypy: ignore-errors
from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.explain import explain
from hexopt.service.live_scheduler import Planned

KEPT = 2_000
"""Receipts that are kept in memory; older ones are in the store."""


@dataclass(slots=True, eq=False)
class Receipt:
    """One decision.

    Parameters
    ----------
    id, time
        Also the call's; unix seconds.
    instances
        Names of the instances there were, and why calls could not go there (empty where they could).
    figures
        What each would mean, as :func:`hexopt.service.live_board.candidates` has it; shape (m, 4).
    urgency, imposed_weight
        A candidate costs ``urgency * finish + imposed_weight * imposed``.
    planned
        The plan that chose, where one did.
    shadow
        Name of the shadow policy and of the instance that it would have chosen.
    """

    id: str
    time: float
    workflow: str
    stage: str
    kind: str
    policy: str
    reason: str
    chosen: int
    instances: tuple[tuple[str, str], ...]
    figures: NDArray[np.float64]
    urgency: float
    imposed_weight: float
    prompt_tokens: int
    expected_output: float
    tail: float
    deadline: float
    waited: float
    planned: Planned | None = None
    shadow: tuple[str, str] | None = None
    route_only: bool = False

    @property
    def predicted_finish(self) -> float:
        """Unix seconds."""
        return self.time + float(self.figures[self.chosen, 0])

    def as_dict(self, terms: bool = True) -> dict[str, Any]:
        """For JSON; with ``terms``, what every candidate would cost the plan is worked out now."""
        cost = self.urgency * self.figures[:, 0] + self.imposed_weight * self.figures[:, 1]
        candidates = []
        for i, (name, closed) in enumerate(self.instances):
            finish, imposed, new, memory = (float(x) for x in self.figures[i])
            row = {"instance": name, "chosen": i == self.chosen}
            if math.isfinite(finish):
                row |= {
                    "predicted_seconds": finish,
                    "imposed_seconds": imposed,
                    "prompt_tokens_to_compute": int(new),
                    "memory_wait_seconds": memory,
                    "cost": float(cost[i]),
                }
            else:
                row["excluded"] = closed or "the call is longer than its context"
            candidates.append(row)
        others = [c["cost"] for c in candidates if not c["chosen"] and "cost" in c]
        own = candidates[self.chosen].get("cost")
        found: dict[str, Any] = {
            "id": self.id,
            "time": self.time,
            "workflow": self.workflow,
            "stage": self.stage,
            "kind": self.kind,
            "policy": self.policy,
            "decided_by": self.reason,
            "chosen": self.instances[self.chosen][0],
            "route_only": self.route_only,
            "prompt_tokens": self.prompt_tokens,
            "expected_output_tokens": self.expected_output,
            "tail_seconds": self.tail,
            "deadline": self.deadline,
            "predicted_finish": self.predicted_finish if math.isfinite(self.figures[self.chosen, 0]) else None,
            "slack_seconds": _finite(self.deadline - self.predicted_finish - self.tail),
            "urgency": self.urgency,
            "queued_seconds": self.waited,
            "margin": min(others) - own if others and own is not None else None,
            "candidates": candidates,
        }
        if self.planned is not None:
            found["plan"] = _plan(self.planned, [name for name, _ in self.instances], terms)
        if self.shadow is not None:
            found["shadow"] = {"policy": self.shadow[0], "instance": self.shadow[1]}
        return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plan(planned: Planned, names: list[str], terms: bool) -> dict[str, Any]:
    plan, problem = planned.plan, planned.epoch.problem
    found = {
        "solver": plan.solver,
        "stages": problem.stages,
        "objective": plan.objective,
        "bound": _finite(plan.bound),
        "gap": _finite(plan.gap),
        "seconds": plan.seconds,
    }
    if terms:
        explanation = explain(problem, plan, planned.k)
        found["decided_by_term"] = explanation.decided or None
        found["candidates"] = [
            {
                "instance": names[c.instance] if 0 <= c.instance < len(names) else "held",
                "finish_seconds": _finite(c.finish),
                "objective": c.objective,
                "terms": c.terms,
            }
            for c in explanation.candidates
        ]
    return found


class Receipts:
    """The latest receipts by id."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._found: OrderedDict[str, Receipt] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def add(self, receipt: Receipt) -> None:
        """Keep ``receipt``; the oldest goes when there are too many."""
        self._found[receipt.id] = receipt
        if len(self._found) > self._kept:
            self._found.popitem(last=False)

    def get(self, name: str) -> Receipt | None:
        """The receipt of that id."""
        return self._found.get(name)

    def latest(self, count: int) -> list[Receipt]:
        """The newest first."""
        newest = reversed(self._found.values())
        return [receipt for receipt, _ in zip(newest, range(count), strict=False)]
