"""The runs of an experiment: every policy of a cell sees the same workflows at the same times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.cluster import Cluster
from hexopt.policies.registry import make_policy
from hexopt.research.conditions import USUAL, Condition
from hexopt.research.contestants import Contestant, Source, register
from hexopt.research.definition import Definition, DefinitionError
from hexopt.research.measuring import measured, per_workflow
from hexopt.research.metrics import LEAST_FOR_REQ99, METRICS
from hexopt.research.results import Cell, Results
from hexopt.simulation.events import EventError, FleetEvent, event_table, parse_event
from hexopt.simulation.experiment import Experiment
from hexopt.simulation.simulator import Run
from hexopt.traces.workflow import Workflow

MOST_WORKFLOWS = 2_000_000
"""Workflows of one run at most, warm-up and drain included."""

Map = Callable[..., list[Any]]
"""``map(function, items, shared)``: ``[function(shared, item) for item in items]``, in this process or in others."""


@dataclass(frozen=True)
class Setting:
    """A trace on a cluster, with one experiment a deadline."""

    trace: str
    cluster: str
    experiments: tuple[Experiment, ...]
    events: tuple[FleetEvent, ...] = ()
    condition: Condition = USUAL

    @property
    def longest_deadline(self) -> float:
        """Seconds."""
        return max(float(e.deadline.max()) for e in self.experiments)

    @classmethod
    def of(
        cls,
        trace: str,
        cluster: str,
        workflows: Sequence[Workflow],
        fleet: Cluster,
        training: Sequence[Workflow] | None,
        definition: Definition,
    ) -> Setting:
        """Compile the workflows once, and set each deadline of the definition.

        Raises
        ------
        DefinitionError
            If an event cannot happen on ``fleet``.
        """
        events = tuple(map(parse_event, definition.events))
        try:
            event_table(events, fleet)
        except EventError as error:
            raise DefinitionError(f"events: {error}") from error
        made = [
            Experiment.of(workflows, fleet, training=training, **{definition.deadline_name: value})
            for value in definition.deadline_values
        ]
        return cls(trace, cluster, (made[0], *(replace(made[0], deadline=e.deadline) for e in made[1:])), events)

    def under(self, condition: Condition) -> Setting:
        """The same under another condition, whose events come to those that happen anyway.

        Raises
        ------
        DefinitionError
            If an event cannot happen on the cluster, or not beside the others.
        """
        events = (*self.events, *map(parse_event, condition.events))
        try:
            event_table(events, self.experiments[0].cluster)
        except EventError as error:
            raise DefinitionError(f"conditions: events: {error}") from error
        return replace(self, events=events, condition=condition)


@dataclass(frozen=True)
class Shared:
    """What every worker needs."""

    settings: tuple[Setting, ...]
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True)
class Job:
    """One run: the setting and the deadline by number, who schedules, and how much is measured.

    ``before`` and ``after`` are the workflows that arrive before and after the measured ones.
    """

    setting: int
    deadline: int
    rate: float
    policy: str
    seed: int
    before: int
    workflows: int
    after: int


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: its figures, and its measured workflows."""

    row: dict[str, Any]
    workflows: dict[str, NDArray[Any]]


def capacity_of(shared: Shared, setting: int) -> float:
    """Workflows a second, at the first deadline; see :meth:`hexopt.simulation.experiment.Experiment.capacity`."""
    return shared.settings[setting].experiments[0].capacity()


