"""Llumnix's rule: worked examples, and limits in which it is another rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bare_board import bare_board, bare_knowledge
from random_workload import RATE, random_experiment

from hexopt.policies import llumnix
from hexopt.policies.registry import PolicyError, make_policy
from hexopt.simulation.simulator import fleet_of
from hexopt.simulation.state import DOWN, DRAINING, INSTANCE, NONE, OPEN, STAGE, WORKFLOW

M = 800


def board_of(instances, weights=()):
    """Instances of 800 blocks of 16 tokens: (used blocks, running calls, blocks that one waiting call demands)."""
    instance = np.zeros(len(instances), dtype=INSTANCE)
    stages, running = [], np.zeros((len(instances), 64), dtype=np.int32)
    for i, (used, calls, demand) in enumerate(instances):
        row = instance[i]
        row["blocks"], row["free"], row["block_size"], row["max_len"] = M, M - used, 16, 10_000
        row["running"], row["waiting"], row["max_seqs"], row["first_here"] = calls, demand > 0, 64, NONE
        for k in range(calls + (demand > 0)):
            r = len(stages)
            waits = k == calls
            stages.append(
                (16 * demand if waits else 16, 0 if waits else 16 + r, 0 if waits else 1, i, row["first_here"])
            )
            row["first_here"] = r
            if waits:
                row["waiting_root"] = r
            else:
                running[i, k] = r
    stage = np.zeros(len(stages), dtype=STAGE)
    for r, (prompt, computed, held, i, following) in enumerate(stages):
        stage[r]["prompt"], stage[r]["computed"], stage[r]["held"], stage[r]["instance"] = prompt, computed, held, i
        stage[r]["generated"], stage[r]["next_here"], stage[r]["workflow"] = held, following, r
    workflow = np.zeros(len(stages), dtype=WORKFLOW)
    workflow["weight"] = 1.0
    for r in weights:
        workflow["weight"][r] = 2.0
    return bare_board(stage=stage, instance=instance, workflow=workflow, running=running)


def knowledge_of(text: str, m: int):
    policy = make_policy(f"llumnix-style:{text}")
    fleet = fleet_of(random_experiment(0).cluster)
    size = llumnix.FREE + 2 * m
    return bare_knowledge(weights=policy.weights(None), memory=np.zeros(max(size, len(policy.memory(fleet)))))


EXAMPLE = [(700, 20, 120), (300, 10, 0), (500, 15, 0)]


def test_freeness_of_the_worked_example():
    sim, know = board_of(EXAMPLE), knowledge_of("", 3)
    free = [llumnix.load_freeness(sim, know, i, 0.0) for i in range(3)]
    assert free == pytest.approx([-20 / 21, 50.0, 20.0])
    assert llumnix.freeness(M, 0, 0) == math.inf
    sim.instance["state"][1] = DRAINING
    assert llumnix.load_freeness(sim, know, 1, 0.0) == -math.inf


def test_a_call_goes_to_the_freest_instance():
    sim, know = board_of(EXAMPLE), knowledge_of("priorities=true", 3)
    assert llumnix.place(sim, know, 0, 0.0) == 1


def test_the_lowest_is_paired_with_the_highest():
    sim, know = board_of(EXAMPLE), knowledge_of("threshold=3", 3)
    llumnix.tick(sim, know, 0.0)
    assert sim.instance["moving"].tolist() == [1, 0, 0]
    # The shortest of its calls, which is the first; the last where that is asked for.
    assert sim.stage["bound"][0] == 1
    last = board_of(EXAMPLE)
    llumnix.tick(last, knowledge_of("threshold=3,choose=last", 3), 0.0)
    assert last.instance["moving"].tolist() == [20, 0, 0] and last.clock["tick"][0] == 0.12


def test_a_call_of_the_high_class_makes_its_instance_a_source():
    sim = board_of([(300, 10, 0), (500, 15, 0)], weights=(0,))
    know = knowledge_of("priorities=true,target=1600", 2)
    assert llumnix.load_freeness(sim, know, 0, 0.0) == -20.0
    llumnix.tick(sim, know, 0.0)
    # The call of the high class stays, though it is the shortest.
    assert sim.instance["moving"].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("mean", "instances", "wanted"), [(9.9, 4, 1), (35, 4, 0), (61, 4, -1), (61, 1, 0), (9, 16, 0)]
)
def test_scaling_by_the_mean_freeness(mean, instances, wanted):
    assert llumnix.wanted_scaling(mean, 10.0, 60.0, instances, 16, 1) == wanted


def test_without_migration_it_is_infaas():
    for seed in range(5):
        experiment = random_experiment(seed)
        picks, arrivals = experiment.sample(16, RATE, seed)
        one = experiment.run(make_policy("llumnix-style:migrate=false"), picks, arrivals)
        other = experiment.run(make_policy("infaas-style"), picks, arrivals)
        assert one.stage.tobytes() == other.stage.tobytes()


def test_calls_move_where_memory_is_short_and_idle_instances_go_down():
    experiment = random_experiment(3, count=20)
    picks, arrivals = experiment.sample(60, RATE, 3)
    run = experiment.run(make_policy("llumnix-style:threshold=30,period=0.02"), picks, arrivals)
    assert run.stage["migrations"].sum() > 0 and run.instance["down_seconds"].sum() == 0
    assert np.isfinite(run.workflow["finish"]).all()
    scaled = make_policy("llumnix-style:scale=true,low=1,high=5,interval=0.1,start=0.5,migrate=false")
    less = experiment.run(scaled, picks, arrivals + np.arange(60))
    assert np.isfinite(less.workflow["finish"]).all()
    assert (less.instance["down_seconds"].sum() > 0) or (less.instance["state"] == DOWN).any()
    assert (less.instance["state"] == OPEN).any()


def test_bad_choices_are_refused():
    with pytest.raises(PolicyError, match="choose is 'first', expected one of shortest, last"):
        make_policy("llumnix-style:choose=first")
