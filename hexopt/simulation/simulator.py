"""Run a workload on a cluster under a policy."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hexopt.cluster import Cluster
from hexopt.policies.compiled import PLANNER
from hexopt.policies.knowledge import Knowledge
from hexopt.policies.linking import TICK
from hexopt.policies.policy import Fleet, Policy, Training
from hexopt.simulation.cycles import COUNTS, read_cycles
from hexopt.simulation.events import FleetEvent, event_table
from hexopt.simulation.loop import DECIDE, PAUSED, place_external, run
from hexopt.simulation.mechanisms import remembered, switch_admission, switch_swap, write_facts
from hexopt.simulation.mistakes import Mistakes
from hexopt.simulation.state import (
    CLOCK,
    DECODE,
    ENTRY,
    EVENT,
    INSTANCE,
    MIXED,
    NODE_HERE,
    NONE,
    PREFILL,
    Simulation,
)
from hexopt.simulation.workload import Jobs

if TYPE_CHECKING:
    from hexopt.scheduler import SolveTally


ROLES = {"mixed": MIXED, "prefill": PREFILL, "decode": DECODE}
"""Numbers of the roles that clusters name."""


class SimulationError(ValueError):
    """Work that the cluster cannot do."""


@dataclass(frozen=True)
class Run:
    """What happened in one simulation.

    Parameters
    ----------
    policy
        The policy's label.
    stage, workflow, instance
        Records after the run, see :mod:`hexopt.simulation.state`; times in absolute seconds.
    kinds
        Names of the stage kinds.
    cluster
        Where it ran.
    engine_cpu_seconds
        Processor seconds of the event loop, the policy included.
    scheduler_cpu_seconds
        The policy's part of them, by the processor's cycle counter; NaN where there is none.
    decisions
        Placements made.
    end
        Simulated seconds at the end.
    solves
        What the scheduler's solver did, where there is one.
    """

    policy: str
    stage: NDArray[np.void]
    workflow: NDArray[np.void]
    instance: NDArray[np.void]
    kinds: tuple[str, ...]
    cluster: Cluster
    engine_cpu_seconds: float
    scheduler_cpu_seconds: float
    decisions: int
    end: float
    solves: SolveTally | None = None


def fleet_of(cluster: Cluster) -> Fleet:
    """What policies are told of ``cluster``."""
    return Fleet(
        coef=np.array([i.coef for i in cluster.instances]),
        gpus=tuple(i.cell.cell.gpu for i in cluster.instances),
        max_batched=np.array([i.max_num_batched_tokens for i in cluster.instances]),
        price=np.array([i.price for i in cluster.instances]),
        roles=tuple(ROLES[i.role] for i in cluster.instances),
    )


def instance_table(cluster: Cluster, by_priority: bool, preempted_first: bool = False) -> NDArray[np.void]:
    """INSTANCE records of an idle cluster, shape (m,)."""
    table = np.zeros(len(cluster), dtype=INSTANCE)
    gpus = list(dict.fromkeys(i.cell.cell.gpu for i in cluster.instances))
    for row, i in zip(table, cluster.instances, strict=True):
        row["gpu"] = gpus.index(i.cell.cell.gpu)
        row["block_size"] = i.block_size
        row["blocks"] = i.kv_tokens // i.block_size
        row["max_seqs"] = i.max_num_seqs
        row["max_batched"] = i.max_num_batched_tokens
        # One block stays in reserve: vLLM keeps its null block, and a cached prompt is read without its last block.
        row["max_len"] = min(i.max_model_len, (i.kv_tokens // i.block_size - 1) * i.block_size)
        row["by_priority"] = by_priority
        row["preempted_first"] = preempted_first
        row["prefix_caching"] = i.prefix_caching
        write_facts(row, i)
        switch_swap(row, i.swap)
        switch_admission(row, i.admission)
        row["role"] = ROLES[i.role]
    table["next_event"] = math.inf
    for field in ("waiting_root", "first_here"):
        table[field] = NONE
    table["free"] = table["blocks"]
    table["generator"] = np.arange(1, len(cluster) + 1)
    return table


def free_entries(instance: NDArray[np.void], nodes: int) -> int:
    """Entries that a free queue may need, and two to spare."""
    # An entry holds at least one block; anonymous neighbours merge, so nodes bound the entries too.
    return min(int(instance["blocks"].max()), 2 * nodes + 1) + 2


def build(
    jobs: Jobs,
    instance: NDArray[np.void],
    coef: NDArray[np.float64],
    links: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    events: NDArray[np.void] | None = None,
) -> Simulation:
    """The state before the first event.

    Parameters
    ----------
    jobs
        The work; its arrays are used as they are and changed by the run.
    instance
        INSTANCE records of the idle instances, shape (m,).
    coef
        True roofline coefficients, shape (m, N_FEATURES), seconds.
    links
        Seconds before KV arrives from instance to instance, and a token's; both shape (m, m). None: no time.
    events
        EVENT records by time, shape (number of events,). None: there are none.
    """
    instances, nodes, stages = instance.shape[0], jobs.node.shape[0], jobs.stage.shape[0]
    entries = free_entries(instance, nodes)
    entry = np.zeros((instances, entries), dtype=ENTRY)
    entry["next"] = np.append(np.arange(1, entries), NONE)
    entry[:, 0] = list(zip([NONE] * instances, [NONE] * instances, [NONE] * instances, instance["blocks"], strict=True))
    instance["lru_front"] = 0
    instance["lru_back"] = 0
    instance["lru_spare"] = 1
    here = np.zeros((instances, nodes), dtype=NODE_HERE)
    here["entry"] = NONE
    clock = np.zeros(1, dtype=CLOCK)
    clock["stages_left"] = stages
    clock["wake"] = math.inf
    clock["tick"] = math.inf
    none = np.zeros((instances, instances))
    latency, seconds = links or (none, none)
    history, forecast = remembered(instance)
    return Simulation(
        stage=jobs.stage,
        child=jobs.child,
        workflow=jobs.workflow,
        instance=instance,
        coef=np.ascontiguousarray(coef),
        running=np.zeros((instances, int(instance["max_seqs"].max())), dtype=np.int32),
        node=jobs.node,
        here=here,
        entry=entry,
        path=np.zeros(nodes + 1, dtype=np.int32),
        delayed=np.zeros(stages, dtype=np.int32),
        link_latency=latency,
        link_seconds=seconds,
        event=np.zeros(0, dtype=EVENT) if events is None else events,
        ready=np.zeros(stages, dtype=np.int32),
        history=history,
        forecast=forecast,
        clock=clock,
    )


def longest_context(cluster: Cluster) -> int:
    """Prompt and output tokens of the longest call that can end on an instance of ``cluster``."""
    ends = [i for i, instance in enumerate(cluster.instances) if instance.role != "prefill"]
    return int(instance_table(cluster, True)["max_len"][ends].max())


def servable(prompt: NDArray[np.int64], output: NDArray[np.int64], instance: NDArray[np.void]) -> NDArray[np.bool_]:
    """Whether calls of so many tokens, both shape (n,), fit somewhere: a mixed instance, or a prefill and a decode one.

    A prefill instance must hold the prompt and the first token, the decode instance all; where that token is the last
    one, none is needed.
    """
    mixed, prefill, decode = (_longest(instance, role) for role in (MIXED, PREFILL, DECODE))
    tokens = prompt + output
    apart = (prompt + 1 <= prefill) & ((tokens <= decode) | (output == 1))
    return np.asarray((tokens <= mixed) | apart)


def _longest(instance: NDArray[np.void], role: int) -> int:
    return int(instance["max_len"][instance["role"] == role].max(initial=0))


def limits_of(instance: NDArray[np.void]) -> str:
    """In words for errors, why a call that is not servable is not."""
    prefill, decode = _longest(instance, PREFILL), _longest(instance, DECODE)
    if prefill == 0:
        return f"longer than every instance's context (the longest is {_longest(instance, MIXED)} tokens)"
    mixed = f"; mixed instances {_longest(instance, MIXED)}" if (instance["role"] == MIXED).any() else ""
    return (
        f"too long (prefill instances take prompts of {prefill - 1} tokens, decode instances {decode} tokens in all"
        f"{mixed})"
    )


def check_fits(jobs: Jobs, instance: NDArray[np.void]) -> None:
    """Refuse a stage that is longer than every instance's context.

    Raises
    ------
    SimulationError
        Naming the length and the longest context.
    """
    prompt, output = (jobs.stage[field].astype(np.int64) for field in ("prompt", "output"))
    long = ~servable(prompt, output, instance)
    if long.any():
        worst = int(np.where(long, prompt + output, 0).argmax())
        raise SimulationError(
            f"a stage of {prompt[worst]} prompt and {output[worst]} output tokens is {limits_of(instance)}"
        )


def advance(sim: Simulation, know: Knowledge, policy: Policy, until: float = math.inf, scheduler: Any = None) -> int:
    """Run until the end or time ``until``; ask ``policy``, or its ``scheduler``, where it is not a compiled one."""
    finished = np.zeros(sim.running.shape[1], dtype=np.int32)
    hooks = np.array(policy.linked(sim, know), dtype=np.int64)
    clock: Any = sim.clock[0]
    if hooks[TICK] != 0 and clock["now"] == 0.0 and math.isinf(clock["tick"]):
        clock["tick"] = 0.0
    while True:
        reason = int(run(sim, know, policy.code, hooks, finished, until))
        if reason != DECIDE:
            return reason
        if scheduler is not None:
            started = read_cycles()
            scheduler.decide(sim, know)
            clock["decision_cycles"] += read_cycles() - started
            continue
        for r in sim.ready[int(clock["ready_done"]) : int(clock["ready"])].copy():
            started = read_cycles()
            i, priority = policy.place(sim, know, int(r), float(clock["now"]))
            clock["decision_cycles"] += read_cycles() - started
            place_external(sim, int(r), i, priority)


def simulate(
    jobs: Jobs,
    kinds: tuple[str, ...],
    cluster: Cluster,
    policy: Policy,
    training: Training,
    *,
    until: float = math.inf,
    events: Sequence[FleetEvent] = (),
    mistakes: Mistakes | None = None,
) -> Run:
    """Simulate ``jobs`` on ``cluster`` under ``policy``.

    Parameters
    ----------
    jobs
        The work; its arrays become the run's.
    kinds
        Names of the stage kinds, in the order of the stages' numbers.
    training
        What the policy's predictors start from.
    until
        Simulated seconds at which to stop; workflows that have not ended by then stay unfinished.
    events
        What happens to instances.
    mistakes
        What the policy believes wrongly; None: nothing but what it has not learned.

    Raises
    ------
    SimulationError
        If a stage fits on no instance.
    EventError
        If an event names an instance that is not there, or is at odds with another.
    """
    instance = instance_table(cluster, policy.by_priority, policy.preempted_first)
    policy.configure(instance)
    check_fits(jobs, instance)
    fleet = fleet_of(cluster)
    sim = build(jobs, instance, fleet.coef, cluster.link_times(), event_table(events, cluster))
    if mistakes is not None:
        fleet = mistakes.believed(fleet)
    know = policy.prepare(fleet, training, jobs.workflow.shape[0])
    if mistakes is not None:
        know = mistakes.misled(know, jobs.stage.shape[0])
    scheduler = policy.scheduler(fleet) if policy.code == PLANNER else None
    # Loads or compiles the event loop, which is not the engine's time.
    advance(sim, know, policy, -1.0, scheduler)
    started, first = time.process_time(), read_cycles()
    reason = advance(sim, know, policy, until, scheduler)
    counted, spent = read_cycles() - first, time.process_time() - started
    end = until if reason == PAUSED else float(np.nanmax(sim.workflow["finish"], initial=0.0))
    return Run(
        policy=policy.label,
        stage=sim.stage,
        workflow=sim.workflow,
        instance=sim.instance,
        kinds=kinds,
        cluster=cluster,
        engine_cpu_seconds=spent,
        scheduler_cpu_seconds=spent * float(sim.clock["decision_cycles"][0]) / counted if COUNTS else math.nan,
        decisions=int(sim.clock["decisions"][0]),
        end=end,
        solves=scheduler.tally if scheduler is not None else None,
    )
