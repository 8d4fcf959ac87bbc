"""The rolling horizon: greedy urgency where there is nothing to plan, greedy insertion where its solver fails."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from random_workload import RATE, random_experiment, small_cluster

import hexopt.scheduler as scheduler
from hexopt.epoch import EpochBuilder
from hexopt.objective import make_objective
from hexopt.policies.policy import GreedyUrgency
from hexopt.policies.registry import PolicyError, make_policy
from hexopt.policies.rolling_horizon import RollingHorizon
from hexopt.scheduler import epoch_at
from hexopt.simulation.experiment import Experiment
from hexopt.solvers import Plan, evaluate
from hexopt.traces import Stage, Workflow

FROZEN = RollingHorizon(freeze=True)


def chains(seed: int, count: int = 20) -> list[Workflow]:
    """Workflows of one call after another: hardly ever are two ready at the same instant."""
    rng = np.random.default_rng(seed)
    return [
        Workflow(
            f"w{k}",
            tuple(
                Stage(
                    str(s), "ab"[s % 2], int(rng.integers(50, 900)), int(rng.integers(5, 120)), (str(s - 1),) * (s > 0)
                )
                for s in range(int(rng.integers(1, 6)))
            ),
            arrival=float(k),
        )
        for k in range(count)
    ]


def run(policy, seed: int = 5, count: int = 24, **limits):
    experiment = random_experiment(seed, count=count, **limits)
    return experiment.run(policy, *experiment.sample(3 * count, RATE, 0))


@pytest.mark.parametrize("late_binding", [True, False])
@pytest.mark.parametrize("seed", range(1, 5))
def test_one_stage_at_a_time_goes_where_greedy_urgency_sends_it(seed, late_binding):
    cluster = small_cluster(shortest=1 << 14, kv_tokens=1 << 17, max_num_seqs=64)
    experiment = Experiment.of(chains(seed), cluster)
    sample = experiment.sample(60, 2.0, seed)
    planned = experiment.run(replace(FROZEN, late_binding=late_binding, floor=0.0), *sample)
    greedy = experiment.run(GreedyUrgency(), *sample)
    for field in ("instance", "start", "finish"):
        np.testing.assert_array_equal(planned.stage[field], greedy.stage[field])
    assert planned.solves.solves == planned.solves.stages == len(planned.stage)
    assert not planned.solves.failed and not planned.solves.reacted


def crash(problem, **_):
    raise RuntimeError("out of luck")


def nonsense(problem, **_):
    n = problem.stages
    return Plan(np.full(n, 99), np.arange(n), 0.0)


def nothing(problem, **_):
    return None


def repeated(problem, **_):
    return Plan(np.zeros(problem.stages, dtype=np.int64), np.zeros(problem.stages, dtype=np.int64), 0.0)


@pytest.mark.parametrize("broken", [crash, nonsense, nothing, repeated])
def test_a_broken_solver_is_counted_and_greedy_insertion_plans(monkeypatch, broken):
    usual = run(RollingHorizon(solver="greedy", freeze=True))
    monkeypatch.setattr(scheduler, "solve", broken)
    found = run(RollingHorizon(solver="portfolio", freeze=True))
    assert found.solves.failed > 0
    assert not np.isnan(found.workflow["finish"]).any()
    np.testing.assert_array_equal(found.stage["instance"], usual.stage["instance"])
    np.testing.assert_array_equal(found.stage["finish"], usual.stage["finish"])


def test_a_slow_solver_is_counted_and_its_plan_comes_late(monkeypatch):
    def slow(problem, **_):
        time.sleep(0.03)
        return scheduler.greedy(problem)

    monkeypatch.setattr(scheduler, "solve", slow)
    found = run(RollingHorizon(solver="portfolio", time_limit=0.01, floor=0.0), count=6)
    assert found.solves.late > 0 and not np.isnan(found.workflow["finish"]).any()
    assert max(found.solves.seconds) >= 0.03


def test_plans_wait_as_long_as_solving_takes():
    found = run(RollingHorizon(solver="greedy", solve_seconds=0.05, floor=0.0))
    waited = found.stage["start"] - found.stage["ready"]
    reacted = found.solves.reacted
    assert 0 < reacted < len(waited)
    # Whatever greedy urgency did not place in between waited for its plan.
    assert (waited >= 0.05 - 1e-9).sum() >= len(waited) - reacted


def test_stages_that_come_before_the_floor_are_placed_at_once():
    none = run(replace(FROZEN, floor=0.0, together=0.0))
    some = run(replace(FROZEN, floor=0.5, together=0.0))
    assert none.solves.reacted == 0 < some.solves.reacted
    assert some.solves.solves < none.solves.solves


def test_late_binding_keeps_queues_at_the_instances_short():
    depth = {}
    for late in (True, False):
        experiment = random_experiment(5, count=24)
        policy = replace(FROZEN, late_binding=late)
        found = experiment.run(policy, *experiment.sample(72, RATE, 0))
        depth[late] = found.solves
        assert not np.isnan(found.stage["finish"]).any()
    # Only who holds stages can plan them anew.
    assert depth[False].moved == 0 < depth[True].moved
    assert depth[False].stages < depth[True].stages


@pytest.mark.parametrize("together", [0.0, 0.5, 2.0])
def test_a_burst_is_planned_in_part_and_the_most_urgent_first(monkeypatch, together):
    fans = [
        Workflow(str(w), tuple(Stage(str(s), "a", 200 + s, 20 + w) for s in range(24)), deadline=5.0 + w)
        for w in range(3)
    ]
    seen: list[np.ndarray] = []
    built = EpochBuilder.build

    def watched(self, board, know, now, held, queued):
        epoch = built(self, board, know, now, held, queued)
        ready = np.flatnonzero(np.isnan(board.stage["start"]))
        left = np.setdiff1d(ready, epoch.stages)
        due = board.workflow["deadline"][board.stage["workflow"]]
        seen.append(epoch.stages.copy())
        assert not left.size or due[epoch.stages].max() <= due[left].min() + 1e-9
        return epoch

    monkeypatch.setattr(EpochBuilder, "build", watched)
    experiment = Experiment.of(fans, small_cluster(shortest=1 << 14, kv_tokens=1 << 17, max_num_seqs=64))
    found = experiment.run(replace(FROZEN, together=together), np.arange(3), np.zeros(3))
    assert not np.isnan(found.workflow["finish"]).any()
    most = int(together * len(experiment.cluster)) or 72
    assert max(len(stages) for stages in seen) == most
    assert found.solves.reacted == 72 - most


def test_without_reassignment_no_place_changes():
    assert run(replace(FROZEN, reassign=False)).solves.moved == 0


def test_measured_runs_end_too():
    found = run(RollingHorizon(time_limit=0.002))
    assert not np.isnan(found.workflow["finish"]).any()
    assert found.solves.solves == len(found.solves.seconds) > 0


def test_what_fits_nowhere_as_far_as_is_known_is_sent_nevertheless():
    # Expected outputs are longer than true ones: beyond the memory of every instance.
    stages = (Stage("0", "long", 1000, 40),)
    training = [Workflow("t", (Stage("0", "long", 1000, 40000),), arrival=0.0)] * 30
    work = [Workflow(f"w{k}", stages, arrival=float(k)) for k in range(5)]
    experiment = Experiment.of(work, small_cluster(shortest=2000), training=training)
    found = experiment.run(FROZEN, *experiment.sample(5, 1.0, 0))
    assert found.solves.homeless > 0 and not np.isnan(found.workflow["finish"]).any()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_congestion_costs_what_stages_mean_for_each_other(count):
    builder = EpochBuilder(make_objective("deadline"), np.zeros(1), 0.0, True)
    work, urgency = np.full((count, 1), 3.0), np.full(count, 0.5)
    knots, slopes = builder._quadratic(work, urgency)
    for there in range(count + 1):
        cost = float((slopes[0] * np.maximum(3.0 * there - knots[0], 0.0)).sum())
        # Each of the others lengthens each one's time by 3 seconds, at 0.5 a second.
        assert cost == pytest.approx(0.5 * 3.0 * there * (there - 1), rel=0.1)


def test_an_epoch_holds_what_the_board_says():
    experiment = random_experiment(5, count=24)
    found = epoch_at(experiment, FROZEN, *experiment.sample(72, RATE, 0), 0.5, 3)
    assert found is not None
    epoch, now = found
    problem = epoch.problem
    assert now >= 0.5 and problem.stages >= 3 and problem.instances == 4
    assert np.isfinite(problem.service).all(axis=1).any()
    assert (np.asarray(problem.seats) == 6).all() and (np.asarray(problem.kv_capacity) == 2400).all()
    plan = scheduler.greedy(problem)
    assert plan.objective == evaluate(problem, plan.instance, plan.order).objective
    assert epoch_at(experiment, FROZEN, *experiment.sample(5, 1.0, 0), 1e6, 1) is None


def test_settings_by_text_and_what_they_refuse():
    policy = make_policy("rolling-horizon:solver=portfolio,epoch=0.5,objective=attainment,late_binding=false")
    assert policy == RollingHorizon(solver="portfolio", epoch=0.5, objective="attainment", late_binding=False)
    assert policy.label == "rolling-horizon(portfolio, attainment, epoch=0.5, late_binding=false)"
    for text, message in (
        ("solver=magic", "solver 'magic': expected one of greedy"),
        ("time_limit=0", "time_limit is 0.0, expected more than 0 seconds"),
        ("tail_share=1", "tail_share is 1.0, expected 0 to below 1"),
    ):
        with pytest.raises(PolicyError, match=message):
            make_policy(f"rolling-horizon:{text}")


def test_fleet_prices_reach_the_objective():
    # Two equal instances but for the price: only an objective that counts money tells them apart.
    cluster = small_cluster(shortest=1 << 14, kv_tokens=1 << 17, max_num_seqs=64)
    rows = tuple(replace(i, price=p) for i, p in zip(cluster.instances[1:3], (10.0, 1.0), strict=True))
    experiment = Experiment.of(chains(3), replace(cluster, instances=rows))
    sample = experiment.sample(30, 0.5, 0)
    shares = SimpleNamespace()
    for name, objective in (("free", "deadline:price=0"), ("paid", "deadline:price=100000")):
        found = experiment.run(replace(FROZEN, objective=objective), *sample)
        setattr(shares, name, float((found.stage["instance"] == 1).mean()))
    assert shares.paid > 0.95 > shares.free
