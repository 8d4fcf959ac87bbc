"""The rolling horizon on clusters whose instances prefill or decode: pairs from the board, bound late, none lost."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from random_workload import random_workflows

import hexopt.pair_scheduler as pair_scheduler
from hexopt.cluster import parse_cluster
from hexopt.objective import make_objective
from hexopt.pair_epoch import build_pairs, only_roles
from hexopt.policies.registry import make_policy
from hexopt.policies.rolling_horizon import RollingHorizon
from hexopt.scheduler import Scheduler
from hexopt.simulation.experiment import Experiment
from hexopt.simulation.simulator import advance, build, fleet_of, instance_table
from hexopt.simulation.state import DECODE, PREFILL
from hexopt.solvers.pairs import judge_pairs

FROZEN = RollingHorizon(freeze=True)
ROLES = np.array([PREFILL, PREFILL, DECODE, DECODE])


def cluster(**limits):
    tight = {"kv_tokens": 2400, "max_num_seqs": 6, "max_num_batched_tokens": 256, **limits}
    rows = [{"gpu": gpu, "name": f"{k}", **tight} for k, gpu in enumerate(("l40s", "h100", "h100", "a6000"))]
    return parse_cluster({"llm": "llama-3.1-8b", "instance": rows}, "test")


class Board:
    """A run on two prefill and two decode instances."""

    def __init__(self, policy, seed=0, count=12, rate=20.0, **limits):
        fleet = cluster(**limits)
        experiment = Experiment.of(random_workflows(np.random.default_rng(seed), count), fleet)
        picks, times = experiment.sample(3 * count, rate, seed)
        jobs = experiment.workload.draw(picks, times, experiment.deadline[picks])
        table = instance_table(fleet, policy.by_priority)
        table["role"] = ROLES
        self.links = np.full((4, 4), 0.01), np.full((4, 4), 1e-5)
        self.sim = build(jobs, table, fleet_of(fleet).coef, self.links)
        self.know = policy.prepare(fleet_of(fleet), experiment.training, len(picks))
        self.policy = policy
        self.scheduler = policy.scheduler(fleet_of(fleet)) if isinstance(policy, RollingHorizon) else None

    def run(self, until=np.inf):
        advance(self.sim, self.know, self.policy, until, self.scheduler)
        return self.sim.stage


@pytest.mark.parametrize("solver", ["annealing", "greedy"])
@pytest.mark.parametrize("seed", range(3))
def test_every_call_prefills_on_one_kind_and_decodes_on_the_other(seed, solver):
    board = Board(replace(FROZEN, solver=solver), seed)
    assert only_roles(board.sim)
    stage = board.run()
    assert not np.isnan(stage["finish"]).any() and not np.isnan(board.sim.workflow["finish"]).any()
    handed = ~np.isnan(stage["handed"])
    assert (handed == (stage["output"] > 1)).all()
    assert (ROLES[stage["prefill_instance"][handed]] == PREFILL).all()
    assert (ROLES[stage["instance"][handed]] == DECODE).all() and (stage["instance"] == stage["bound"])[handed].all()
    # What was planned last, before the first token, is what happened.
    assert (stage["decode_at"] == stage["bound"])[handed].all()
    assert (board.sim.instance["promised"][2:] == 0).all() and (board.sim.instance["reserved"][2:] == 0).all()
    tally = board.scheduler.tally
    assert tally.solves and not tally.failed and not tally.homeless


def test_frozen_runs_repeat():
    one, two = (Board(FROZEN, 7).run() for _ in range(2))
    for field in ("instance", "prefill_instance", "start", "finish"):
        np.testing.assert_array_equal(one[field], two[field])


def test_solving_takes_time_and_calls_wait_for_the_plan():
    slow = Board(RollingHorizon(solver="greedy", solve_seconds=0.05), 1)
    stage = slow.run()
    assert not np.isnan(stage["finish"]).any()
    assert ((stage["start"] - stage["ready"])[stage["preemptions"] == 0] >= 0.05 - 1e-9).all()


def test_a_solver_that_fails_is_replaced_by_greedy_insertion(monkeypatch, caplog):
    def crash(problem, **_):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(pair_scheduler, "solve_pairs", crash)
    board = Board(RollingHorizon(solver="portfolio", solve_seconds=0.001), 2)
    with caplog.at_level(logging.CRITICAL):
        stage = board.run()
    assert not np.isnan(stage["finish"]).any()
    assert board.scheduler.tally.failed > 0


def test_says_which_solvers_plan_pairs():
    board = Board(RollingHorizon(solver="exact"))
    with pytest.raises(ValueError, match="'exact' plans no pairs of instances: expected one of greedy"):
        board.run()


def test_other_clusters_are_planned_as_before():
    board = Board(FROZEN)
    board.sim.instance["role"][:] = 0
    assert not only_roles(board.sim)
    board.run()
    assert isinstance(board.scheduler, Scheduler) and board.scheduler._pairs is None


@pytest.mark.parametrize("seed", range(4))
def test_the_problem_says_what_is_on_the_board(seed):
    """Stopped midway, every call that does not decode yet is in the problem, at its place, with its reservation."""
    board = Board(FROZEN, seed, rate=40.0)
    board.run(0.6)
    sim, stage, now = board.sim, board.sim.stage, 0.6
    pairs = board.scheduler._pairs
    epoch = build_pairs(sim, board.know, now, make_objective("deadline"), pairs._held, pairs._sent)
    problem = epoch.problem
    assert epoch.prefills.tolist() == [0, 1] and epoch.decodes.tolist() == [2, 3]
    assert problem.calls == len(pairs._held) + len(pairs._sent) > 0
    block = sim.instance["block_size"][0]
    for k, r in enumerate(epoch.stages):
        row = stage[r]
        blocks = -(-int(row["prompt"] + max(int(row["expected_output"]), row["generated"] + 1)) // block)
        assert problem.kv[k] == blocks
        assert problem.settled[k] == (k >= len(pairs._held))
        if problem.settled[k] and not np.isnan(row["handed"]):
            assert epoch.decodes[problem.bound[k]] == row["bound"]
            assert problem.kv_ready[k].min() == (0.0 if row["instance"] >= 2 else pytest.approx(row["timer"] - now))
        else:
            assert problem.bound[k] == -1
        if k < len(pairs._held):
            assert np.allclose(problem.transfer[k], 0.01 + row["prompt"] * 1e-5)
    assert len(problem.busy_kv) == sim.instance["running"][2:].sum()
    for b, j in enumerate(epoch.decodes):
        assert problem.busy_kv[problem.busy_instance == b].sum() == sim.instance["reserved"][j]


def test_better_than_least_laxity_under_load():
    """Weighted tardiness over two runs; there the board itself chooses the freest decode instance."""

    def lateness(policy):
        total = 0.0
        for seed in range(2):
            board = Board(policy, seed, rate=60.0)
            board.run()
            flows = board.sim.workflow
            total += float((flows["weight"] * np.maximum(flows["finish"] - flows["deadline"], 0.0)).sum())
        return total

    assert lateness(FROZEN) < lateness(make_policy("llf"))


def test_the_first_plan_is_judged_as_it_is_carried_out():
    """One call on an idle cluster goes to the pair where it ends first, and ends about when the problem says."""
    board = Board(FROZEN, 3, rate=1e-3, kv_tokens=1 << 15, max_num_batched_tokens=8192, max_num_seqs=64)
    first = float(board.sim.workflow["arrival"][0])
    board.run(first)
    sent = board.scheduler._pairs._sent
    assert sent
    epoch = build_pairs(board.sim, board.know, first, make_objective("deadline"), sent, [])
    plan = board.scheduler._pairs._solve(epoch)[0]
    assert (epoch.prefills[plan.prefill] == board.sim.stage["instance"][epoch.stages]).all()
    assert np.isfinite(judge_pairs(epoch.problem, plan).objective)
