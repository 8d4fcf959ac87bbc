"""QLM's estimator and program: by hand, against every way to place whole groups, and in runs where queues build up."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from bare_board import bare_board, bare_knowledge
from believing_oracle import BelievingOracle
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workload import RATE, random_experiment

from hexopt.models.roofline import FEATURE_NAMES, N_FEATURES, step_seconds
from hexopt.policies import qlm
from hexopt.policies.knowledge import alone_seconds
from hexopt.policies.published import Qlm
from hexopt.policies.registry import PolicyError, make_policy
from hexopt.simulation.state import INSTANCE, NONE, STAGE


def objective(ahead, work, calls, own, left, shares) -> float:
    """What the program minimises, of any shares."""
    total = 0.0
    for g in range(len(calls)):
        for i in range(len(ahead)):
            done = ahead[i] + sum(work[h][i] * shares[h][i] for h in range(g + 1) if shares[h][i] > 0)
            total += calls[g] * max(done - (left[g] - min(own[g])), 0.0)
            if shares[g][i] > 0:
                total += qlm.EPSILON * (work[g][i] + calls[g] * own[g][i]) * shares[g][i]
    return total


def one_each(choice, instances: int) -> np.ndarray:
    return np.eye(instances)[list(choice)]


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_no_way_to_place_whole_groups_is_better(seed, groups, instances):
    rng = np.random.default_rng(seed)
    work, own = rng.uniform(0.5, 5.0, (groups, instances)), rng.uniform(0.1, 1.0, (groups, instances))
    too_long = rng.random((groups, instances)) < 0.2
    too_long[:, 0] = False
    work[too_long] = own[too_long] = np.inf
    ahead, left = rng.uniform(0.0, 4.0, instances), np.sort(rng.uniform(0.0, 8.0, groups))
    calls = rng.integers(1, 5, groups).astype(float)
    shares = qlm.assign(ahead, work, calls, own, left)
    assert shares.sum(axis=1) == pytest.approx(np.ones(groups)) and (shares >= -1e-9).all()
    assert (shares[too_long] == 0).all()
    best = objective(ahead, work, calls, own, left, shares)
    for choice in itertools.product(range(instances), repeat=groups):
        if not too_long[range(groups), choice].any():
            whole = objective(ahead, work, calls, own, left, one_each(choice, instances))
            assert best <= whole + 1e-7


def test_work_goes_where_it_is_done_in_time():
    # Due in 3.5 s with half a second of its own: three seconds of work fit on the idle instance, none on the other.
    own, left = np.full((1, 2), 0.5), np.array([3.5])
    ahead = np.array([0.0, 4.0])
    assert qlm.assign(ahead, np.full((1, 2), 3.0), np.ones(1), own, left)[0] == pytest.approx([1.0, 0.0])
    # What is due first has the first second; the second group's four seconds share the rest of both.
    work = np.array([[1.0, 1.0], [4.0, 4.0]])
    shares = qlm.assign(np.zeros(2), work, np.ones(2), np.zeros((2, 2)), np.array([1.0, 2.5]))
    assert work[0] @ shares[0] == pytest.approx(1.0) and (work * shares).sum(axis=0) == pytest.approx([2.5, 2.5])


def test_shares_become_calls_by_largest_remainders():
    assert qlm.dealt(np.array([0.5, 0.3, 0.2]), 4) == [0, 0, 1, 2]
    assert qlm.dealt(np.array([1 / 3, 1 / 3, 1 / 3]), 3) == [0, 1, 2]
    assert qlm.dealt(np.array([0.0, 1.0]), 5) == [1] * 5
    assert qlm.dealt(np.array([0.4, 0.6]), 1) == [1]


def test_waiting_time_is_tokens_ahead_over_throughput():
    # A step of full batches takes 20 ms whatever is in it, and 1 s of prefill a call of 1000 tokens.
    coef = np.zeros((1, N_FEATURES))
    coef[0, FEATURE_NAMES.index("[T>0]")], coef[0, FEATURE_NAMES.index("[B>0]")] = 1.0, 0.02
    instance = np.zeros(1, dtype=INSTANCE)
    instance["block_size"], instance["blocks"], instance["max_seqs"], instance["max_batched"] = 16, 6875, 256, 1 << 20
    stage = np.zeros(3, dtype=STAGE)
    stage["expected_output"], stage["generated"] = (200.0, 40.0, 90.0), (50, 39, 7)
    stage["next_here"] = 1, 2, NONE
    stage["held"] = 0, 0, 3
    board = bare_board(stage=stage, instance=instance)
    know = bare_knowledge(coef=coef, scale=np.ones(1), weights=np.array([1000.0, 200.0]))
    tokens, ahead, calls, context = np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1)
    qlm.throughput(board, know, tokens)
    # 110,000 tokens hold a hundred calls of 1100: each costs 1 s and a hundredth of 200 steps.
    assert tokens[0] == pytest.approx(200 / (1 + 200 * 0.02 / 100))
    qlm.backlog(board, ahead, calls, context)
    # Two wait. The first has 150 tokens left; the other more than a seventh of its length, as none is ever at its end.
    assert ahead[0] == pytest.approx(150 + 0.15 * 40 + 1) and (calls[0], context[0]) == (3, 96)


@pytest.mark.parametrize("seed", range(3))
def test_where_queues_build_up_the_program_is_solved_and_all_calls_end(seed, monkeypatch):
    solved = []

    def counted(*arguments):
        solved.append(plain(*arguments))
        return solved[-1]

    plain = qlm.assign
    monkeypatch.setattr(qlm, "assign", counted)
    experiment = random_experiment(seed, count=30)
    picks, arrivals = experiment.sample(60, RATE, seed)
    run = experiment.run(make_policy("qlm-style:period=0.1,granularity=0.5"), picks, arrivals)
    assert len(solved) > 1 and all(shares is not None for shares in solved)
    assert not np.isnan(run.workflow["finish"]).any()
    # The program decides: without it, calls go elsewhere.
    rarely = experiment.run(make_policy("qlm-style:period=1e6,granularity=0.5"), picks, arrivals)
    assert (run.stage["instance"] != rarely.stage["instance"]).any()


def test_a_program_without_a_solution_leaves_calls_where_they_joined(monkeypatch):
    experiment = random_experiment(1, count=30)
    picks, arrivals = experiment.sample(60, RATE, 1)
    policy = make_policy("qlm-style:period=0,granularity=0.5")
    monkeypatch.setattr(qlm, "assign", lambda *_: None)
    failed = experiment.run(policy, picks, arrivals)
    monkeypatch.setattr(qlm.VirtualQueues, "_any_late", lambda *_: False)
    never = experiment.run(policy, picks, arrivals)
    np.testing.assert_array_equal(failed.stage["finish"], never.stage["finish"])


def test_refuses_due_times_without_width():
    with pytest.raises(PolicyError, match="policy 'qlm-style': granularity is 0, expected more than 0"):
        make_policy("qlm-style:granularity=0")


class CheckedQueues(qlm.VirtualQueues):
    """Compares where each call joins with the estimate in plain Python."""

    def __init__(self, oracle: BelievingOracle, settings) -> None:
        super().__init__(settings.granularity, settings.period)
        self.oracle, self.joined = oracle, 0

    def _join(self, board, know, r, ahead):
        held = list(self._held)
        super()._join(board, know, r, ahead)
        fleet, training = self.oracle.fleet, self.oracle.training
        prompt, output = (float(np.average(x, weights=training.calls)) for x in (training.prompt, training.output))
        call = board.stage[r]
        expected, tail = self.oracle.beliefs(board, r)
        due = (board.workflow["deadline"][call["workflow"]] - tail) // self._granularity * self._granularity
        ends = []
        for i, (coef, instance) in enumerate(zip(fleet.coef, board.instance, strict=True)):
            mean = prompt + output / 2
            batch = max(min(instance["blocks"] * instance["block_size"] / mean, instance["max_seqs"]), 1.0)
            step = step_seconds(coef, 0.0, 0.0, 0.0, 0.0, batch, batch * mean)
            budget = float(instance["max_batched"])
            tokens = output / (alone_seconds(coef, prompt, 0.0, 1.0, budget) + output * step / batch)
            there = [board.stage[c] for c in self.oracle.here(board, i)]
            before = sum(
                max(s["expected_output"] - s["generated"], 0.15 * s["expected_output"] + 1)
                for s in there
                if s["held"] == 0
            )
            before += sum(
                float(board.stage["expected_output"][o]) for o in held if self._place[o] == i and self._due[o] <= due
            )
            cached = float(call["prompt"]) - self._new[r][i]
            context = sum(float(s["prompt"] + s["generated"]) for s in there) + float(call["prompt"]) + expected / 2
            beside = step_seconds(coef, 0.0, 0.0, 0.0, 0.0, len(there) + 1.0, context)
            own = alone_seconds(coef, float(call["prompt"]), cached, 1.0, budget) + expected * beside
            fits = call["prompt"] + call["output"] <= instance["max_len"]
            ends.append(before / tokens + own if fits else np.inf)
        assert self._due[r] == pytest.approx(due)
        assert ends[self._place[r]] <= min(ends) * (1 + 1e-9)
        self.joined += 1


class CheckedQlm(Qlm):
    def prepare(self, fleet, training, workflows):
        oracle = BelievingOracle()
        oracle.fleet, oracle.training = fleet, training
        object.__setattr__(self, "planner", CheckedQueues(oracle, self))
        return super().prepare(fleet, training, workflows)

    def scheduler(self, fleet):
        return self.planner


@given(st.integers(0, 2**31), st.sampled_from([0.5, 10.0]))
@settings(max_examples=12, deadline=None)
def test_calls_join_where_they_are_estimated_to_end_first(seed, granularity):
    experiment = random_experiment(seed)
    policy = CheckedQlm(granularity, 0.2)
    run = experiment.run(policy, *experiment.sample(12, RATE, seed))
    assert policy.planner.joined == len(run.stage)
