"""The fleet model: both back ends, cuts, limits, and its answer against trying all fleets."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from planning_cases import CATALOGUE, demand, limits, options, priced
from scipy.optimize import linprog

from hexopt.planning.dominance import Dominance
from hexopt.planning.efficiency import Efficiency, efficiency_of
from hexopt.planning.fleet import Fleet, Limits, Option, bill_of
from hexopt.planning.model import FleetModel, useful_points
from hexopt.planning.work import Work, work_of

NAMES = ["h100 tp4", "a100 tp4", "a6000 tp2 pp2"]


def problem(
    rate: float = 2.0, slo: float = 60.0, names: list[str] | None = None
) -> tuple[Work, Efficiency, tuple[Option, ...]]:
    kinds = options(names or NAMES)
    work = work_of(demand(rate, slo), [o.instance for o in kinds], 0.95)
    return work, efficiency_of(work, kinds), kinds


def possible(work: Work, efficiency: Efficiency, fleet: Fleet) -> bool:
    """Whether ``fleet`` meets the model's rows, by a linear program of its own."""
    places = [(k, j, p) for k in range(len(work)) for j, p in useful_points(efficiency, k)]
    m, groups = len(fleet), len(work.groups)
    upper, equal = np.zeros((2 * m + groups, len(places))), np.zeros((len(work), len(places)))
    for c, (k, j, p) in enumerate(places):
        upper[j, c] = work.rate[k] * efficiency.busy[k, j, p]
        upper[m + j, c] = work.rate[k] * efficiency.resident[k, j, p] / efficiency.capacity[j]
        upper[2 * m :, c] = work.path[:, k] * efficiency.latency[k, j, p]
        equal[k, c] = 1.0
    right = np.concatenate([fleet, fleet, work.slack])
    return bool(linprog(np.zeros(len(places)), upper, right, equal, np.ones(len(work))).success)


@pytest.mark.parametrize(("rate", "slo"), [(0.5, 60.0), (2.0, 60.0), (3.0, 40.0)])
def test_the_optimum_is_that_of_trying_all_fleets(rate: float, slo: float) -> None:
    work, efficiency, kinds = problem(rate, slo)
    found = FleetModel(work, efficiency, kinds, limits()).solve()
    assert found.status == "optimal"
    every = sorted(itertools.product(range(7), repeat=3), key=lambda f: bill_of(kinds, f, limits()).cost)
    best = next(f for f in every if possible(work, efficiency, f))
    assert found.cost == pytest.approx(bill_of(kinds, best, limits()).cost)
    assert found.bound == pytest.approx(found.cost)
    assert found.gap == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_both_back_ends_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    work, efficiency, kinds = problem(float(rng.uniform(0.5, 6.0)), float(rng.uniform(25.0, 120.0)))
    kinds = tuple(priced(o, float(rng.uniform(1.0, 15.0))) for o in kinds)
    offers = {o.gpu: replace(CATALOGUE.offer(o.gpu), max=int(rng.integers(8, 40))) for o in kinds}
    bought = Limits(offers, spot_share=float(rng.choice([0.0, 0.5])))
    answers = [FleetModel(work, efficiency, kinds, bought).solve(backend) for backend in ("highs", "cbc")]  # type: ignore[arg-type]
    assert answers[0].status == answers[1].status
    if answers[0].fleet:
        assert answers[0].cost == pytest.approx(answers[1].cost)
        assert bill_of(kinds, answers[0].fleet, bought).cost == pytest.approx(answers[0].cost, rel=0.02)


def test_cuts_take_away_a_fleet_and_all_below_it_and_nothing_else() -> None:
    work, efficiency, kinds = problem()
    # Dear enough that no cheap fleet has more than eight of one.
    kinds = (kinds[0], kinds[1], priced(kinds[2], 6.0))
    model = FleetModel(work, efficiency, kinds, limits())
    every = [f for f in itertools.product(range(9), repeat=3) if possible(work, efficiency, f)]
    every.sort(key=lambda f: bill_of(kinds, f, limits()).cost)
    gone: list[Fleet] = []
    for _ in range(8):
        left = [f for f in every if not any(all(a <= b for a, b in zip(f, g, strict=True)) for g in gone)]
        found = model.solve()
        assert found.cost == pytest.approx(bill_of(kinds, left[0], limits()).cost)
        gone.append(tuple(n + 1 for n in found.fleet[:1]) + found.fleet[1:])
        model.cut(gone[-1])


