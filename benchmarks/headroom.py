"""How much better could calls be placed? Greedy urgency against a clairvoyant that tries every choice in the simulator.

    python benchmarks/headroom.py --traces ../shared/traces/hexgen-flow --seeds 4

For every ready call the clairvoyant copies the whole simulation, tries each instance (with ``--hold`` also waiting),
lets greedy urgency play on for 300 simulated seconds with the true output lengths and the arrivals to come, and takes
the choice with the least tardiness. No real scheduler can know this. What it gains is what foresight in *placing and
holding* could buy on top of greedy urgency, one choice at a time; it is no bound on choosing everything at once. The
rolling horizon, which knows neither, runs beside it.
"""

from __future__ import annotations

import argparse
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from policies import TRACES, ratio, shown

import hexopt.simulation.simulator as simulator
from hexopt.cluster import load_cluster
from hexopt.models.kernel import kernel
from hexopt.policies import compiled
from hexopt.policies.knowledge import Knowledge
from hexopt.policies.policy import GreedyUrgency, Policy
from hexopt.policies.rolling_horizon import RollingHorizon
from hexopt.simulation.experiment import Experiment
from hexopt.simulation.loop import DECIDE, place_external, run
from hexopt.simulation.metrics import Summary, summarise
from hexopt.simulation.queues import push_delayed
from hexopt.simulation.state import TOOLS, Simulation
from hexopt.traces import read_trace

AHEAD = 300.0
"""Simulated seconds that each choice is played on for."""
WEIGHT_OF_LATENCY = 0.05
"""Against a second of tardiness, as long as nothing is late."""
COUNTED = 20.0
"""Seconds: workflows that arrive later say nothing about a choice made now."""


@kernel
def _hold(sim, r, until):  # type: ignore[no-untyped-def]
    sim.clock[0].ready_done += 1
    sim.stage[r].ready = until
    push_delayed(sim, r, TOOLS, until)


def _copied(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    return type(value)(*map(_copied, value)) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Clairvoyant(GreedyUrgency):
    """Greedy urgency improved one choice at a time with the truth."""

    delays: tuple[float, ...] = ()
    """Seconds by which a call may be held instead of being placed."""
    code: ClassVar[int] = compiled.EXTERNAL

    @property
    def label(self) -> str:
        """Name and delays."""
        return "clairvoyant, may hold" if self.delays else "clairvoyant"

    def carry_out(self, sim: Simulation, know: Knowledge, r: int) -> None:
        """Decide on the ready stage ``r`` and place or hold it."""
        now = float(sim.clock["now"][0])
        usual = int(compiled.place(compiled.GREEDY_URGENCY, sim, know, r, now))
        choices: list[tuple[int, float]] = [(i, 0.0) for i in range(len(sim.instance))]
        choices += [(-1, delay) for delay in self.delays]
        costs = [self._cost(sim, know, r, i, delay) for i, delay in choices]
        best = int(np.argmin(costs))
        # Where the truth sees no difference, greedy urgency's choice stands.
        choice = choices[best] if costs[best] < costs[usual] - 1e-6 else (usual, 0.0)
        _carry_out(sim, r, *choice)

    def _cost(self, sim: Simulation, know: Knowledge, r: int, i: int, delay: float) -> float:
        now = float(sim.clock["now"][0])
        open_now = np.isnan(sim.workflow["finish"]) & (sim.workflow["arrival"] <= now + COUNTED)
        after, knowing = _copied(sim), _copied(know)
        _carry_out(after, r, i, delay)
        run(after, knowing, compiled.GREEDY_URGENCY, np.zeros(after.running.shape[1], np.int32), now + AHEAD)
        then = after.workflow[open_now]
        finish = np.where(np.isnan(then["finish"]), now + AHEAD, then["finish"])
        late = np.maximum(finish - then["deadline"], 0.0)
        return float(late.sum() + WEIGHT_OF_LATENCY * (finish - then["arrival"]).sum())


def _carry_out(sim: Simulation, r: int, i: int, delay: float) -> None:
    if i < 0:
        _hold(sim, r, float(sim.clock["now"][0]) + delay)
    else:
        place_external(sim, r, i, float(sim.stage["priority"][r]))


def advance(sim: Simulation, know: Knowledge, policy: Policy, until: float = math.inf) -> int:
    """As the simulator's, for a policy that carries out its decisions itself."""
    finished = np.zeros(sim.running.shape[1], np.int32)
    while True:
        reason = int(run(sim, know, policy.code, finished, until))
        if reason != DECIDE:
            return reason
        assert isinstance(policy, Clairvoyant)
        policy.carry_out(sim, know, int(sim.ready[int(sim.clock["ready_done"][0])]))


def one(job: tuple[Path, str, float, int, int, Policy]) -> Summary:
    """Figures of one run."""
    folder, name, load, workflows, seed, policy = job
    pool = read_trace(folder / f"input_file_{name}.json")
    training = read_trace(folder / f"input_file_{TRACES[name]}.json")
    experiment = Experiment.of(pool, load_cluster("hetero-1"), training=training)
    picks, times = experiment.sample(workflows, load * experiment.capacity(), seed)
    if isinstance(policy, Clairvoyant):
        simulator.advance = advance
    return summarise(experiment.run(policy, picks, times), experiment.standalone[picks])


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces/hexgen-flow"))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--workflows", type=int, default=250)
    parser.add_argument("--hold", action="store_true", help="the clairvoyant may also hold a call for 1 or 4 s")
    parser.add_argument("--real", action="store_true", help="no clairvoyant: only what a real scheduler can do")
    parser.add_argument("--processes", type=int, help="runs at a time; all cores by default")
    options = parser.parse_args()
    policies: list[Policy] = [GreedyUrgency(), RollingHorizon(freeze=True)]
    if not options.real:
        policies.append(Clairvoyant(delays=(1.0, 4.0) if options.hold else ()))
    print("| trace, load | policy | mean s | P95 s | in time % | mean tardiness s | greedy's P95 / its P95 |")
    print("|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(options.processes, max_tasks_per_child=None if options.real else 1) as workers:
        for name, load in product(("trace1", "trace2"), (0.8, 0.95)):
            first: list[float] = []
            for policy in policies:
                jobs = [(options.traces, name, load, options.workflows, seed, policy) for seed in range(options.seeds)]
                found = list(workers.map(one, jobs))
                p95 = [s.p95_s for s in found]
                first = first or p95
                fields = (("mean_s", 1), ("p95_s", 1), ("attainment", 100), ("mean_tardiness_s", 1))
                cells = " | ".join(shown(getattr(s, f) * scale for s in found) for f, scale in fields)
                print(f"| {name}, {load:.0%} | {policy.label} | {cells} | {ratio(first, p95)} |", flush=True)


if __name__ == "__main__":
    main()
