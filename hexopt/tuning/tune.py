"""The whole of it: search on one part of the traffic, judge on the other, say what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from hexopt.objective import objective_text
from hexopt.parallel import Runner
from hexopt.policies.policy import HexGenFlow, Policy
from hexopt.tuning.comparison import Interval, paired
from hexopt.tuning.goals import GOALS, Figures, Goal
from hexopt.tuning.scenario import Scenario
from hexopt.tuning.search import rank, search, trial_runs
from hexopt.tuning.space import objective_of

HEXGEN_FLOW_ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""The grid of HexGen-Flow's own search (arXiv 2505.05286)."""
CONFIDENCE = 0.95
_SEEDS_APART = 1_000


class TuningError(ValueError):
    """Settings with which nothing can be tuned; the message names the flag."""


@dataclass(frozen=True)
class Settings:
    """How long to search, and what for.

    Parameters
    ----------
    goals
        Names of :data:`hexopt.tuning.GOALS`.
    trials
        Weights that are proposed.
    workflows
        Of a run in the last round, and of those to judge by.
    seeds
        Runs for each candidate in the search.
    held_out
        Runs to judge by.
    sampler
        Optuna's ``"tpe"`` or ``"nsga2"``.
    seed
        Of every random draw.
    """

    goals: tuple[str, ...] = ("attainment", "p95")
    trials: int = 48
    workflows: int = 200
    seeds: int = 4
    held_out: int = 20
    sampler: str = "tpe"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.goals:
            if name not in GOALS:
                raise TuningError(f"--objective {name!r} is unknown; there are {', '.join(GOALS)}")
        if not self.goals or len(set(self.goals)) < len(self.goals):
            raise TuningError(f"--objective {','.join(self.goals)}: expected one or more, each once")
        for name, least in (("trials", 1), ("workflows", 10), ("seeds", 1), ("held_out", 2), ("seed", 0)):
            if getattr(self, name) < least:
                flag = "--" + name.replace("_", "-")
                raise TuningError(f"{flag} is {getattr(self, name)}, expected at least {least}")
        if self.sampler not in ("tpe", "nsga2"):
            raise TuningError(f"--sampler {self.sampler!r}: expected tpe or nsga2")
        if find_spec("optuna") is None:
            raise TuningError("tuning needs Optuna: pip install 'hexopt[tune]'")


@dataclass(frozen=True)
class Contestant:
    """A policy on the held-out part; figures are means over the runs."""

    role: str
    policy: str
    figures: Figures


@dataclass(frozen=True)
class Gain:
    """How much better the weights found are than a contestant on the held-out part, with what certainty."""

    against: str
    goal: str
    gain: Interval


@dataclass(frozen=True)
class TuningReport:
    """What was found.

    Parameters
    ----------
    present, found
        Weights as :func:`hexopt.objective.make_objective` reads them; ``found`` are the best of the search.
    policy
        The policy with the weights found.
    wins
        Whether they are better in one goal with confidence, and in none worse.
    contestants, gains
        The held-out part.
    verdict
        In words.
    simulations
        Those of the search and the judgement.
    """

    present: str
    found: str
    policy: Policy
    wins: bool
    contestants: tuple[Contestant, ...]
    gains: tuple[Gain, ...]
    verdict: str
    simulations: int

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "present": self.present,
            "found": self.found,
            "wins": self.wins,
            "verdict": self.verdict,
            "simulations": self.simulations,
            "held_out": [{"role": c.role, "policy": c.policy, **asdict(c.figures)} for c in self.contestants],
            "gains": [{"against": g.against, "goal": g.goal, **asdict(g.gain)} for g in self.gains],
        }


def tune(runner: Runner, scenario: Scenario, policy: Policy, settings: Settings | None = None) -> TuningReport:
    """Search weights for ``policy`` and compare them with the present ones and with HexGen-Flow's best alpha.

    Parameters
    ----------
    runner
        Where simulations run; what is found does not depend on it.
    scenario
        The traffic.
    policy
        A rolling horizon with a frozen solver, or greedy urgency, with the present weights.

    Raises
    ------
    ValueError
        If the policy has no weights, or cost is a goal and no instance has a price.
    """
    settings = settings or Settings()
    goals = [GOALS[name] for name in settings.goals]
    present = objective_of(policy)
    if "cost" in settings.goals and not any(i.price for i in scenario.experiment.cluster.instances):
        raise TuningError("--objective cost: no instance of the cluster has a price")
    first = settings.seed * _SEEDS_APART
    seeds = range(first, first + settings.seeds)
    now, survivors = search(
        runner, scenario, present, policy, goals,
        trials=settings.trials, workflows=settings.workflows, seeds=seeds, sampler=settings.sampler,
    )  # fmt: skip
    best = survivors[0]
    rival = _best_alpha(runner, scenario, goals, settings.workflows, seeds)

    policies = [policy, best.policy, rival]
    judged = range(first + settings.seeds, first + settings.seeds + settings.held_out)
    figures = trial_runs(runner, scenario, policies, "held-out", settings.workflows, judged)
    contestants = tuple(
        Contestant(role, contestant.label, _mean(own))
        for role, contestant, own in zip(("present", "found", "hexgen-flow"), policies, figures, strict=True)
    )
    # Of several goals one or another seems better by chance more often than a single one does.
    confidence = 1.0 - (1.0 - CONFIDENCE) / len(goals)
    gains = tuple(
        Gain(role, goal.name, paired(goal.gains(figures[1], other), confidence))
        for role, other in (("present", figures[0]), ("hexgen-flow", figures[2]))
        for goal in goals
    )
    searched_worse = rank(best, now, goals)[1] <= 0.0
    wins, verdict = _verdict([gain for gain in gains if gain.against == "present"], searched_worse)
    return TuningReport(
        present=objective_text(present),
        found=objective_text(best.objective),
        policy=best.policy,
        wins=wins,
        contestants=contestants,
        gains=gains,
        verdict=verdict,
        simulations=runner.finished,
    )


def _best_alpha(
    runner: Runner, scenario: Scenario, goals: Sequence[Goal], workflows: int, seeds: Sequence[int]
) -> Policy:
    """HexGen-Flow with the alpha that is best on the searched part, as described or as first published."""
    grid = [HexGenFlow(alpha, shipped) for shipped in (False, True) for alpha in HEXGEN_FLOW_ALPHAS]
    figures = trial_runs(runner, scenario, grid, "search", workflows, seeds)
    scores = [sum(float(goal.gains(own, figures[0]).mean()) for goal in goals) for own in figures]
    return grid[int(np.argmax(scores))]


def _mean(figures: Sequence[Figures]) -> Figures:
    return Figures(*(float(np.mean([getattr(f, name) for f in figures])) for name in ("p95", "attainment", "cost")))


def _verdict(gains: Sequence[Gain], searched_worse: bool) -> tuple[bool, str]:
    if searched_worse:
        return False, "the search found nothing better: the present weights stay"
    worse = [GOALS[gain.goal] for gain in gains if gain.gain.high < 0.0]
    better = [gain for gain in gains if gain.gain.low > 0.0]
    if worse:
        return False, f"worse on held-out traffic ({', '.join(goal.words for goal in worse)}): the present weights stay"
    if not better:
        return False, "no gain on held-out traffic that could not be chance: the present weights stay"
    words = "; ".join(
        f"{GOALS[g.goal].words} {GOALS[g.goal].said(g.gain.mean)} "
        f"[{', '.join(GOALS[g.goal].said(x) for x in sorted((g.gain.low, g.gain.high)))}]"
        for g in better
    )
    return True, f"better on held-out traffic: {words}"
