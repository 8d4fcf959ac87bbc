"""Random pair problems, the judge as a simulation of events in plain Python, and the best plan by trying all."""

from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np

from hexopt.solvers.pairs import PairPlan, PairProblem
from hexopt.solvers.pairs.kernels import arrays_of, cost_of
from hexopt.solvers.problem import ObjectiveWeights


def random_pairs(rng: np.random.Generator, n: int, p: int, d: int, whole: bool = False, **changes) -> PairProblem:
    """A problem with every term; ``whole`` numbers make times exact."""

    def numbers(low, high, shape):
        return rng.integers(int(low), int(high) + 1, shape).astype(float) if whole else rng.uniform(low, high, shape)

    q = int(rng.integers(1, n + 1))
    b = int(rng.integers(0, 2 * d + 1))
    prefill = numbers(1, 4, (n, p)) * rng.choice([1.0, 2.0], p)
    prefill[rng.random((n, p)) < 0.1] = np.inf
    decode = numbers(1, 9, (n, d)) * rng.choice([1.0, 2.0], d)
    decode[rng.random((n, d)) < 0.1] = np.inf
    transfer = numbers(0, 2, (n, p, d))
    transfer[rng.random((n, p, d)) < 0.1] = np.inf
    settled = rng.random(n) < rng.choice([0.0, 0.3, 1.0])
    kv_ready = np.where(settled[:, None], numbers(0, 6, (n, d)), np.inf)
    arrays = {
        "prefill": prefill,
        "decode": decode,
        "transfer": transfer,
        "tail": numbers(0, 6, n),
        "workflow": rng.integers(0, q, n),
        "due": numbers(-2, 20, q),
        "weight": rng.choice([1.0, 2.0, 4.0], q),
        "kv": rng.integers(0, 9, n),
        "kv_capacity": rng.integers(6, 20, d),
        "prefill_free": numbers(0, 3, p),
        "busy_instance": rng.integers(0, d, b),
        "busy_until": numbers(0, 8, b),
        "busy_kv": rng.integers(0, 9, b),
        "seats": rng.integers(1, 5, d),
        "release": np.where(rng.random(n) < 0.3, numbers(0, 6, n), 0.0),
        "kv_ready": kv_ready,
        "bound": np.where(rng.random(n) < 0.2, rng.integers(0, d, n), -1),
        "hold": np.where(rng.random(n) < 0.3, numbers(5, 30, n), np.inf),
        "imposed": numbers(0, 3, (n, d)),
        "weights": ObjectiveWeights(1.0, 2.0, 0.05, 0.3),
    }
    arrays |= changes
    # A call without a pair may be held, as the problem demands.
    loose = PairProblem(**(arrays | {"hold": np.ones(n)}))
    lost = ~loose.possible.any(axis=(1, 2)) & np.isinf(arrays["hold"])
    return PairProblem(**(arrays | {"hold": np.where(lost, 20.0, arrays["hold"])}))


def simulated(problem: PairProblem, plan: PairPlan) -> tuple[float, dict[str, float], dict[int, float]]:
    """Objective, terms and completions, by stepping from event to event."""
    p = problem
    rank = {int(r): k for k, r in enumerate(plan.order)}
    free = dict(enumerate(p.prefill_free.tolist()))
    ready, done = {}, {}
    for r in map(int, plan.order):
        i, j = int(plan.prefill[r]), int(plan.decode[r])
        if j < 0:
            done[r] = float(p.hold[r])
        elif p.settled[r]:
            ready[r] = float(p.kv_ready[r, j])
        else:
            begin = max(free[i], float(p.release[r]))
            free[i] = begin + p.prefill[r, i]
            ready[r] = begin + (p.prefill[r, i] + p.transfer[r, i, j])
    for j in range(p.decodes):
        mine = [r for r in ready if plan.decode[r] == j]
        running = [(u, int(k)) for i, u, k in zip(p.busy_instance, p.busy_until, p.busy_kv, strict=True) if i == j]
        waits: list[int] = []
        moments = {ready[r] for r in mine} | {u for u, _ in running}
        while moments:
            now = min(moments)
            moments.remove(now)
            running = [(u, k) for u, k in running if u > now]
            waits += [r for r in mine if ready[r] == now and r not in waits]
            waits.sort(key=rank.__getitem__)
            while waits and len(running) < p.seats[j]:
                r = waits[0]
                if sum(k for _, k in running) + p.kv[r] > p.kv_capacity[j]:
                    break
                done[r] = now + p.decode[r, j]
                running.append((done[r], int(p.kv[r])))
                moments.add(done[r])
                waits.pop(0)
        assert not waits
    q = len(p.due)
    late = [max([0.0, *(done[r] + p.tail[r] - p.due[w] for r in done if p.workflow[r] == w)]) for w in range(q)]
    terms = {
        "tardiness": sum(p.weight[w] * late[w] for w in range(q)),
        "late": sum(p.weight[w] for w in range(q) if late[w] > 1e-9),
        "completion": sum(p.weight[p.workflow[r]] * end for r, end in done.items()),
        "imposed": sum(p.imposed[r, plan.decode[r]] for r in done if plan.decode[r] >= 0),
    }
    return sum(getattr(p.weights, name) * value for name, value in terms.items()), terms, done


def choices(problem: PairProblem) -> list[list[tuple[int, int]]]:
    """The pairs of each call, held among them."""
    result = []
    for r in range(problem.calls):
        pairs = [(int(i), int(j)) for i, j in zip(*np.nonzero(problem.possible[r]), strict=True)]
        if problem.settled[r]:
            pairs = [(-1, j) for _, j in pairs]
        result.append(pairs + ([(-1, -1)] if math.isfinite(problem.hold[r]) else []))
    return result


def best_by_trying_all(problem: PairProblem) -> float:
    """The least objective over all pairs and orders."""
    a, least = arrays_of(problem), math.inf
    orders = [np.array(order) for order in permutations(range(problem.calls))]
    for pairs in product(*choices(problem)):
        prefill, decode = np.array([i for i, _ in pairs]), np.array([j for _, j in pairs])
        for order in orders:
            least = min(least, cost_of(a, prefill, decode, order))
    return least


def random_plan(rng: np.random.Generator, problem: PairProblem) -> PairPlan:
    """Any plan."""
    pairs = [c[int(rng.integers(len(c)))] for c in choices(problem)]
    prefill, decode = (np.array([pair[k] for pair in pairs]) for k in (0, 1))
    return PairPlan(prefill, decode, rng.permutation(problem.calls))
