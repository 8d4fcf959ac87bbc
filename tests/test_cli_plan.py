"""``hexopt plan`` as a user runs it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from command_line import Result, call

from hexopt.cluster import load_cluster

QUICK = ("plan", "--slo", "90s", "--run", "8min", "--seeds", "2", "--jobs", "1", "--rounds", "15")
SQL = (*QUICK, "--trace", "text-to-sql", "--llm", "llama-3.1-70b", "--rate", "0.3/s")


@pytest.fixture
def hexopt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*arguments: object, code: int = 0) -> Result:
        result = call(capsys, monkeypatch, *arguments)
        assert result.code == code, result.err
        return result

    return run


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of two GPU types, so that plans are found at once."""
    file = tmp_path_factory.mktemp("catalogue") / "gpus.toml"
    file.write_text(
        'currency = "EUR"\n[[gpu]]\nname = "h100"\nprice = 3.0\nspot_price = 2.0\n[[gpu]]\nname = "a100"\nprice = 1.5\n'
    )
    return file


def test_a_plan_as_json_and_as_a_cluster(hexopt: Any, few: Path, tmp_path: Path) -> None:
    fleet, page = tmp_path / "fleet.toml", tmp_path / "plan.html"
    run = hexopt(*SQL, "--catalog", few, "--json", "--out", fleet, "--page", page, "--front", "80%,95%")
    document = json.loads(run.out)
    assert document["currency"] == "EUR"
    assert document["attainment"] >= document["target"] == 0.95
    assert document["bound"] <= document["cost_per_hour"]
    assert document["gap"] == pytest.approx(1 - document["bound"] / document["cost_per_hour"])
    assert document["cost_per_hour"] == pytest.approx(sum(r["count"] * r["price"] for r in document["fleet"]))
    assert document["rounds"] == len(document["proof"]["rounds"])
    assert [p["target"] for p in document["front"]] == [0.8, 0.95]
    assert document["front"][0]["cost_per_hour"] <= document["front"][1]["cost_per_hour"]
    assert page.read_text().startswith("<!doctype html>")
    cluster = load_cluster(fleet)
    assert len(cluster) == sum(row["count"] for row in document["fleet"])
    assert sum(i.price for i in cluster.instances) == pytest.approx(document["cost_per_hour"])
    simulated = json.loads(
        hexopt("simulate", "--trace", "text-to-sql", "--cluster", fleet, "--rate", "0.3", "--slo", "90", "--json").out
    )
    assert simulated["attainment"] > 0.9


def test_the_same_question_has_the_same_answer(hexopt: Any, few: Path) -> None:
    answers = [json.loads(hexopt(*SQL, "--catalog", few, "--json").out) for _ in range(2)]
    for answer in answers:
        del answer["seconds"]
        for key in ("build_seconds", "solve_seconds"):
            del answer["model"][key]
    assert answers[0] == answers[1]


def test_tables_for_people(hexopt: Any, few: Path) -> None:
    asked = ("--sweep", "rate=1:1.5:2", "--growth", "1,1.5", "--one-more", "--spot", "0.5", "--rounds", "5")
    run = hexopt(*SQL, "--catalog", few, *asked)
    for said in ("EUR/h", "in time", "Less one", "Other rates", "only grow with the rate", "One more (now"):
        assert said in run.out, said


def test_instances_that_are_there_and_a_workload_file(hexopt: Any, few: Path, tmp_path: Path) -> None:
    workload = tmp_path / "workload.toml"
    workload.write_text(
        '[[workload]]\ntrace = "text-to-sql"\nrate = 0.2\nslo = 90.0\n'
        '[[workload]]\nfamily = "map-reduce"\nworkflows = 40\nrate = 0.05\nslo = 120.0\n'
    )
    have = tmp_path / "have.toml"
    have.write_text('llm = "llama-3.1-70b"\n[[instance]]\ngpu = "a100"\ncount = 2\n')
    run = hexopt(*QUICK, "--workload", workload, "--have", have, "--catalog", few, "--json")
    document = json.loads(run.out)
    there = [row for row in document["fleet"] if row["there"]]
    assert [(row["gpu"], row["count"], row["price"]) for row in there] == [("a100", 2, 0.0)]
    assert [w["name"] for w in document["workloads"]] == ["text-to-sql", "map-reduce"]