def drawn(shared: Shared, job: Job) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Templates and arrivals of a run: nothing that depends on the policy or the deadline goes into them."""
    total, setting = job.before + job.workflows + job.after, shared.settings[job.setting]
    picks, arrivals = setting.experiments[0].sample(total, job.rate, job.seed)
    times = setting.condition.times(job.rate, total, job.seed)
    return picks, arrivals if times is None else times


def run_of(shared: Shared, job: Job) -> Run:
    """Simulate one run."""
    setting = shared.settings[job.setting]
    return setting.experiments[job.deadline].run(
        make_policy(job.policy),
        *drawn(shared, job),
        events=setting.events,
        mistakes=setting.condition.mistakes(job.seed),
    )


def run_job(shared: Shared, job: Job) -> Outcome:
    """Simulate one run and measure it."""
    for source in shared.sources:
        register(source)
    experiment = shared.settings[job.setting].experiments[job.deadline]
    picks, _ = drawn(shared, job)
    run = run_of(shared, job)
    standalone = experiment.standalone[picks]
    row = measured(run, standalone, job.before, job.workflows).row()
    if job.workflows < LEAST_FOR_REQ99:
        row["req99"] = None
    return Outcome(row, per_workflow(run, standalone, picks, job.before, job.workflows))


def cells_of(definition: Definition, shared: Shared, capacities: Sequence[float]) -> list[Cell]:
    """Every combination of trace, cluster, rate and deadline.

    Raises
    ------
    DefinitionError
        If a run would be longer than :data:`MOST_WORKFLOWS`.
    """
    cells = []
    for number, setting in enumerate(shared.settings):
        loads: list[float | None] = [*definition.loads] or [None] * len(definition.rates)
        rates = definition.rates or [load * capacities[number] for load in definition.loads]
        for load, rate in zip(loads, rates, strict=True):
            spare = rate * setting.longest_deadline
            before, after = math.ceil(definition.warm_up * spare), math.ceil(definition.drain * spare)
            if before + after + definition.workflows > MOST_WORKFLOWS:
                raise DefinitionError(
                    f"warm_up and drain: {setting.trace} on {setting.cluster} at {rate:g}/s would need "
                    f"{before + after:,} workflows beside the measured ones, expected at most {MOST_WORKFLOWS:,}"
                )
            for place, label in enumerate(deadline_labels(definition)):
                cells.append(
                    Cell(
                        number, place, setting.trace, setting.cluster, rate, load, label, before, after,
                        setting.condition.label,
                    )
                )  # fmt: skip
    return cells


def deadline_labels(definition: Definition) -> list[str]:
    """What tables and figures call the deadlines."""
    unit = {"slo_factor": "x", "slo_scale": "x own", "slo": " s"}[definition.deadline_name]
    return [f"{value:g}{unit}" for value in definition.deadline_values]


def job_count(definition: Definition, who: Sequence[Contestant], settings: int) -> int:
    """Items of all the maps that :func:`run_grid` and :func:`~hexopt.research.sustained.sustained_rates` ask for."""
    deadlines = settings * len(definition.deadline_values)
    cells = deadlines * (len(definition.rates or definition.loads) + (definition.sustained is not None))
    tuning = sum(len(c.tuned.values) for c in who if c.tuned) * len(definition.tuning_seed_list)
    return (settings if definition.loads else 0) + cells * (tuning + len(who) * len(definition.seed_list))


def here(function: Callable[..., Any], items: Sequence[Any], shared: Any) -> list[Any]:
    """One after the other, in this process."""
    return [function(shared, item) for item in items]


def run_grid(definition: Definition, shared: Shared, who: Sequence[Contestant], run: Map = here) -> Results:
    """All runs of the experiment: capacities, then those that parameters are chosen by, then those reported.

    Parameters
    ----------
    run
        Where they run: here, or :meth:`hexopt.parallel.Runner.map`.

    Raises
    ------
    DefinitionError
        If a cluster has no capacity to take a share of, or runs would be too long.
    """
    capacities = [math.nan] * len(shared.settings)
    if definition.loads:
        capacities = run(capacity_of, range(len(shared.settings)), shared)
        for setting, capacity in zip(shared.settings, capacities, strict=True):
            if not 0 < capacity < math.inf:
                which = "too few" if capacity == 0 else "most"
                raise DefinitionError(
                    f"loads: {setting.trace} on {setting.cluster}: {which} workflows meet their deadlines at any "
                    "rate; give rates, or other deadlines first"
                )
    cells = cells_of(definition, shared, capacities)
    results = Results(cells=cells, capacities=list(capacities))
    chosen = _tune(definition, shared, who, cells, run, results)
    jobs, owners = [], []
    for number, cell in enumerate(cells):
        for contestant in who:
            text = chosen.get((number, contestant.label), contestant.text)
            for seed in definition.seed_list:
                jobs.append(_job(cell, definition, text, seed))
                owners.append((cell, contestant, text, seed))
    for (cell, contestant, text, seed), outcome in zip(owners, run(run_job, jobs, shared), strict=True):
        results.add(cell, contestant.label, text, seed, outcome.row, outcome.workflows)
    return results


def _job(cell: Cell, definition: Definition, policy: str, seed: int) -> Job:
    return Job(cell.setting, cell.place, cell.rate, policy, seed, cell.before, definition.workflows, cell.after)


def _tune(
    definition: Definition, shared: Shared, who: Sequence[Contestant], cells: Sequence[Cell], run: Map, results: Results
) -> dict[tuple[int, str], str]:
    """The text of each tuned policy in each cell: the value with the best mean over the tuning seeds."""
    jobs, owners = [], []
    for number, cell in enumerate(cells):
        for contestant in who:
            for value in contestant.tuned.values if contestant.tuned else ():
                for seed in definition.tuning_seed_list:
                    text = contestant.tuned.at(value) if contestant.tuned else contestant.text
                    jobs.append(_job(cell, definition, text, seed))
                    owners.append((number, contestant, text, seed))
    if not jobs:
        return {}
    figures: dict[tuple[int, str], dict[str, list[float]]] = {}
    for (number, contestant, text, seed), outcome in zip(owners, run(run_job, jobs, shared), strict=True):
        assert contestant.tuned is not None
        results.add_tuning(cells[number], contestant.label, text, seed, outcome.row)
        value = outcome.row[contestant.tuned.metric]
        of_cell = figures.setdefault((number, contestant.label), {})
        of_cell.setdefault(text, []).append(math.inf if value is None else value)
    metrics = {c.label: METRICS[c.tuned.metric] for c in who if c.tuned}
    return {
        key: min(texts, key=lambda text: np.mean(texts[text]) * (1 if metrics[key[1]].smaller_is_better else -1))
        for key, texts in figures.items()
    }
