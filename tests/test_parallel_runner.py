"""Many workers do what one does, whatever becomes of them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import parallel_work as work
import pytest
from broken_off_run import began, started, wait_until_gone

from hexopt.cluster import load_cluster
from hexopt.parallel import ParallelError, Runner
from hexopt.simulation.experiment import Experiment
from hexopt.traces import read_trace
from hexopt.traces.samples import sample_path

SIMULATIONS = [
    {"policy": policy, "rate": rate, "seed": seed}
    for policy in ("greedy-urgency", "hexgen-flow:alpha=0.3")
    for rate in (0.1, 0.3)
    for seed in range(2)
]


@pytest.fixture(scope="module")
def experiment():
    return Experiment.of(read_trace(sample_path("text-to-sql"))[:60], load_cluster("hetero-1"))


def test_simulations_in_two_processes_are_those_of_one(experiment, tmp_path):
    serial = Runner(1).map(work.simulated, SIMULATIONS, experiment)
    assert len(set(serial)) == len(SIMULATIONS)
    seen = []
    with Runner(2, store=tmp_path, progress=lambda *state: seen.append(state)) as runner:
        assert runner.map(work.simulated, SIMULATIONS, experiment) == serial
    assert seen == [(k, len(SIMULATIONS)) for k in range(len(SIMULATIONS) + 1)]


def test_a_shared_object_is_replaced_by_the_next_and_none():
    with Runner(2) as runner:
        for factor in (2.0, 3.0):
            assert runner.map(work.scaled, range(5), np.full(2, factor))[4].tolist() == [4 * factor] * 2
        assert runner.map(work.square, range(5)) == [0, 1, 4, 9, 16]


def test_workers_have_one_thread_never_see_ctrl_c_and_are_kept_between_calls():
    with Runner(2) as runner:
        first, again = runner.map(work.interrupts, range(6)), runner.map(work.interrupts, range(6))
    assert {state[:2] for state in first} == {(True, "1")}
    pids = {pid for _, _, pid in first + again}
    assert len(pids) <= 2 and os.getpid() not in pids
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_items_of_killed_workers_are_tried_again(tmp_path):
    with Runner(2) as runner:
        assert runner.map(work.killed_once, range(10), tmp_path) == [k * k for k in range(10)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["died-0", "died-3", "died-6", "died-9"]


def test_an_item_that_kills_every_worker_is_named_and_the_others_are_kept(tmp_path):
    with (
        Runner(2, store=tmp_path / "kept", retries=2) as runner,
        pytest.raises(ParallelError, match="item 5, 5: its worker process died 3 times"),
    ):
        runner.map(work.always_killed, range(8), tmp_path)
    assert (tmp_path / "deaths").read_text() == "xxx"
    assert len(list((tmp_path / "kept").rglob("*.pickle"))) >= 5


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_the_function_raises_arrives_as_it_was(jobs):
    with Runner(jobs) as runner:
        with pytest.raises(ValueError, match="no 3") as caught:
            runner.map(work.refuse, [3])
        assert type(caught.value) is ValueError
        assert runner.map(work.square, [3]) == [9]


def test_kept_results_are_those_of_the_same_function_item_and_shared_object(tmp_path):
    def made(function, items, shared=None):
        Runner(1, store=tmp_path).map(function, items, shared)
        return len(list(tmp_path.rglob("*.pickle")))

    assert made(work.square, [1, 2]) == 2
    assert made(work.square, [2, 3]) == 3
    assert made(work.interrupts, [2]) == 4
    assert made(work.scaled, [2], np.arange(3)) == 5
    assert made(work.scaled, [2], np.arange(4)) == 6
    with pytest.raises(TypeError, match="no function of a module"):
        made(lambda item: item, [1])


def test_a_kept_result_that_is_not_whole_is_made_anew(tmp_path):
    Runner(1, store=tmp_path).map(work.square, [7])
    (path,) = tmp_path.rglob("*.pickle")
    whole = path.read_bytes()
    for broken in (b"", whole[:-1], whole[:40]):
        path.write_bytes(broken)
        assert Runner(1, store=tmp_path).map(work.square, [7]) == [49]
        assert path.read_bytes() == whole


@pytest.mark.parametrize("options", [{"jobs": 0}, {"jobs": -1}, {"retries": -1}])
def test_impossible_numbers_are_refused(options):
    with pytest.raises(ValueError, match=rf"{next(iter(options))} is .*, expected at least"):
        Runner(**options)


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_ends_all_quietly_and_the_run_continues_where_it_stopped(tmp_path, jobs):
    run = started(tmp_path, jobs)
    os.killpg(run.pid, signal.SIGINT)
    assert (run.communicate(timeout=60), run.returncode) == (("", ""), 130)
    wait_until_gone(run.pid)
    assert len(list((tmp_path / "kept").rglob("*.pickle"))) == work.OPEN_ITEMS
    before = began(tmp_path)
    (tmp_path / "open").touch()
    command = (sys.executable, Path(work.__file__), tmp_path, "2")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout) == [k * k for k in range(work.ITEMS)]
    again = began(tmp_path)
    assert sorted(again) == sorted(before + list(range(work.OPEN_ITEMS, work.ITEMS)))


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    run = started(tmp_path, 2)
    run.kill()
    run.wait()
    wait_until_gone(run.pid)
    run.stdout.close()
    run.stderr.close()
