"""The cheapest fleet by throughput: against trying all fleets and against Mélange's slices; infeasibility explained."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog
from sliced_buckets import sliced_cost

from hexopt.planning.buckets import InfeasibleError, ThroughputPlan, cheapest_by_throughput
from hexopt.planning.importers import ThroughputTable


def random_table(seed: int, gpus: int = 3, buckets: int = 6, rate: float | None = None) -> ThroughputTable:
    """A table in which dearer GPU types are faster, more so for large requests, and the cheapest lacks some."""
    rng = np.random.default_rng(seed)
    size = np.sort(rng.uniform(0.5, 8.0, buckets))
    power = np.sort(rng.uniform(1.0, 6.0, gpus))
    throughput = power[:, None] * rng.uniform(0.7, 1.3, (gpus, buckets)) / size
    throughput[0, size > 6.0] = 0.0
    share = rng.dirichlet(np.ones(buckets))
    return ThroughputTable(
        gpus=tuple(f"gpu{g}" for g in range(gpus)),
        price=power * rng.uniform(0.8, 1.2, gpus),
        buckets=tuple(f"bucket {b}" for b in range(buckets)),
        throughput=throughput,
        share=share,
        rate=float(rng.uniform(1.0, 12.0)) if rate is None else rate,
    )


def check(table: ThroughputTable, plan: ThroughputPlan) -> None:
    """The fleet serves everything and costs what it says."""
    counts = np.array([plan.counts[gpu] for gpu in table.gpus])
    assert plan.cost == pytest.approx(float(table.price @ counts)) and plan.bound <= plan.cost
    assert (plan.shares >= -1e-9).all() and not plan.shares[table.throughput == 0].any()
    assert plan.shares.sum(axis=0)[table.demand > 0] == pytest.approx(1.0, abs=1e-6)
    busy = np.where(table.throughput > 0, plan.shares * table.demand / np.maximum(table.throughput, 1e-12), 0.0)
    assert (busy.sum(axis=1) <= counts + 1e-5).all()


def serves(table: ThroughputTable, counts: tuple[int, ...]) -> bool:
    """Whether shares exist with which ``counts`` serve everything."""
    keys = [(g, b) for g, b in np.ndindex(table.throughput.shape) if table.throughput[g, b] > 0]
    load = np.zeros((len(table.gpus), len(keys)))
    whole = np.zeros((len(table.buckets), len(keys)))
    for k, (g, b) in enumerate(keys):
        load[g, k] = table.demand[b] / table.throughput[g, b]
        whole[b, k] = 1.0
    result = linprog(np.zeros(len(keys)), A_ub=load, b_ub=counts, A_eq=whole, b_eq=np.ones(len(whole)))
    return bool(result.status == 0)


def enumerated(table: ThroughputTable, most: int) -> float:
    """Cost of the cheapest fleet of at most ``most`` of each type, by trying all, cheapest first."""
    fleets = sorted(
        itertools.product(range(most + 1), repeat=len(table.gpus)),
        key=lambda n: float(table.price @ np.array(n)),
    )
    return next(float(table.price @ np.array(n)) for n in fleets if serves(table, n))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("backend", ["highs", "cbc"])
def test_the_optimum_is_that_of_trying_all_fleets(seed, backend):
    table = random_table(seed, rate=3.0)
    plan = cheapest_by_throughput(table, max_gpus=dict.fromkeys(table.gpus, 6), backend=backend)
    check(table, plan)
    assert plan.gap == 0.0
    assert plan.cost == pytest.approx(enumerated(table, 6))


@pytest.mark.parametrize("seed", range(6))
def test_fine_slices_cost_the_same(seed):
    table = random_table(seed, gpus=3, buckets=30)
    plan = cheapest_by_throughput(table)
    check(table, plan)
    assert sliced_cost(table, 4) == pytest.approx(plan.cost)


@pytest.mark.parametrize("seed", range(4))
def test_slices_never_cost_less(seed):
    table = random_table(seed, buckets=4, rate=5.0)
    cost = cheapest_by_throughput(table).cost
    coarse, fine = sliced_cost(table, 1), sliced_cost(table, 6)
    assert cost - 1e-6 <= fine <= coarse + 1e-6


def test_whole_buckets_can_cost_more_than_their_parts():
    table = ThroughputTable(("a", "b"), np.array([1.0, 1.6]), ("all",), np.array([[1.0], [2.0]]), np.ones(1), rate=3.0)
    assert cheapest_by_throughput(table).counts == {"a": 1, "b": 1}
    assert [sliced_cost(table, s) for s in (1, 2, 3)] == pytest.approx([3.0, 3.0, 2.6])


def test_inventory_binds_and_raises_the_cost():
    table = random_table(3, gpus=3, buckets=5, rate=20.0)
    free = cheapest_by_throughput(table)
    most_used = max(free.counts, key=free.counts.__getitem__)
    tight = cheapest_by_throughput(table, max_gpus={most_used: free.counts[most_used] - 1})
    check(table, tight)
    assert tight.counts[most_used] < free.counts[most_used] and tight.cost >= free.cost


def test_a_small_inventory_is_told_how_much_it_serves():
    table = ThroughputTable(
        ("a", "b"), np.array([1.0, 2.0]), ("all",), np.array([[1.0], [4.0]]), np.ones(1), rate=10.0, source="f.json"
    )
    with pytest.raises(InfeasibleError) as error:
        cheapest_by_throughput(table, max_gpus={"a": 3, "b": 1})
    assert str(error.value) == "f.json: the inventory is too small: 3 a, 1 b serve at most 7 of 10 requests a second"
    assert cheapest_by_throughput(table, max_gpus={"a": 3, "b": 2}).counts == {"a": 2, "b": 2}


def test_a_bucket_that_nothing_serves_is_named():
    throughput = np.array([[1.0, 0.0, 0.0], [2.0, 0.0, 1.0]])
    table = ThroughputTable(
        ("a", "b"), np.ones(2), ("short", "long", "huge"), throughput, np.array([0.5, 0.25, 0.25]), rate=1.0
    )
    with pytest.raises(InfeasibleError, match=r"serves bucket 'long' \(25.0% of the requests\): its throughput is 0"):
        cheapest_by_throughput(table)
    with pytest.raises(InfeasibleError, match=r"bucket 'long' .*, nor 1 more buckets: its throughput is 0 on every"):
        cheapest_by_throughput(table, max_gpus={"b": 0})
    table.share[:] = [0.5, 0.0, 0.5]
    with pytest.raises(InfeasibleError, match=r"bucket 'huge' .*: max_gpus allows none"):
        cheapest_by_throughput(table, max_gpus={"b": 0})
    check(table, cheapest_by_throughput(table))


@pytest.mark.parametrize("backend", ["highs", "cbc"])
def test_a_fleet_found_in_little_time_comes_with_a_bound(backend):
    table = random_table(1, gpus=12, buckets=120, rate=300.0)
    plan = cheapest_by_throughput(table, backend=backend, time_limit=1.0)
    check(table, plan)
    alone = [p * np.ceil((table.demand / t).sum()) for t, p in zip(table.throughput[1:], table.price[1:], strict=True)]
    assert 0.0 < plan.bound <= plan.cost <= min(alone) and plan.gap == pytest.approx(1.0 - plan.bound / plan.cost)


def test_wrong_arguments_are_refused():
    table = random_table(0)
    with pytest.raises(ValueError, match="max_gpus: unknown GPU 'tpu', expected one of gpu0, gpu1, gpu2"):
        cheapest_by_throughput(table, max_gpus={"tpu": 1})
    with pytest.raises(ValueError, match="max_gpus: gpu0 is -1, expected at least 0"):
        cheapest_by_throughput(table, max_gpus={"gpu0": -1})
    with pytest.raises(ValueError, match="backend 'gurobi': expected highs or cbc"):
        cheapest_by_throughput(table, backend="gurobi")  # type: ignore[arg-type]
