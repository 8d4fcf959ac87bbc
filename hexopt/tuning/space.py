"""The weights that are searched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hexopt.objective import WEIGHTS, Objective, make_objective, objective_text
from hexopt.policies.policy import GreedyUrgency, Policy
from hexopt.policies.rolling_horizon import RollingHorizon

_RANGES: dict[str, tuple[float, float, bool]] = {
    "alpha": (0.02, 0.98, False),
    "urgency": (0.0, 3.0, False),
    "lost": (0.0, 1.0, False),
    "tardiness": (0.0, 2.0, False),
    "late": (0.5, 500.0, True),
    "congestion": (0.05, 20.0, True),
    "move": (0.05, 20.0, True),
    "price": (1.0, 100_000.0, True),
}
"""From, to, and whether by the logarithm. Only ratios of costs matter, so a second of the stage's own (``completion``)
and a second of delay to others (``imposed``) sum up to 2 and share one number, alpha, as in HexGen-Flow's score."""

_GREEDY = ("alpha", "urgency", "lost")
"""All that greedy urgency knows; the rolling horizon uses them between its solves as well."""


def dimensions(policy: Policy, price: bool) -> list[str]:
    """What is searched for this policy; prices of GPUs only where cost is a goal."""
    if isinstance(policy, GreedyUrgency):
        return list(_GREEDY)
    return [name for name in _RANGES if name != "price" or price]


def suggested(trial: Any, names: list[str], present: Objective) -> Objective:
    """The weights that an Optuna trial asks for; those not searched are the present ones."""
    values: dict[str, float] = {}
    for name in names:
        low, high, log = _RANGES[name]
        # Three digits are all that simulation can tell apart.
        values[name] = float(f"{trial.suggest_float(name, low, high, log=log):.3g}")
    alpha = values.pop("alpha")
    return _in_proportion(present).changed(values | {"completion": 2.0 * alpha, "imposed": 2.0 - 2.0 * alpha})


def _in_proportion(objective: Objective) -> Objective:
    """The same trade-offs, with completion and imposed summing up to 2."""
    total = objective.weights.completion + objective.weights.imposed
    if total <= 0.0:
        return objective
    scaled = {
        name: getattr(objective.weights, name) * 2.0 / total for name in WEIGHTS if name not in ("urgency", "lost")
    }
    return objective.changed(scaled)


def coordinates(objective: Objective, names: list[str]) -> dict[str, float]:
    """Where in the searched space these weights are, or the nearest point to them."""
    weights = _in_proportion(objective).weights
    total = weights.completion + weights.imposed
    alpha = weights.completion / total if total > 0.0 else 0.5
    values = {"alpha": alpha, "urgency": objective.urgency, "lost": objective.lost}
    found = {}
    for name in names:
        low, high, _ = _RANGES[name]
        found[name] = min(max(values.get(name, getattr(weights, name, 0.0)), low), high)
    return found


def nearby(point: dict[str, float], rng: np.random.Generator) -> dict[str, float]:
    """Another point close to this one: every second coordinate moved by a fifth of its range or so."""
    found = dict(point)
    for name, value in point.items():
        low, high, log = _RANGES[name]
        if rng.random() < 0.5:
            continue
        step = rng.normal(0.0, 0.2)
        moved = value * (high / low) ** step if log else value + (high - low) * step
        found[name] = float(min(max(moved, low), high))
    return found


def with_objective(policy: Policy, objective: Objective) -> Policy:
    """The policy with these weights; greedy urgency takes those that it knows."""
    if isinstance(policy, RollingHorizon):
        return replace(policy, objective=objective_text(objective))
    completion = objective.weights.completion
    imposed = objective.weights.imposed / completion if completion > 0.0 else 1e6
    return replace(policy, imposed=min(imposed, 1e6), urgency=objective.urgency, lost=objective.lost)


def objective_of(policy: Policy) -> Objective:
    """The weights that a policy has now.

    Raises
    ------
    ValueError
        If it has none.
    """
    if isinstance(policy, RollingHorizon):
        return make_objective(policy.objective)
    if isinstance(policy, GreedyUrgency):
        base = make_objective("deadline")
        return base.changed({"imposed": policy.imposed, "urgency": policy.urgency, "lost": policy.lost})
    raise ValueError(f"policy {policy.name} has no weights: expected {RollingHorizon.name} or {GreedyUrgency.name}")
