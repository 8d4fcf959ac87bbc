"""Rules called by address: the same results as called by name, errors that arrive, results that fit."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from bare_board import bare_board, bare_knowledge
from numba import types
from random_workload import RATE, random_experiment

from hexopt.models.kernel import kernel
from hexopt.policies.linked import Linked
from hexopt.policies.linking import address_of, call_at
from hexopt.policies.registry import make_policy


@kernel
def first_free(sim, know, r, now):
    """The first instance with fewer calls than it has places in memory; longest prompt first."""
    sim.stage[r].priority = -sim.stage[r].prompt
    for i in range(sim.instance.shape[0]):
        if sim.instance[i].running + sim.instance[i].waiting < know.memory[0]:
            return i
    return 0


@kernel
def refuses(sim, know, r, now):
    if now > 1.0:
        raise ValueError("too late")
    return r


@kernel
def real(sim, know, r, now):
    return now


@kernel
def caller(address, sim, know, r, now):
    return call_at(address, (sim, know, r, now))


def given() -> tuple:
    stage, instance = bare_board().stage, bare_board().instance
    board = bare_board(stage=np.zeros(3, dtype=stage.dtype), instance=np.zeros(4, dtype=instance.dtype))
    return board, bare_knowledge(memory=np.array([2.0]))


def test_a_call_by_address_is_the_call_itself():
    board, know = given()
    board.stage["prompt"], board.instance["waiting"][:2] = (5, 6, 7), 2
    address = address_of(first_free, board, know, types.int64, types.float64)
    assert caller(address, board, know, 1, 0.5) == first_free(board, know, 1, 0.5) == 2
    assert caller(address, board, know, 2, 0.5) == 2 and board.stage["priority"].tolist() == [0.0, -6.0, -7.0]
    assert address_of(first_free, board, know, types.int64, types.float64) == address
    assert address_of(None) == 0


def test_an_error_of_the_rule_reaches_the_caller():
    board, know = given()
    address = address_of(refuses, board, know, 0, 0.0)
    assert caller(address, board, know, 2, 0.5) == 2
    with pytest.raises(ValueError, match="too late"):
        caller(address, board, know, 2, 1.5)


def test_a_rule_that_names_no_instance_is_refused():
    board, know = given()
    with pytest.raises(TypeError, match=r"test_policies_linking\.real returns float64, not int64"):
        address_of(real, board, know, 0, 0.0)


class Own(Linked):
    """As an operator may write one."""

    name = "own"
    rule = SimpleNamespace(place=first_free)

    def memory(self, fleet):
        return np.array([3.0])


def test_a_rule_of_ones_own_runs_in_the_loop():
    experiment = random_experiment(3, count=20, shortest=1 << 14, kv_tokens=1 << 15)
    picks, arrivals = experiment.sample(40, RATE, 0)
    run = experiment.run(Own(), picks, arrivals)
    assert not np.isnan(run.workflow["finish"]).any()
    assert (run.stage["priority"] == -run.stage["prompt"]).all()
    # The first instance takes three calls before the second has any, and the rest when all are full.
    counts = np.bincount(run.stage["instance"], minlength=4)
    assert counts[0] == counts.max() and counts[3] > 0


def test_rules_of_two_policies_do_not_mix():
    experiment = random_experiment(3, count=20)
    picks, arrivals = experiment.sample(40, RATE, 0)
    once = experiment.run(make_policy("workflow-fcfs"), picks, arrivals)
    experiment.run(make_policy("agentmath-style"), picks, arrivals)
    again = experiment.run(make_policy("workflow-fcfs"), picks, arrivals)
    assert once.stage.tobytes() == again.stage.tobytes()
    assert (once.stage["priority"] == once.workflow["arrival"][once.stage["workflow"]]).all()
