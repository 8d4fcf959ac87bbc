"""Expected successors: in the plan and nowhere else; room is left for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from random_workload import RATE, random_experiment, small_cluster

from hexopt.policies.registry import PolicyError, make_policy
from hexopt.policies.rolling_horizon import RollingHorizon
from hexopt.scheduler import epoch_at
from hexopt.simulation.experiment import Experiment
from hexopt.traces import Stage, Workflow

FROZEN = RollingHorizon(freeze=True)


@pytest.mark.parametrize("lookahead", [0.0, 1e-9])
def test_nothing_expected_changes_nothing(lookahead):
    """A nanosecond ahead no call ends: the problems are built with nothing behind the held stages."""
    experiment = random_experiment(3, count=10)
    sample = experiment.sample(30, RATE, 0)
    usual = experiment.run(FROZEN, *sample)
    found = experiment.run(replace(FROZEN, lookahead=lookahead), *sample)
    for field in ("instance", "start", "finish", "priority"):
        np.testing.assert_array_equal(found.stage[field], usual.stage[field])
    assert found.solves.expected == usual.solves.expected == 0


@pytest.mark.parametrize(
    "settings",
    [{}, {"solver": "greedy"}, {"solver": "greedy", "late_binding": False},
     {"solver": "greedy", "solve_seconds": 0.02, "freeze": False}],
)  # fmt: skip
@pytest.mark.parametrize("seed", [1, 5])
def test_nothing_is_lost_or_run_twice_and_what_is_expected_is_never_sent(seed, settings):
    experiment = random_experiment(seed, count=10)
    found = experiment.run(replace(FROZEN, lookahead=2.0, **settings), *experiment.sample(20, RATE, 0))
    assert found.solves.expected > 0 and not found.solves.failed
    assert not np.isnan(found.stage["finish"]).any()
    assert found.decisions == found.instance["finished"].sum() == len(found.stage)


def test_an_epoch_holds_the_expected_behind_the_held():
    experiment = random_experiment(5, count=24)
    sample = experiment.sample(72, RATE, 0)
    epoch, _ = epoch_at(experiment, replace(FROZEN, lookahead=3.0), *sample, 0.5, 30)
    problem, held = epoch.problem, len(epoch.stages)
    assert held < problem.stages
    assert (problem.release[:held] == 0.0).all() and (problem.release[held:] > 0.0).all()
    assert (problem.queued[held:] == -1).all() and epoch.new.shape == problem.service.shape
    # Each group is a workflow of its own, whose weight is at most a certain one's.
    assert not set(problem.workflow[held:]) & set(problem.workflow[:held])
    alone, _ = epoch_at(experiment, FROZEN, *sample, 0.5, 1)
    assert (alone.problem.release == 0.0).all() and alone.problem.stages == len(alone.stages)


def stage(name: str, prompt: int, output: int, *parents: str) -> Stage:
    return Stage(name, name, prompt, output, parents)


def urgent(number: int, arrival: float) -> Workflow:
    """Its first call is too long for the fast instance, its second one is soon due."""
    calls = (stage("long", 4000, 60), stage("urgent", 500, 200, "long")) if number % 2 else ()
    return Workflow(f"w{number}", calls or (stage("calm", 500, 900),), arrival, deadline=6.0 if calls else 1000.0)


def test_room_is_left_for_an_urgent_successor():
    rows = small_cluster(shortest=1 << 14, kv_tokens=1 << 17, max_num_seqs=64).instances
    fast, slow = replace(rows[1], max_num_seqs=1, max_model_len=2000), rows[3]
    cluster = replace(small_cluster(), instances=(fast, slow))
    training = [urgent(k, float(k)) for k in range(40)]
    # The calm call comes while the long one still runs.
    experiment = Experiment.of([urgent(1, 0.0), urgent(0, 0.5)], cluster, training=training)
    picks, times = np.array([0, 1]), np.array([0.0, 0.5])
    runs = {ahead: experiment.run(replace(FROZEN, lookahead=ahead), picks, times).stage for ahead in (0.0, 30.0)}
    for found in runs.values():
        assert found["instance"][0] == 1 and found["finish"][0] > 0.5
    without, ahead = runs[0.0], runs[30.0]
    # Ready alone, the calm call takes the idle fast instance at once, and the urgent one comes too late for it.
    assert without["instance"][2] == 0 and without["start"][2] == 0.5
    assert ahead["instance"][1] == 0 and ahead["start"][1] == ahead["ready"][1]
    assert ahead["instance"][2] == 1 or ahead["start"][2] >= ahead["finish"][1]
    assert ahead["finish"][1] < without["finish"][1] - 0.5


def test_settings_by_text():
    assert make_policy("rolling-horizon:lookahead=5").label == "rolling-horizon(annealing, lookahead=5)"
    with pytest.raises(PolicyError, match="lookahead is -1, expected 0 to 1e6"):
        make_policy("rolling-horizon:lookahead=-1")
    with pytest.raises(PolicyError, match="lookahead is nan, expected at least 0 seconds"):
        RollingHorizon(lookahead=float("nan"))
