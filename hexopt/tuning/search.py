"""Search of the weights: Optuna proposes, short simulations sort out, long ones decide (successive halving)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hexopt.objective import Objective, make_objective, objective_text
from hexopt.parallel import Runner
from hexopt.policies.policy import Policy
from hexopt.tuning.goals import Figures, Goal
from hexopt.tuning.scenario import Part, Scenario, Trial, measure
from hexopt.tuning.space import coordinates, dimensions, nearby, suggested, with_objective

_BATCH = 12
"""Proposals at a time: a fixed number, so that the search does not depend on the number of workers."""
_KEPT = 3
"""One of so many goes on to the next round."""
_WORSE = 0.005
"""By so much one goal may lose while another gains more."""


@dataclass(frozen=True)
class Candidate:
    """Weights, and how they did in the runs that all of their round met."""

    objective: Objective
    policy: Policy
    figures: tuple[Figures, ...]


def trial_runs(
    runner: Runner, scenario: Scenario, policies: Sequence[Policy], part: Part, workflows: int, seeds: Sequence[int]
) -> list[tuple[Figures, ...]]:
    """The figures of each policy in the same runs, one a seed."""
    trials = [Trial(policy, part, workflows, seed) for policy in policies for seed in seeds]
    found = runner.map(measure, trials, scenario)
    return [tuple(found[k : k + len(seeds)]) for k in range(0, len(found), len(seeds))]


def rank(candidate: Candidate, present: Candidate, goals: Sequence[Goal]) -> tuple[bool, float]:
    """Higher is better: first those that lose in no goal, then the sum of the gains."""
    gains = [float(goal.gains(candidate.figures, present.figures).mean()) for goal in goals]
    return min(gains) >= -_WORSE, sum(gains)


def search(
    runner: Runner,
    scenario: Scenario,
    present: Objective,
    policy: Policy,
    goals: Sequence[Goal],
    *,
    trials: int,
    workflows: int,
    seeds: Sequence[int],
    sampler: str,
) -> tuple[Candidate, list[Candidate]]:
    """The present weights and the survivors of the search, best first, in the last round's runs.

    Parameters
    ----------
    trials, workflows, seeds
        Proposals; workflows of a run in the last round; the runs' seeds, common to all candidates of a round.
    sampler
        ``"tpe"`` or ``"nsga2"``.
    """
    few = seeds[: -(-len(seeds) // 2)]
    # Queues grow over hundreds of workflows: much shorter runs would favour what suits an idle cluster.
    rounds = ((max(workflows // 2, 10), few), (workflows, few), (workflows, seeds))
    study, names = _study(policy, goals, present, sampler, seeds[0])

    def rated(objectives: Sequence[Objective], length: int, seeds: Sequence[int]) -> list[Candidate]:
        policies = [with_objective(policy, objective) for objective in objectives]
        figures = trial_runs(runner, scenario, policies, "search", length, seeds)
        return [Candidate(*found) for found in zip(objectives, policies, figures, strict=True)]

    candidates: list[Candidate] = []
    while len(candidates) < trials:
        asked = [study.ask() for _ in range(min(_BATCH, trials - len(candidates)))]
        batch = rated([suggested(trial, names, present) for trial in asked], *rounds[0])
        for trial, candidate in zip(asked, batch, strict=True):
            figures = candidate.figures
            study.tell(trial, [sum(getattr(f, goal.name) for f in figures) / len(figures) for goal in goals])
        candidates += batch
    (now,) = rated([present], *rounds[0])
    for length, own in rounds[1:]:
        survivors = _best(candidates, now, goals)[: max(-(-len(candidates) // _KEPT), 1)]
        now, *candidates = rated([present, *(candidate.objective for candidate in survivors)], length, own)
    return now, _best(candidates, now, goals)


def _best(candidates: Sequence[Candidate], present: Candidate, goals: Sequence[Goal]) -> list[Candidate]:
    """Best first, those of equal weights once."""
    once = {objective_text(candidate.objective): candidate for candidate in candidates}
    return sorted(once.values(), key=lambda candidate: rank(candidate, present, goals), reverse=True)


def _study(policy: Policy, goals: Sequence[Goal], present: Objective, sampler: str, seed: int) -> tuple[Any, list[str]]:
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    chosen: Any = (
        optuna.samplers.NSGAIISampler(seed=seed, population_size=_BATCH)
        if sampler == "nsga2"
        else optuna.samplers.TPESampler(seed=seed, n_startup_trials=2 * _BATCH)
    )
    study = optuna.create_study(directions=[goal.direction for goal in goals], sampler=chosen)
    names = dimensions(policy, any(goal.name == "cost" for goal in goals))
    for known in (present, make_objective("attainment"), make_objective("throughput")):
        study.enqueue_trial(coordinates(known, names), skip_if_exists=True)
    # Present weights are seldom bad: half of the first batches stays close to them.
    rng = np.random.default_rng((seed, 2))
    for _ in range(_BATCH):
        study.enqueue_trial(nearby(coordinates(present, names), rng))
    return study, names
