"""Weights that follow the traffic, over real HTTP before mock servers."""

import os
import shutil
import signal

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("optuna")

from gateway_traffic import fill
from running_service import running, wait_until

from hexopt.service.settings import ServiceSettings, SettingsError
from hexopt.tuning import Settings

pytestmark = [pytest.mark.xdist_group("servers"), pytest.mark.slow]

BAD = "hexgen-flow:alpha=0"
"""Every call where it delays the others least, however slow it is there."""
POLICY = f"rolling-horizon:objective={BAD}"
BRIEFLY = Settings(trials=3, workflows=20, seeds=2, held_out=6)
EVERY = 3600.0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "traffic.db"
    fill(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(made, tmp_path):
    """That traffic, in a store of the test's own."""
    return f"sqlite:///{shutil.copy(made, tmp_path / 'traffic.db')}"


def tuning(setup):
    return setup.http.get("/v1/tuning").json()


def searched(setup, times=1):
    """The status after so many searches."""
    wait_until(lambda: tuning(setup)["searches"] >= times, 200.0)
    return tuning(setup)


def serve(setup, count, deadline):
    """That many workflows of one call, each with so many seconds."""
    for _ in range(count):
        assert setup.complete({"x-hexopt-deadline": str(deadline)}, max_tokens=1).status_code == 200


def objective(setup):
    return setup.http.get("/v1/objective").json()["objective"]


def test_a_proposal_is_accepted_and_taken_back_when_fewer_are_in_time(store):
    with running(POLICY, store=store, tune="propose", tune_every=EVERY, tuning=BRIEFLY) as setup:
        assert setup.http.post("/v1/tuning/accept", json={"id": "none"}).status_code == 409
        assert setup.http.post("/v1/tuning/search").status_code == 202
        assert setup.http.post("/v1/tuning/search").status_code == 409
        found = searched(setup)
        proposal = found["proposal"]
        assert (proposal["state"], proposal["replaces"], objective(setup)) == ("proposed", BAD, BAD), found
        assert any(gain["low"] > 0 for gain in proposal["gains"]) and "better" in proposal["verdict"]
        assert setup.state()["tuning"]["proposal"] == proposal
        serve(setup, 60, deadline=1000.0)
        accepted = setup.http.post("/v1/tuning/accept", json={"id": proposal["id"]}).json()["proposal"]
        assert (accepted["state"], objective(setup)) == ("applied", proposal["objective"])
        assert setup.http.post("/v1/tuning/search").json()["detail"] == "weights that were applied are still watched"
        serve(setup, 45, deadline=1e-6)
        # Soon the load after the change is not above the one before.
        wait_until(lambda: tuning(setup)["proposal"]["state"] == "rolled back", 60.0)
        assert objective(setup) == BAD
        watched = tuning(setup)["proposal"]["watched"]
        assert (watched["before"], watched["after"]) == (1.0, 0.0) and watched["workflows"] >= 40
        metrics = setup.http.get("/metrics").text
        assert 'hexopt_tuning_proposals_total{state="rolled_back"} 1' in metrics


def test_weights_that_win_are_applied_by_themselves_and_give_way_to_the_operators(store):
    with running(POLICY, store=store, tune="apply", tune_every=0.5, tuning=BRIEFLY) as setup:
        wait_until(lambda: (tuning(setup)["proposal"] or {}).get("state") in ("applied", "kept"), 200.0)
        assert objective(setup) == tuning(setup)["proposal"]["objective"] != BAD


def test_a_proposal_is_dismissed_or_made_void_by_other_weights(store):
    with running(POLICY, store=store, tune="propose", tune_every=EVERY, tuning=BRIEFLY) as setup:
        setup.http.post("/v1/tuning/search")
        proposal = searched(setup)["proposal"]
        assert setup.http.put("/v1/objective", json={"preset": "latency"}).status_code == 200
        refused = setup.http.post("/v1/tuning/accept", json={"id": proposal["id"]})
        assert (refused.status_code, objective(setup)) == (409, "latency")
        assert "other weights than the present ones" in refused.json()["detail"]
        assert tuning(setup)["proposal"]["state"] == "superseded"
        setup.http.put("/v1/policy", json={"policy": "edf"})
        assert setup.http.post("/v1/tuning/search").json()["detail"] == "policy edf has no weights to tune"


def test_a_search_that_dies_or_finds_too_little_is_said_and_calls_go_on(store, tmp_path):
    with running(POLICY, store=store, tune="propose", tune_every=EVERY, tuning=BRIEFLY) as setup:
        setup.http.post("/v1/tuning/search")
        wait_until(lambda: setup.service.tuner.pid is not None, 60.0)
        os.kill(setup.service.tuner.pid, signal.SIGKILL)
        assert searched(setup)["last_result"] == "the search's process died"
        serve(setup, 1, deadline=1000.0)
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    with running(POLICY, store=empty, tune="propose", tune_every=EVERY, tuning=BRIEFLY) as setup:
        serve(setup, 3, deadline=1000.0)
        setup.http.post("/v1/tuning/search")
        found = searched(setup)
        assert "expected at least 20" in found["last_result"] and found["proposal"] is None
        assert setup.complete().status_code == 200


def test_a_service_that_ends_takes_the_search_with_it(store):
    with running(POLICY, store=store, tune="propose", tune_every=EVERY, tuning=BRIEFLY) as setup:
        setup.http.post("/v1/tuning/search")
        wait_until(lambda: setup.service.tuner.pid is not None, 60.0)
        pid = setup.service.tuner.pid
    wait_until(lambda: _gone(pid), 30.0)


def _gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Ended, and not yet asked for by its parent, which is this process.
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def test_without_tuning_there_is_nothing_to_decide_on():
    with running(POLICY) as setup:
        assert tuning(setup) == {"mode": "off"}
        for path, body in (("search", None), ("accept", {"id": "a"}), ("dismiss", {"id": "a"})):
            answer = setup.http.post(f"/v1/tuning/{path}", json=body)
            assert answer.status_code == 409 and "--tune propose" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tune": "sometimes"}, "--tune sometimes: expected off, propose or apply"),
        ({"tune": "apply", "store": ""}, "--tune apply searches the traffic in the store: give --store"),
        ({"tune_every": 0.0}, "--tune-every is 0.0, expected more than 0 seconds"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        ServiceSettings(**settings)
