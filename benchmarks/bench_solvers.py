"""Solvers of the epoch problem: time, distance from the best plan known, proven gap.

    python benchmarks/bench_solvers.py [--problems 5] [--sizes 200x32 1000x64] [--busy]

Problems as an epoch under load brings them: log-normal service times of 0.2 to 20 s, three speeds of instances (1, 1.6
and 3 times as long, with 4, 3 and 2 seats), seats busy from the past, weights 1, 2 and 4, two stages a workflow, moving
cost, imposed delay, congestion. The best known is the best of all, four seconds of annealing included. The second table
is about proofs: times are multiples of 10 ms, with the congestion term and without. With ``--busy`` the first table's
clock is the processor time of each thread: what a machine would do that nobody else keeps busy.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from hexopt.solvers import EpochProblem, Plan, anneal, greedy, portfolio, solve
from hexopt.solvers.exact import on_grid

SIZES = ((10, 4), (25, 8), (50, 8), (200, 32), (500, 32), (1000, 64))
LONG = 4.0
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
    "congestion-lp": partial(solve, solver="congestion-lp", time_limit=5.0),
    "annealing, 2 ms": partial(anneal, time_limit=0.002),
    "annealing, 20 ms": partial(anneal, time_limit=0.02),
    "annealing, 100 ms": partial(anneal, time_limit=0.1),
    "annealing, 1 s": partial(anneal, time_limit=1.0),
    "portfolio, 50 ms": partial(portfolio, time_limit=0.05),
    "portfolio, 100 ms": partial(portfolio, time_limit=0.1),
    "portfolio, 1 s": partial(portfolio, time_limit=1.0),
}
PROOFS = ((10, 4), (12, 4), (25, 8))
PROOF_SECONDS = 20.0


def proofs(problems: int) -> None:
    """Print how long proofs of optimality take."""
    print("\n| stages x instances | term | solver | proven | s, median | s, longest | gap %, longest |")
    print("|---|---|---|---|---|---|---|")
    for n, m in PROOFS:
        for congested in (True, False):
            made = [on_grid(epoch(n, m, seed), 0.01) for seed in range(problems)]
            if not congested:
                made = [replace(p, slopes=np.zeros(np.shape(p.slopes))) for p in made]
            for name in ("exact", "cp-sat") if n <= 12 else ("exact",):
                plans = [solve(p, solver=name, time_limit=PROOF_SECONDS) for p in made]
                seconds = [p.seconds for p in plans]
                proven = sum(p.status == "optimal" for p in plans)
                print(
                    f"| {n} x {m} | {'all' if congested else 'without congestion'} | {name} | {proven} of {problems} "
                    f"| {np.median(seconds):.2f} | {max(seconds):.2f} | {100 * max(p.gap for p in plans):.2f} |",
                    flush=True,
                )


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", default=[f"{n}x{m}" for n, m in SIZES], help="stages x instances")
    parser.add_argument("--busy", action="store_true", help="count each thread's processor time; no proofs")
    options = parser.parse_args()
    if options.busy:
        time.perf_counter = time.thread_time
    for solver in 2 * list(SOLVERS.values()):
        solver(epoch(10, 4, 0))  # a limit passed by compiling leaves the rest to the second time
    print("| stages x instances | solver | ms, median | ms, longest | above best known % | worst | gap %, median |")
    print("|---|---|---|---|---|---|---|")
    for n, m in (map(int, size.split("x")) for size in options.sizes):
        problems = [epoch(n, m, seed) for seed in range(options.problems)]
        plans = {name: [solver(problem) for problem in problems] for name, solver in SOLVERS.items()}
        best = np.min([[plan.objective for plan in found] for found in plans.values()], axis=0)
        best = np.minimum(best, [anneal(problem, time_limit=LONG, seed=1).objective for problem in problems])
        for name, found in plans.items():
            gap = f"{100 * np.median([plan.gap for plan in found]):.1f}" if np.isfinite(found[0].gap) else ""
            ms = 1e3 * np.array([plan.seconds for plan in found])
            above = 100.0 * (np.array([plan.objective for plan in found]) / best - 1.0)
            print(
                f"| {n} x {m} | {name} | {np.median(ms):.2f} | {ms.max():.2f} | {np.median(above):.1f} "
                f"| {above.max():.1f} | {gap} |",
                flush=True,
            )
    if not options.busy:
        proofs(options.problems)


if __name__ == "__main__":
    main()