def test_clear_failures_take_away_all_that_is_no_better() -> None:
    work, efficiency, kinds = problem()
    order = Dominance(kinds, efficiency)
    # An H100 is faster than an A100 in everything and holds as much; an A6000 is slower than both.
    assert order.no_better[1, 0] and order.no_better[2, 0] and order.no_better[2, 1]
    assert not order.no_better[0, 1]
    failed = (1, 2, 0)
    for fleet in itertools.product(range(4), repeat=3):
        paired = any(
            all(
                order.no_better[have, onto]
                for have, onto in zip([j for j in range(3) for _ in range(fleet[j])], chosen, strict=True)
            )
            for chosen in itertools.permutations([0, 1, 1], sum(fleet))
        ) if sum(fleet) <= 3 else False  # fmt: skip
        assert order.within(fleet, failed) == paired, fleet
    plain, clear = (FleetModel(work, efficiency, kinds, limits()) for _ in range(2))
    for model, clearly in ((plain, False), (clear, True)):
        model.cut(failed, clearly)
    fleets = [f for f in itertools.product(range(5), repeat=3) if possible(work, efficiency, f)]
    cheapest = min(bill_of(kinds, f, limits()).cost for f in fleets if not order.within(f, failed))
    assert clear.solve().cost == pytest.approx(cheapest)
    assert plain.solve().cost <= cheapest


def test_limits_bind_and_are_priced() -> None:
    work, efficiency, kinds = problem(4.0)
    free = FleetModel(work, efficiency, kinds, limits()).solve()
    most = max(j for j in range(3) if free.fleet[j])
    gpu = kinds[most].gpu
    tight = replace(CATALOGUE.offer(gpu), max=(free.fleet[most] - 1) * kinds[most].gpus)
    bought = Limits({**{o.gpu: CATALOGUE.offer(o.gpu) for o in kinds}, gpu: tight})
    model = FleetModel(work, efficiency, kinds, bought)
    found = model.solve()
    assert found.fleet[most] < free.fleet[most]
    assert found.cost >= free.cost
    assert model.shadow_prices().get(f"inventory_{gpu}", 0.0) >= 0.0
    again = model.solve()
    assert again.cost == pytest.approx(found.cost)
    poor = FleetModel(work, efficiency, kinds, limits(budget=free.cost - 0.01)).solve()
    assert (poor.status, poor.fleet, poor.bound) == ("infeasible", (), math.inf)


def test_what_is_there_stays_and_is_free() -> None:
    work, efficiency, kinds = problem(2.0)
    alone = FleetModel(work, efficiency, kinds, limits()).solve()
    owned = (replace(priced(kinds[0], 0.0), owned=1, buyable=False), *kinds[1:])
    found = FleetModel(work, efficiency, owned, limits()).solve()
    assert found.fleet[0] == 1
    assert found.cost < alone.cost


def test_more_headroom_costs_more() -> None:
    work, efficiency, kinds = problem()
    costs = [FleetModel(work, efficiency, kinds, limits(), h).solve().cost for h in (1.0, 1.5, 2.0, 3.0)]
    assert costs == sorted(costs) and costs[-1] > costs[0]


def test_the_split_of_the_deadline_adds_up() -> None:
    work, efficiency, kinds = problem(1.0, 40.0)
    found = FleetModel(work, efficiency, kinds, limits()).solve()
    assert (work.path @ found.split <= work.slack + 1e-6).all()


def test_the_fewest_gpus_of_a_type() -> None:
    work, efficiency, kinds = problem(2.0, 60.0, ["h100 tp4"])
    model = FleetModel(work, efficiency, kinds, limits())
    assert model.fewest("h100") == 4 * model.solve().fleet[0]
