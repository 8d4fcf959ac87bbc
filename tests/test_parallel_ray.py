"""On a real Ray cluster of two machines (here: two of Ray's nodes), one of which goes away."""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import parallel_work as work
import pytest
from broken_off_run import began, started, wait_until_gone

from hexopt.cluster import load_cluster
from hexopt.parallel import ParallelError, Runner
from hexopt.simulation.experiment import Experiment
from hexopt.traces import read_trace
from hexopt.traces.samples import sample_path

pytestmark = [pytest.mark.xdist_group("servers"), pytest.mark.slow]

SMALL = {"num_cpus": 1, "object_store_memory": 100_000_000}
SIMULATIONS = [{"policy": "greedy-urgency", "rate": 0.3, "seed": seed} for seed in range(24)]


@pytest.fixture
def cluster(monkeypatch):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    # Other programs may take most of this machine's memory: Ray need not end its own for that.
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={**SMALL, "include_dashboard": False})
    made.add_node(**SMALL)
    yield made
    made.shutdown()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_results_on_two_machines_one_of_which_dies_are_the_serial_ones(cluster, tmp_path):
    experiment = Experiment.of(read_trace(sample_path("text-to-sql"))[:60], load_cluster("hetero-1"))
    shared = (str(tmp_path), experiment)
    serial = Runner(1).map(work.simulated, SIMULATIONS, experiment)
    results = {}
    with Runner(ray=cluster.address) as runner:
        assert runner.workers == 2
        for position, result in runner.unordered(work.slow_simulated, SIMULATIONS, shared):
            results[position] = result
            if len(results) == 6:
                assert len(list(tmp_path.glob("machine-*"))) == 2
                (other,) = cluster.worker_nodes
                cluster.remove_node(other, allow_graceful=False)
        assert [results[k] for k in range(len(SIMULATIONS))] == serial

        folder = tmp_path / "deaths"
        folder.mkdir()
        assert runner.map(work.killed_once, range(4), folder) == [0, 1, 4, 9]
        assert sorted(p.name for p in folder.iterdir()) == ["died-0", "died-3"]
        with pytest.raises(ValueError, match="no 3") as caught:
            runner.map(work.refuse, [3])
        assert type(caught.value) is ValueError
    with (
        Runner(2, ray="auto", store=tmp_path / "kept", retries=1) as runner,
        pytest.raises(ParallelError, match="item 5, 5: its worker process died 2 times"),
    ):
        runner.map(work.always_killed, range(6), folder)
    assert (folder / "deaths").read_text() == "xx"
    assert len(list((tmp_path / "kept").rglob("*.pickle"))) >= 3


def test_ctrl_c_on_a_cluster_leaves_it_idle_and_the_run_continues(cluster, tmp_path):
    import ray

    run = started(tmp_path, 2, cluster.address)
    os.killpg(run.pid, signal.SIGINT)
    assert (run.communicate(timeout=60), run.returncode) == (("", ""), 130)
    wait_until_gone(run.pid)
    assert len(list((tmp_path / "kept").rglob("*.pickle"))) == work.OPEN_ITEMS
    ray.init(cluster.address, log_to_driver=False)
    try:
        end = time.monotonic() + 60.0
        while ray.available_resources().get("CPU") != 2.0:
            assert time.monotonic() < end, "cancelled items go on"
            time.sleep(0.1)
    finally:
        ray.shutdown()
    (tmp_path / "open").touch()
    with Runner(ray=cluster.address, store=tmp_path / "kept") as runner:
        assert runner.map(work.gated, range(work.ITEMS), str(tmp_path)) == [k * k for k in range(work.ITEMS)]
    assert sorted(began(tmp_path))[: work.OPEN_ITEMS] == list(range(work.OPEN_ITEMS))


def test_a_cluster_that_is_not_there_is_one_clear_message_at_once():
    pytest.importorskip("ray")
    with socket.socket() as silent, socket.socket() as other:
        for listener in (silent, other):
            listener.bind(("127.0.0.1", 0))
        other.listen()
        answers = threading.Thread(target=_answer_as_a_web_server, args=(other,))
        answers.start()
        reasons = {
            f"127.0.0.1:{silent.getsockname()[1]}": "no Ray cluster answers there",
            f"ray://127.0.0.1:{silent.getsockname()[1]}": "expected auto or host:port",
            f"127.0.0.1:{other.getsockname()[1]}": "what answers there is no Ray cluster",
            "somewhere": "expected auto or host:port",
        }
        for address, reason in reasons.items():
            start = time.monotonic()
            with pytest.raises(ParallelError, match=f"--ray .*: {reason}"), Runner(ray=address):
                pass
            assert time.monotonic() - start < 10  # Ray itself tries for minutes
        answers.join()


def _answer_as_a_web_server(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_without_ray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ParallelError, match=r"pip install 'hexopt\[ray\]'"), Runner(ray="auto"):
        pass
