"""The epoch problems that a run brings, and a sample of them by size."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hexopt.epoch import Epoch
from hexopt.policies.registry import make_policy
from hexopt.policies.rolling_horizon import RollingHorizon
from hexopt.research.gap.sizes import shares, size_class
from hexopt.research.grid import Job, Shared, drawn
from hexopt.scheduler import watched
from hexopt.solvers.files import problem_table


@dataclass(frozen=True)
class Recorded:
    """An epoch problem of a run.

    Parameters
    ----------
    cell, seed, number
        Cell of the experiment, seed of the run, and position among the run's epochs.
    at_s
        Simulated seconds.
    stages
        n of the problem.
    text
        The problem as JSON, as :mod:`hexopt.solvers.files` reads it.
    ticket
        Random number: those with the smallest ones are a sample.
    stands_for
        Epochs of its size and cell that it stands for.
    """

    cell: int
    seed: int
    number: int
    at_s: float
    stages: int
    text: str
    ticket: float
    stands_for: float = 1.0

    @property
    def size(self) -> int:
        """Its size class."""
        return size_class(self.stages)


@dataclass(frozen=True)
class Recording:
    """What one run brought: epochs of each size class, and those kept."""

    counts: dict[int, int]
    kept: list[Recorded]


@dataclass(frozen=True)
class Task:
    """A run to be recorded; of each size class at most ``most`` problems are kept, all where it is None."""

    cell: int
    job: Job
    most: int | None


def record(shared: Shared, task: Task) -> Recording:
    """Run and keep the epoch problems of the time in which the measured workflows arrive."""
    job = task.job
    experiment = shared.settings[job.setting].experiments[job.deadline]
    picks, arrivals = drawn(shared, job)
    last = job.before + job.workflows
    begin = float(arrivals[job.before])
    end = float(arrivals[last]) if last < arrivals.size else np.inf
    tickets = np.random.default_rng((job.seed, 2))
    counts: Counter[int] = Counter()
    kept: dict[int, list[Recorded]] = {}
    number = 0

    def watch(epoch: Epoch, now: float) -> None:
        nonlocal number
        number += 1
        if not begin <= now < end:
            return
        n, ticket = epoch.problem.stages, float(tickets.random())
        size = size_class(n)
        counts[size] += 1
        there = kept.setdefault(size, [])
        if task.most is not None and len(there) >= task.most:
            worst = max(range(len(there)), key=lambda k: there[k].ticket)
            if there[worst].ticket <= ticket:
                return
            del there[worst]
        text = json.dumps(problem_table(epoch.problem), allow_nan=False)
        there.append(Recorded(task.cell, job.seed, number, now, n, text, ticket))

    policy = make_policy(job.policy)
    assert isinstance(policy, RollingHorizon)
    experiment.run(watched(policy, watch), picks, arrivals)
    return Recording(dict(counts), [found for size in sorted(kept) for found in kept[size]])


def sample(recordings: Sequence[Recording], wanted: int | None) -> list[Recorded]:
    """Problems of one cell: all, or ``wanted`` of them, equally many of each size class as far as there are.

    Every run must have kept at least ``wanted`` of each class, or all.
    """
    counts: Counter[int] = Counter()
    for recording in recordings:
        counts.update(recording.counts)
    take = dict(counts) if wanted is None else shares(counts, wanted)
    chosen: list[Recorded] = []
    for size, number in take.items():
        there = [found for recording in recordings for found in recording.kept if found.size == size]
        there.sort(key=lambda found: (found.ticket, found.seed, found.number))
        chosen += [replace(found, stands_for=counts[size] / number) for found in there[:number]]
    return sorted(chosen, key=lambda found: (found.seed, found.number))
