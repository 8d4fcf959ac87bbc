"""The highest rate that every policy sustains, at every deadline of every trace and cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hexopt.policies.registry import make_policy
from hexopt.research.contestants import Contestant, register
from hexopt.research.definition import Definition
from hexopt.research.grid import Map, Shared, deadline_labels, here
from hexopt.research.results import SustainedRates


@dataclass(frozen=True)
class Search:
    """What to look for: see :meth:`hexopt.simulation.experiment.Experiment.capacity`."""

    setting: int
    deadline: int
    policy: str
    seed: int
    workflows: int
    share: float
    scale: float | None


def rate_of(shared: Shared, search: Search) -> float:
    """Workflows a second; 0 if too few are ever in time, infinite if any number is."""
    for source in shared.sources:
        register(source)
    experiment = shared.settings[search.setting].experiments[search.deadline]
    policy = make_policy(search.policy)
    return experiment.capacity(search.workflows, search.seed, policy, search.share, search.scale)


def sustained_rates(
    definition: Definition, shared: Shared, who: Sequence[Contestant], run: Map = here
) -> list[SustainedRates]:
    """What every policy sustains at every deadline of every trace and cluster; nothing where it is not asked for.

    A tuned policy runs with the value that sustains most on the tuning seeds.
    """
    if definition.sustained is None:
        return []
    places = [
        (setting, place)
        for setting in range(len(shared.settings))
        for place in range(len(definition.deadline_values))
    ]  # fmt: skip
    wanted = definition.sustained

    def rates(runs: Sequence[tuple[int, int, str]], seeds: Sequence[int]) -> dict[tuple[int, int, str], list[float]]:
        searches = [
            Search(*which, seed, wanted.workflows, wanted.share, wanted.scale) for which in runs for seed in seeds
        ]
        found = iter(run(rate_of, searches, shared) if searches else ())
        return {which: [next(found) for _ in seeds] for which in runs}

    tried = [(*at, c.tuned.at(value)) for at in places for c in who if c.tuned for value in c.tuned.values]
    tuning = rates(tried, definition.tuning_seed_list)

    def text_of(at: tuple[int, int], contestant: Contestant) -> str:
        if contestant.tuned is None:
            return contestant.text
        texts = [contestant.tuned.at(value) for value in contestant.tuned.values]
        return max(texts, key=lambda text: np.mean(tuning[(*at, text)]))

    ran = {at: {c.label: text_of(at, c) for c in who} for at in places}
    reported = rates(list(dict.fromkeys((*at, t) for at in places for t in ran[at].values())), definition.seed_list)
    found = []
    for at in places:
        setting, deadline = shared.settings[at[0]], deadline_labels(definition)[at[1]]
        by_label = {label: np.array(reported[(*at, text)]) for label, text in ran[at].items()}
        found.append(
            SustainedRates(
                *at, setting.trace, setting.cluster, deadline, wanted.share, wanted.scale, definition.seed_list,
                ran[at], by_label,
            )
        )  # fmt: skip
    return found
