"""How much longer than at best options really take when they are never idle: measured by flooding one of each.

The costs of :mod:`hexopt.planning.efficiency` assume perfect batches, caches that forget nothing and no preemption.
Where KV memory is short that is far from true. One instance of each option is given the demand's workflows all at once
and simulated with the real scheduler; its busy seconds over those that the costs say are its factor. As it may do
better on the classes that suit it, options with a large factor are flooded with each class alone too, and the smaller
factor counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hexopt.planning.demand import Demand, Service
from hexopt.planning.efficiency import efficiency_of
from hexopt.planning.fleet import cluster_of
from hexopt.planning.proof import Map, Setting, here
from hexopt.planning.work import Work, work_of
from hexopt.simulation.experiment import that_fit, train
from hexopt.simulation.simulator import simulate
from hexopt.traces.workflow import Workflow

FLOOD, CLASS_FLOOD = 400, 100
"""Workflows in a flood of all classes, and of one."""
SURPLUS = 0.95
"""Share of a measured factor that is used: no schedule is taken to be more than 5% better than the one measured."""
_LARGE = 1.3
"""Factor from which an option is flooded with each class alone."""


def factors(setting: Setting, work: Work, run: Map = here) -> NDArray[np.float64]:
    """By what the busy seconds of each class on each option must be multiplied, shape (k, m), at least 1."""
    options = range(len(setting.options))
    mix = np.array(run(_factor, [(j, -1) for j in options], (setting, work)))
    factor = np.tile(mix, (len(work), 1))
    poor = [(j, k) for j in options if mix[j] > _LARGE for k in range(len(work))]
    for (j, k), alone in zip(poor, run(_factor, poor, (setting, work)), strict=True):
        factor[k, j] = min(factor[k, j], alone)
    return np.maximum(SURPLUS * factor, 1.0)


def _factor(shared: tuple[Setting, Work], flood: tuple[int, int]) -> float:
    """Busy seconds of option j under a flood, over those at best; 1 where it can serve nothing of it."""
    (setting, work), (j, k) = shared, flood
    option = setting.options[j]
    fleet = tuple(int(i == j) for i in range(len(setting.options)))
    cluster = cluster_of(setting.options, fleet)
    pool = _only(setting.demand, work, k) if k >= 0 else [w for s in setting.demand.services for w in s.workflows]
    pool = that_fit(pool, cluster)
    if not pool:
        return 1.0
    demand = Demand((Service("flood", tuple(pool), 1.0, 1.0),))
    own = work_of(demand, [option.instance], 1.0)
    least = efficiency_of(own, [option]).busy[:, 0].min(axis=1)[own.call_class]
    count = CLASS_FLOOD if k >= 0 else FLOOD
    picks = np.random.default_rng(0).permutation(np.arange(max(count, len(pool))) % len(pool))[:count]
    jobs = demand.workload.draw(picks, np.zeros(count), np.ones(count))
    training = train(demand.pilot(), demand.workload.kinds, cluster)
    done = simulate(jobs, demand.workload.kinds, cluster, setting.policy, training)
    at_best = _per_template(demand, least)[picks].sum()
    return float(done.instance["busy_seconds"].sum() / at_best)


def _only(demand: Demand, work: Work, k: int) -> Sequence[Workflow]:
    """The demand's workflows with nothing but the calls of class ``k``, all ready at once."""
    found, row = [], 0
    for service in demand.services:
        for workflow in service.workflows:
            last = row + len(workflow.stages)
            kept = [
                replace(stage, parents=(), tool_delay=0.0)
                for stage, own in zip(workflow.stages, work.call_class[row:last] == k, strict=True)
                if own
            ]
            row = last
            if kept:
                found.append(replace(workflow, stages=tuple(kept)))
    return found


def _per_template(demand: Demand, calls: NDArray[np.float64]) -> NDArray[np.float64]:
    owner = np.repeat(np.arange(len(demand.workload)), demand.workload.stages)
    return np.bincount(owner, weights=calls, minlength=len(demand.workload))