def test_the_most_attainment_for_a_budget(hexopt: Any, few: Path) -> None:
    run = hexopt(*SQL, "--catalog", few, "--budget", "12", "--maximize", "attainment", "--json")
    document = json.loads(run.out)
    assert document["cost_per_hour"] <= 12.0
    assert 0.0 < document["attainment"] < 0.95


@pytest.mark.parametrize("backend", ["highs", "cbc"])
def test_a_melange_configuration(hexopt: Any, tmp_path: Path, backend: str) -> None:
    file = tmp_path / "melange.json"
    file.write_text(
        json.dumps(
            {
                "gpu_info": {
                    "A10G": {"cost": 1.0, "tputs": [[2.0, 1.0], [1.0, 0.5]]},
                    "A100": {"cost": 3.7, "tputs": [[10.0, 8.0], [8.0, 6.0]]},
                },
                "workload_distribution": [[0.25, 0.25], [0.25, 0.25]],
                "total_request_rate": 15.0,
                "slice_factor": 4,
            }
        )
    )
    document = json.loads(hexopt("plan", "--melange", file, "--backend", backend, "--json").out)
    assert document["fleet"] == {"A100": 2} and document["gap"] == pytest.approx(0.0, abs=1e-6)
    assert document["attainment"] is None
    assert "by throughput alone" in hexopt("plan", "--melange", file).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--slo", "soon"), "--slo is 'soon', expected a time such as 20ms, 60s or 2min"),
        (("--rate", "many"), "--rate is 'many', expected workflows in a time"),
        (("--attainment", "120%"), "--attainment is '120%', expected a share such as 0.99 or 99%"),
        (("--max-gpus", "h100"), "--max-gpus is 'h100', expected GPU=N"),
        (("--max-gpus", "tpu=4"), "--max-gpus: unknown GPU 'tpu', expected one of"),
        (("--llm", "gpt-9"), "no latency model of LLM 'gpt-9'"),
        (("--sweep", "rate=3"), "--sweep is 'rate=3', expected rate=FROM:TO"),
        (("--growth", "1,x"), "--growth is '1,x', expected factors"),
        (("--day", "trace"), "the trace spans"),
        (("--maximize", "attainment"), "depends on --budget, which is missing"),
        (("--slo", "100ms"), "could end in time even alone on the fastest instance"),
        (("--catalog", "nowhere.toml"), "nowhere.toml: cannot be read"),
        (("--workload", "w.toml"), "--trace or --workload: give one of the two"),
        (("--policy", "magic"), "policy 'magic' is unknown"),
        (("--out", "/nowhere/fleet.toml"), "--out /nowhere/fleet.toml: there is no folder /nowhere"),
        (("--budget", "0.1", "--max-gpus", "a100=0"), "the budget binds"),
    ],
)
def test_bad_input_is_refused_in_a_line(hexopt: Any, few: Path, arguments: tuple[str, ...], message: str) -> None:
    run = hexopt(*SQL, "--catalog", few, *arguments, code=2)
    assert message in run.err
    assert run.err.startswith("hexopt") and len(run.err.strip().splitlines()) == 1


def test_a_negative_price_is_refused(hexopt: Any, tmp_path: Path) -> None:
    file = tmp_path / "gpus.toml"
    file.write_text('[[gpu]]\nname = "h100"\nprice = -1.0\n')
    assert "gpu[0].price: Input should be greater than or equal to 0" in hexopt(*SQL, "--catalog", file, code=2).err


def test_the_written_cluster_says_everything(hexopt: Any, few: Path, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.toml"
    hexopt(*SQL, "--catalog", few, "--out", fleet)
    rows = tomllib.loads(fleet.read_text())["instance"]
    assert all({"gpu", "llm", "tp", "pp", "max_num_seqs", "kv_tokens", "price"} <= set(row) for row in rows)
