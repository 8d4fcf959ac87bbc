"""Time of the fleet model against the sizes of catalogue and work, and what a plan takes.

    python benchmarks/bench_planning.py

Options are the bundled ones of a 70B model and copies of them, each a little faster or slower, dearer or cheaper; the
work is that of the bundled Text-to-SQL sample in more or fewer classes. The model is solved to proven optimality.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from hexopt.planning.catalogue import configurations, load_catalogue
from hexopt.planning.demand import single
from hexopt.planning.efficiency import efficiency_of
from hexopt.planning.fleet import Limits, Option, options_of
from hexopt.planning.model import Backend, FleetModel
from hexopt.planning.proof import Prover, Setting
from hexopt.planning.search import Question, Search
from hexopt.planning.work import work_of
from hexopt.policies.policy import GreedyUrgency
from hexopt.traces import read_trace, sample_path

RATE, DEADLINE = 20.0, 90.0
SIZES = ((10, 10), (20, 25), (40, 50), (80, 50), (40, 150))
"""Options and work classes."""


def many(options: tuple[Option, ...], count: int) -> tuple[Option, ...]:
    """``count`` options: the given ones, and copies with other speeds and prices."""
    rng = np.random.default_rng(0)
    found = list(options[:count])
    while len(found) < count:
        base = options[len(found) % len(options)]
        speed, price = rng.uniform(0.7, 1.4, 2)
        found.append(
            replace(
                base,
                name=f"{base.name} {len(found)}",
                instance=replace(base.instance, speed=float(speed), price=float(round(base.price * price, 2))),
            )
        )
    return tuple(found)


def main() -> None:
    """Print the tables as Markdown."""
    catalogue = load_catalogue()
    demand = single(read_trace(sample_path("text-to-sql")), RATE, DEADLINE)
    bundled = options_of(configurations(catalogue, ["llama-3.1-70b"]))
    limits = Limits({offer.name: offer for offer in catalogue.offers})
    print("| options | classes | columns x rows | back end | build s | solve s | USD/h | gap |")
    print("|---|---|---|---|---|---|---|---|")
    backends: tuple[Backend, ...] = ("highs", "cbc")
    for size, classes in SIZES:
        options = many(bundled, size)
        work = work_of(demand, [o.instance for o in options], 0.95, classes)
        efficiency = efficiency_of(work, options)
        for backend in backends:
            found = FleetModel(work, efficiency, options, limits).solve(backend, 120.0)
            print(
                f"| {size} | {len(work)} | {found.columns} x {found.rows} | {backend} | {found.build_seconds:.2f} "
                f"| {found.solve_seconds:.2f} | {found.cost:.2f} | {found.gap:.2%} |",
                flush=True,
            )
    print("\n| workflows/s | USD/h | bound | gap | fleets simulated | runs | s |\n|---|---|---|---|---|---|---|")
    for rate in (0.5, 1.0, 2.0, 4.0):
        setting = Setting.of(single(demand.services[0].workflows, rate, DEADLINE), bundled, GreedyUrgency())
        started = time.perf_counter()
        plan = Search(Prover(setting), limits, Question(0.95)).cheapest()
        print(
            f"| {rate:g} | {plan.cost:.2f} | {plan.bound:.2f} | {plan.gap:.1%} | {len(plan.rounds)} "
            f"| {plan.simulations} | {time.perf_counter() - started:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
