"""The traffic that weights are tried on: one part to search with, a later one held out to judge by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hexopt.cluster import Cluster
from hexopt.policies.policy import Policy
from hexopt.simulation.experiment import Experiment
from hexopt.traces import Workflow
from hexopt.traces.arrivals import poisson
from hexopt.tuning.goals import Figures

Part = Literal["search", "held-out"]

SEARCH_SHARE = 0.6
"""Of the workflows, in the order of their arrival."""
LEAST_WORKFLOWS = 20
"""That a trace must have, as both parts must show more than single workflows' luck."""
_BLOCK = 20
"""Workflows in a row that are replayed together with the gaps between them."""


@dataclass(frozen=True)
class Scenario:
    """Traffic on a cluster, in two parts.

    Parameters
    ----------
    experiment
        All of the workflows, on their cluster; predictors start from a pilot of the searched part.
    order
        Templates in the order of their arrival, shape (templates,).
    rate
        Poisson arrivals, workflows a second; None replays the trace's own gaps: runs of consecutive workflows, drawn
        at random and put one behind the other (the moving-block bootstrap, Künsch, Annals of Statistics 1989), so
        that bursts and what comes together in them stay as they were.
    """

    experiment: Experiment
    order: NDArray[np.int64]
    rate: float | None

    @classmethod
    def of(
        cls,
        workflows: Sequence[Workflow],
        cluster: Cluster,
        *,
        rate: float | None = None,
        slo: float | None = None,
        slo_factor: float = 3.0,
    ) -> Scenario:
        """Split and compile.

        Raises
        ------
        ValueError
            If there are too few workflows, or no rate and no arrival times.
        """
        if len(workflows) < LEAST_WORKFLOWS:
            raise ValueError(f"the trace has {len(workflows)} workflows, expected at least {LEAST_WORKFLOWS}")
        workflows = sorted(workflows, key=lambda workflow: workflow.arrival)
        if rate is None and workflows[-1].arrival <= workflows[0].arrival:
            raise ValueError("the trace has no arrival times: give --rate or --load")
        searched = workflows[: round(SEARCH_SHARE * len(workflows))]
        step = max(min(5, len(searched) // 20), 1)
        experiment = Experiment.of(workflows, cluster, training=searched[::step], slo=slo, slo_factor=slo_factor)
        return cls(experiment, np.arange(len(workflows)), rate)

    def templates(self, part: Part) -> NDArray[np.int64]:
        """The templates of a part, by arrival."""
        cut = round(SEARCH_SHARE * len(self.order))
        return self.order[:cut] if part == "search" else self.order[cut:]

    def draw(self, part: Part, workflows: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Templates and arrival times, seconds, of a run on a part; both of shape (workflows,)."""
        rng = np.random.default_rng((seed, part == "held-out"))
        templates = self.templates(part)
        count = templates.shape[0]
        if self.rate is not None:
            rounds = -(-workflows // count)
            picks = np.concatenate([rng.permutation(templates) for _ in range(rounds)])[:workflows]
            return picks, poisson(self.rate, workflows, rng)
        arrival = self.experiment.workload.arrival[templates]
        # A part's first gap is unknown: it is taken to be a usual one.
        gaps = np.diff(arrival, prepend=arrival[0] - (arrival[-1] - arrival[0]) / (count - 1))
        length = min(_BLOCK, count)
        starts = rng.integers(0, count - length + 1, size=-(-workflows // length))
        rows = (starts[:, None] + np.arange(length)).ravel()[:workflows]
        times = np.cumsum(gaps[rows])
        return templates[rows], times - times[0]


@dataclass(frozen=True, slots=True)
class Trial:
    """One simulation of a policy."""

    policy: Policy
    part: Part
    workflows: int
    seed: int


def measure(scenario: Scenario, trial: Trial) -> Figures:
    """Simulate, as a worker does."""
    return Figures.of(scenario.experiment.run(trial.policy, *scenario.draw(trial.part, trial.workflows, trial.seed)))
