"""Random epoch problems, the judge in plain Python, and the best plan by trying all."""

from __future__ import annotations

import math
from dataclasses import asdict
from itertools import permutations, product

import numpy as np

from hexopt.solvers.problem import EpochProblem, ObjectiveWeights


def random_problem(rng: np.random.Generator, n: int, m: int, whole: bool = False, **changes) -> EpochProblem:
    """A problem with every term; ``whole`` numbers make times exact."""

    def numbers(low, high, shape):
        return rng.integers(int(low), int(high) + 1, shape).astype(float) if whole else rng.uniform(low, high, shape)

    q = int(rng.integers(1, n + 1))
    b = int(rng.integers(0, 2 * m + 1))
    seats = rng.integers(1, 4, m)
    service = numbers(1, 9, (n, m)) * rng.choice([1.0, 2.0, 3.0], m)
    service[rng.random((n, m)) < 0.1] = np.inf
    arrays = {
        "service": service,
        "tail": numbers(0, 6, n),
        "workflow": rng.integers(0, q, n),
        "due": numbers(-2, 20, q),
        "weight": rng.choice([1.0, 2.0, 4.0], q),
        "seats": seats,
        "kv_capacity": rng.integers(6, 20, m).astype(float),
        "kv": rng.integers(0, 9, n).astype(float),
        "busy_instance": rng.integers(0, m, b),
        "busy_until": numbers(0, 8, b),
        "busy_kv": rng.integers(0, 6, b).astype(float),
        "queued": rng.integers(-1, m, n),
        "move_cost": numbers(0, 2, n),
        "hold": np.where(rng.random(n) < 0.4, numbers(5, 30, n), np.inf),
        "imposed": numbers(0, 3, (n, m)),
        "load": numbers(0, 4, (n, m)),
        "backlog": numbers(0, 4, m),
        "knots": np.sort(numbers(0, 8, (m, 2)), axis=1),
        "slopes": numbers(0, 2, (m, 2)),
        "price": numbers(0, 2, m),
        "tenant": rng.integers(0, 2, q),
        "share": np.array([1.0, 2.0]),
        "release": np.where(rng.random(n) < rng.choice([0.0, 0.5, 1.0]), numbers(0, 10, n), 0.0),
        "weights": ObjectiveWeights(1.0, 2.0, 0.05, 0.3, 0.5, 0.7, 0.1, 0.2),
    }
    return EpochProblem(**(arrays | changes))


def judged(problem: EpochProblem, instance, order) -> tuple[float, dict[str, float]]:
    """Objective and terms, by looking for each start among all moments at which something ends."""
    p = problem
    running = {
        i: [
            (-math.inf, until, kv)
            for j, until, kv in zip(p.busy_instance, p.busy_until, p.busy_kv, strict=True)
            if j == i
        ]
        for i in range(p.instances)
    }
    latest = dict.fromkeys(running, 0.0)
    completion = {}
    for r in order:
        i = int(instance[r])
        if i < 0:
            if math.isfinite(p.hold[r]):
                completion[int(r)] = float(p.hold[r])
            continue
        begin = max(latest[i], float(p.release[r]))
        moments = [begin, *(end for _, end, _ in running[i] if end > begin)]

        def free(t, i=i, r=r):
            there = [kv for begin, end, kv in running[i] if begin <= t < end]
            return len(there) < p.seats[i] and sum(there) + p.kv[r] <= p.kv_capacity[i]

        t = min(filter(free, moments))
        # Calls that end when they start, at time 0, hold nothing.
        latest[i] = t
        running[i].append((t, t + p.service[r, i], p.kv[r]))
        completion[int(r)] = t + p.service[r, i]
    q = len(p.due)
    late = [
        max([0.0, *(end + p.tail[r] - p.due[w] for r, end in completion.items() if p.workflow[r] == w)])
        for w in range(q)
    ]
    placed = [(r, int(instance[r])) for r in range(p.stages) if instance[r] >= 0]
    terms = {
        "tardiness": sum(p.weight[w] * late[w] for w in range(q)),
        "late": sum(p.weight[w] for w in range(q) if late[w] > 1e-9),
        "completion": sum(p.weight[p.workflow[r]] * end for r, end in completion.items()),
        "imposed": sum(p.imposed[r, i] for r, i in placed),
        "congestion": sum(
            p.slopes[i, j] * max(0.0, p.backlog[i] + sum(p.load[r, k] for r, k in placed if k == i) - p.knots[i, j])
            for i in range(p.instances)
            for j in range(p.knots.shape[1])
        ),
        "move": sum(p.move_cost[r] for r, i in placed if p.queued[r] >= 0 and p.queued[r] != i),
        "price": sum(p.price[i] * p.service[r, i] for r, i in placed),
        "fairness": max(
            sum(p.weight[w] * late[w] for w in range(q) if p.tenant[w] == t) / p.share[t] for t in range(len(p.share))
        ),
    }
    weights = asdict_of(p.weights)
    return sum(weights[name] * value for name, value in terms.items()), terms


def asdict_of(weights: ObjectiveWeights) -> dict[str, float]:
    """The weights by name."""
    return asdict(weights)


def choices(problem: EpochProblem) -> list[list[int]]:
    """Where each stage may be: instances, and -1 for held (or left out)."""
    result = []
    for r in range(problem.stages):
        places = [int(i) for i in np.flatnonzero(problem.feasible[r])]
        result.append(places + ([-1] if math.isfinite(problem.hold[r]) or not places else []))
    return result


def best_by_trying_all(problem: EpochProblem) -> float:
    """The least objective over all assignments and orders."""
    least = math.inf
    for instance in product(*choices(problem)):
        for order in permutations(range(problem.stages)):
            least = min(least, judged(problem, instance, order)[0])
    return least


def random_plan(rng: np.random.Generator, problem: EpochProblem):
    """Any plan."""
    instance = np.array([places[int(rng.integers(len(places)))] for places in choices(problem)])
    return instance, rng.permutation(problem.stages)
