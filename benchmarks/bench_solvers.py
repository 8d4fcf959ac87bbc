"""Solvers of the epoch problem: time, and distance from the best plan known.

    python benchmarks/bench_solvers.py [--problems 10]

Problems as an epoch under load brings them: log-normal service times of 0.2 to 20 s, three speeds of instances (1, 1.6
and 3 times as long, with 4, 3 and 2 seats), seats busy from the past, weights 1, 2 and 4, two stages a workflow, moving
cost, imposed delay, congestion. The best known is the best of all, ten seconds of annealing included.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from hexopt.solvers.annealing import anneal
from hexopt.solvers.insertion import greedy
from hexopt.solvers.plan import Plan
from hexopt.solvers.problem import EpochProblem

SIZES = ((10, 4), (25, 8), (50, 8), (200, 32), (500, 32), (1000, 64))
LONG = 10.0
"""Seconds of annealing for the best known."""


def epoch(n: int, m: int, seed: int) -> EpochProblem:
    """A random problem of n stages and m instances."""
    rng = np.random.default_rng(seed)
    speed = rng.choice([1.0, 1.6, 3.0], m)
    seats = np.select([speed == 1.0, speed == 1.6], [4, 3], 2)
    service = rng.lognormal(0.8, 0.9, n).clip(0.2, 20.0)[:, None] * speed * rng.uniform(0.9, 1.1, (n, m))
    busy = np.repeat(np.arange(m), seats)[: int(0.7 * seats.sum())]
    q = max(n // 2, 1)
    rounds = n / seats.sum()
    return EpochProblem(
        service=service,
        tail=rng.uniform(0.0, 5.0, n),
        workflow=rng.integers(0, q, n),
        due=rng.uniform(2.0, 10.0 + 10.0 * rounds, q),
        weight=rng.choice([1.0, 2.0, 4.0], q),
        seats=seats,
        kv_capacity=np.full(m, 40.0),
        kv=rng.integers(1, 12, n).astype(float),
        busy_instance=busy,
        busy_until=rng.uniform(0.0, 8.0, len(busy)),
        busy_kv=np.full(len(busy), 5.0),
        queued=rng.integers(-1, m, n),
        move_cost=np.full(n, 0.1),
        imposed=rng.uniform(0.0, 1.0, (n, m)),
        load=service / speed,
        knots=np.tile([2.0, 4.0], (m, 1)) * 5.0 * rounds,
        slopes=np.full((m, 2), 0.2),
    )


SOLVERS: dict[str, Callable[[EpochProblem], Plan]] = {
    "greedy": greedy,
    "annealing, 2 ms": lambda problem: anneal(problem, time_limit=0.002),
    "annealing, 20 ms": lambda problem: anneal(problem, time_limit=0.02),
    "annealing, 50 ms": lambda problem: anneal(problem, time_limit=0.05),
    "annealing, 1 s": lambda problem: anneal(problem, time_limit=1.0),
}


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=10)
    options = parser.parse_args()
    for solve in SOLVERS.values():
        solve(epoch(10, 4, 0))
    print("| stages x instances | solver | ms, median | ms, longest | above the best known %, median | worst |")
    print("|---|---|---|---|---|---|")
    for n, m in SIZES:
        problems = [epoch(n, m, seed) for seed in range(options.problems)]
        plans = {name: [solve(problem) for problem in problems] for name, solve in SOLVERS.items()}
        best = np.min([[plan.objective for plan in found] for found in plans.values()], axis=0)
        best = np.minimum(best, [anneal(problem, time_limit=LONG, seed=1).objective for problem in problems])
        for name, found in plans.items():
            ms = 1e3 * np.array([plan.seconds for plan in found])
            above = 100.0 * (np.array([plan.objective for plan in found]) / best - 1.0)
            print(
                f"| {n} x {m} | {name} | {np.median(ms):.2f} | {ms.max():.2f} | {np.median(above):.1f} "
                f"| {above.max():.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
