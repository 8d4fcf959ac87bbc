"""The API beside the gateway, over sockets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from mock_server import MockServer
from running_service import Running, Setup, running, wait_until
from solver_problems import random_problem

from hexopt.models.online import empty_online
from hexopt.solvers import evaluate
from hexopt.solvers.files import problem_table

pytestmark = pytest.mark.xdist_group("servers")


@pytest.fixture(scope="module")
def setup() -> Iterator[Setup]:
    with running(shadow="round-robin") as found:
        yield found


def test_solve_returns_a_judged_plan_with_its_bound(setup: Setup) -> None:
    problem = random_problem(np.random.default_rng(3), 6, 3)
    answer = setup.http.post("/v1/solve", json={"problem": problem_table(problem), "time_limit": 0.5})
    plan = answer.json()
    found = evaluate(problem, np.array(plan["instance"]), np.array(plan["order"]))
    assert plan["objective"] == pytest.approx(found.objective)
    assert plan["bound"] <= plan["objective"] + 1e-9
    assert plan["terms"] == pytest.approx(found.terms)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "problem"),
        ({"problem": {}}, 400, "service is missing"),
        ({"problem": {"service": "x"}}, 400, "is missing"),
        ({"problem": {}, "solver": "magic"}, 400, "solver 'magic'"),
        ({"problem": {}, "time_limit": -1}, 422, "time_limit"),
        ({"problem": {}, "surprise": 1}, 422, "surprise"),
    ],
)
def test_bad_problems_are_refused_by_name(setup: Setup, body: object, status: int, said: str) -> None:
    answer = setup.http.post("/v1/solve", json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]


def test_predictions_grow_with_work_and_company(setup: Setup) -> None:
    def seconds(**more: int) -> dict[str, float]:
        body = {"prompt_tokens": 1000, "output_tokens": 100, **more}
        rows = setup.http.post("/v1/predict", json=body).json()["instances"]
        return {row["instance"]: row["seconds"] for row in rows}

    usual = seconds()
    assert usual["fast"] < usual["slow"]
    for more in ({"prompt_tokens": 9000}, {"output_tokens": 300}, {"company": 32}):
        assert all(seconds(**more)[name] > usual[name] for name in usual)
    assert all(seconds(cached_tokens=900)[name] < usual[name] for name in usual)
    assert (
        setup.http.post("/v1/predict", json={"prompt_tokens": 5, "output_tokens": 5, "cached_tokens": 5}).status_code
        == 400
    )


def test_workflows_are_announced_listed_and_ended(setup: Setup) -> None:
    made = setup.http.post("/v1/workflows", json={"id": "known", "deadline": 12.5, "weight": 2})
    assert made.status_code == 201 and made.json()["remaining_seconds"] == pytest.approx(12.5, abs=0.5)
    assert setup.http.post("/v1/workflows", json={"id": "known"}).status_code == 409
    setup.complete({"x-hexopt-workflow": "known", "x-hexopt-deadline": "999"})
    found = setup.http.get("/v1/workflows/known").json()
    # What was announced holds.
    assert found["weight"] == 2 and found["remaining_seconds"] < 12.5
    assert len(found["stages"]) == 1
    assert setup.http.delete("/v1/workflows/known").json() == {"id": "known", "ended": True, "running": 0}
    assert setup.http.get("/v1/workflows/known").status_code == 404
    named = setup.http.post("/v1/workflows", json={}).json()["id"]
    assert setup.http.delete(f"/v1/workflows/{named}").status_code == 200


def test_instances_come_and_go_while_calls_run(setup: Setup) -> None:
    for mock in setup.mocks:
        mock.delay = 0.3
    third = MockServer()
    server = Running(third)
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(setup.complete, {"x-hexopt-workflow": f"v{k}"}) for k in range(8)]
            row = {"url": server.url, "gpu": "h100", "name": "new"}
            assert setup.http.post("/v1/instances", json=row).status_code == 201
            assert setup.http.post("/v1/instances", json=row).status_code == 409
            assert {a.result().status_code for a in answers} == {200}
        wait_until(lambda: "new" in setup.http.get("/readyz").json()["up"])
        assert setup.complete().headers["x-hexopt-instance"] == "new"
        assert setup.http.post("/v1/instances/new/drain").json()["state"] == "draining"
        assert setup.complete().headers["x-hexopt-instance"] == "fast"
        setup.http.post("/v1/instances/new/resume")
        wait_until(lambda: "new" in setup.http.get("/readyz").json()["up"])
        third.delay = 0.5
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(setup.complete)
            wait_until(lambda: third.running == 1)
            assert setup.http.delete("/v1/instances/new").status_code == 409
            assert answer.result().status_code == 200
        assert setup.http.delete("/v1/instances/new").status_code == 200
        assert [row["name"] for row in setup.http.get("/v1/instances").json()["instances"]] == ["fast", "slow"]
        assert setup.complete().status_code == 200
        assert setup.state()["running"] == setup.state()["waiting"] == 0
    finally:
        server.stop(at_once=True)
        for mock in setup.mocks:
            mock.delay = 0.0
    assert setup.http.delete("/v1/instances/none").status_code == 404
    bad = setup.http.post("/v1/instances", json={"url": "http://127.0.0.1:1", "gpu": "abacus", "name": "x"})
    assert bad.status_code == 400 and "abacus" in bad.json()["detail"]


def test_the_policy_changes_while_calls_wait_and_run(setup: Setup) -> None:
    for mock in setup.mocks:
        mock.delay = 0.05
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(setup.complete) for _ in range(80)]
            # Compiled in the loop, called by address, planned.
            for policy in ("round-robin", "hexgen-flow:alpha=0.3", "workflow-fcfs", "heft-like", "infaas-style", "edf"):
                assert setup.http.put("/v1/policy", json={"policy": policy}).status_code == 200
            for policy in ("rolling-horizon", "shortest-remaining", "least-loaded", "atc:k=3", "llf"):
                assert setup.http.put("/v1/policy", json={"policy": policy}).status_code == 200
            assert {a.result().status_code for a in answers} == {200}
        assert sum(len(mock.seen) for mock in setup.mocks) >= 80
    finally:
        for mock in setup.mocks:
            mock.delay = 0.0
    setup.http.put("/v1/policy", json={"policy": "round-robin"})
    where = [setup.complete().headers["x-hexopt-instance"] for _ in range(4)]
    assert where in (["fast", "slow"] * 2, ["slow", "fast"] * 2)
    assert setup.http.put("/v1/policy", json={"policy": "magic"}).status_code == 400
    refused = setup.http.put("/v1/policy", json={"policy": "clairvoyant"})
    assert refused.status_code == 400 and "'clairvoyant' is for simulations only" in refused.json()["detail"]
    offered = setup.http.get("/v1/policy").json()["policies"]
    assert "clairvoyant" not in offered and {"workflow-fcfs", "greedy-urgency"} <= set(offered)
    assert setup.http.put("/v1/objective", json={"preset": "latency"}).status_code == 409
    setup.http.put("/v1/policy", json={"policy": "rolling-horizon"})


def test_the_objective_is_read_and_set(setup: Setup) -> None:
    found = setup.http.put("/v1/objective", json={"preset": "attainment", "weights": {"price": 3.0}}).json()
    assert (found["weights"]["lost"], found["weights"]["price"]) == (0.1, 3.0)
    assert setup.http.get("/v1/policy").json()["parameters"]["objective"] == "attainment:price=3.0"
    bad = setup.http.put("/v1/objective", json={"weights": {"beauty": 1.0}})
    assert bad.status_code == 400 and "beauty" in bad.json()["detail"]
    assert setup.http.put("/v1/objective", json={"preset": "deadline"}).json()["weights"]["price"] == 0.0


def test_a_shadow_policy_is_compared_and_decides_nothing(setup: Setup) -> None:
    setup.http.put("/v1/policy", json={"shadow": "round-robin"})
    where = {setup.complete().headers["x-hexopt-instance"] for _ in range(6)}
    found = setup.http.get("/v1/policy").json()
    assert where == {"fast"}
    assert (found["shadow"], found["shadow_same"], found["shadow_different"]) == ("round-robin", 3, 3)
    latest = setup.http.get("/v1/decisions?limit=1").json()["decisions"][0]
    assert latest["shadow"]["policy"] == "round-robin"
    assert setup.http.put("/v1/policy", json={"shadow": ""}).json()["shadow"] is None


def test_predictions_follow_what_is_observed(setup: Setup) -> None:
    # The mock answers at once: far faster than any A100.
    before = setup.state()["instances"][0]["scale"]
    for _ in range(30):
        setup.complete(max_tokens=50)
    assert setup.state()["instances"][0]["scale"] < before
    assert empty_online(1).scale[0] == 1.0


def test_the_documents_describe_the_api(setup: Setup) -> None:
    paths = setup.http.get("/openapi.json").json()["paths"]
    page = setup.http.get("/docs").text
    for link in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert link == "data:," or setup.http.get(link).status_code == 200, link
    assert setup.http.get("/docs/../../etc/passwd").status_code == 404
    assert {"/v1/solve", "/v1/predict", "/v1/workflows", "/v1/instances", "/v1/decisions/{name}"} <= set(paths)
