import math
from dataclasses import replace

import numpy as np
import pytest
from research_cases import TUNED, shared_for, small
from small_run import make_run

from hexopt.parallel import Runner
from hexopt.policies.policy import EarliestDeadline, HexGenFlow
from hexopt.research import DefinitionError
from hexopt.research.analysis import Analysis
from hexopt.research.contestants import contestants
from hexopt.research.grid import Job, cells_of, drawn, job_count, run_grid, run_job
from hexopt.research.measuring import busy_share, measured
from hexopt.research.results import TUNING, write_results
from hexopt.research.sustained import sustained_rates
from hexopt.simulation.metrics import summarise

CPU = ("engine_cpu_s", "scheduler_us_per_call")


@pytest.fixture(scope="module")
def tuned():
    definition = small(tuned=TUNED, slo_factors=[2.0, 3.0])
    shared = shared_for(definition)
    return definition, shared, run_grid(definition, shared, contestants(definition))


def test_the_grid_is_full(tuned):
    definition, _, results = tuned
    assert len(results.cells) == 2 * 2
    assert results.policies == ["round-robin", "edf", "hexgen-flow (alpha tuned)"]
    assert len(results.reported) == 4 * 3 * 2 == len(results.workflows)
    assert len(results.rows) - len(results.reported) == 4 * 2 * 2
    assert len(results.rows) == job_count(definition, contestants(definition), 1)
    for row, columns in zip(results.reported, results.workflows, strict=True):
        assert row["workflows"] == 20 == columns["latency_s"].size
        assert row["warm_up"] == math.ceil(0.2 * row["rate"] * longest(tuned)) > 0


def longest(tuned):
    return tuned[1].settings[0].longest_deadline


def test_random_numbers_are_common(tuned):
    """Policies and deadlines of a rate and seed saw the same workflows at the same times; other seeds did not."""
    _, _, results = tuned
    seen = {}
    for row, columns in zip(results.reported, results.workflows, strict=True):
        draw = columns["template"].tobytes() + columns["arrival_s"].tobytes() + columns["standalone_s"].tobytes()
        seen.setdefault((row["rate"], row["seed"]), set()).add(draw)
    assert len(seen) == 4 and all(len(draws) == 1 for draws in seen.values())
    assert len(set.union(*seen.values())) == 4


def test_the_parameter_is_the_best_on_other_seeds(tuned):
    _, _, results = tuned
    tuning = [row for row in results.rows if row["phase"] == TUNING]
    assert {row["seed"] for row in tuning}.isdisjoint(row["seed"] for row in results.reported)
    for cell in results.cells:
        of_cell = [r for r in tuning if r["rate"] == cell.rate and r["deadline"] == cell.deadline]
        p95 = {ran: np.mean([r["p95_s"] for r in of_cell if r["ran"] == ran]) for ran in {r["ran"] for r in of_cell}}
        assert len(p95) == 2
        assert {r["ran"] for r in results.of(cell, "hexgen-flow (alpha tuned)")} == {min(p95, key=p95.get)}


def test_parallel_results_are_the_same(tuned):
    definition, shared, results = tuned
    with Runner(2) as runner:
        again = run_grid(definition, shared, contestants(definition), runner.map)
    assert [{k: v for k, v in r.items() if k not in CPU} for r in again.rows] == [
        {k: v for k, v in r.items() if k not in CPU} for r in results.rows
    ]
    for a, b in zip(again.workflows, results.workflows, strict=True):
        assert all(np.array_equal(a[k], b[k]) for k in a)


def test_it_continues_where_it_was_broken_off(tmp_path):
    definition = small(seeds=3)
    shared = shared_for(definition)
    who = contestants(definition)
    total = job_count(definition, who, 1)
    first: list[int] = []

    def stop_half_way(done, of):
        first.append(done)
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Runner(1, store=tmp_path, progress=stop_half_way) as runner:
        run_grid(definition, shared, who, runner.map)
    kept = list(tmp_path.rglob("*.pickle"))
    assert len(kept) == total // 2
    before = {path: path.stat().st_mtime_ns for path in kept}
    with Runner(1, store=tmp_path) as runner:
        results = run_grid(definition, shared_for(definition), who, runner.map)
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert len(list(tmp_path.rglob("*.pickle"))) == total
    fresh = run_grid(definition, shared, who)
    assert [r["p95_s"] for r in results.rows] == [r["p95_s"] for r in fresh.rows]


def test_loads_are_shares_of_the_capacity():
    definition = small(rates=[], loads=[0.5, 1.0], seeds=1)
    shared = shared_for(definition)
    results = run_grid(definition, shared, contestants(definition))
    capacity = shared.settings[0].experiments[0].capacity()
    assert results.capacities == [capacity]
    assert [cell.rate for cell in results.cells] == [0.5 * capacity, capacity]


def test_sustained_rates_are_searched_for_every_policy_and_seed(tmp_path):
    definition = small(tuned=TUNED, sustained={"workflows": 30, "share": 0.9}, tuning_seeds=[7], rates=[0.1])
    shared = shared_for(definition)
    who = contestants(definition)
    results = run_grid(definition, shared, who)
    results.sustained += sustained_rates(definition, shared, who)
    (found,) = results.sustained
    assert job_count(definition, who, 1) == len(results.rows) + 3 * 2 + 2
    experiment = shared.settings[0].experiments[0]
    searched = [experiment.capacity(30, seed, EarliestDeadline(), 0.9) for seed in (0, 1)]
    assert found.rates["edf"].tolist() == searched
    by_alpha = {a: experiment.capacity(30, 7, HexGenFlow(a), 0.9) for a in TUNED[0]["values"]}
    best = max(by_alpha, key=by_alpha.get)
    assert found.ran["hexgen-flow (alpha tuned)"] == f"hexgen-flow:alpha={best:g}"
    assert "round-robin" in found.rates and len(found.rates) == 3
    write_results(results, tmp_path)
    rows = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "sustained.parquet").to_pylist()
    assert [r["rate"] for r in rows if r["policy"] == "edf"] == searched
    judged = Analysis(definition, results, "round-robin").sustained[0][1]
    assert {j.policy: j.value.mean for j in judged} == {p: rates.mean() for p, rates in found.rates.items()}


def test_refuses_loads_without_a_capacity_and_endless_runs():
    hopeless = small(rates=[], loads=[0.5], slo_factors=[0.01])
    with pytest.raises(DefinitionError, match="loads: made on hetero-1: too few workflows"):
        run_grid(hopeless, shared_for(hopeless), contestants(hopeless))
    endless = small(rates=[1e5])
    with pytest.raises(DefinitionError, match="warm_up and drain"):
        cells_of(endless, shared_for(endless), [math.nan])


def test_only_the_workflows_in_the_middle_are_measured():
    definition = small()
    shared = shared_for(definition)
    job = Job(0, 0, 0.2, "edf", 7, before=5, workflows=20, after=4)
    outcome = run_job(shared, job)
    picks, arrivals = drawn(shared, job)
    experiment = shared.settings[0].experiments[0]
    run = experiment.run(EarliestDeadline(), picks, arrivals)
    latency = (run.workflow["finish"] - arrivals)[5:25]
    allowed = experiment.deadline[picks][5:25]
    assert np.array_equal(outcome.workflows["latency_s"], latency)
    assert outcome.row["attainment"] == (latency <= allowed).mean()
    assert outcome.row["p95_s"] == pytest.approx(np.quantile(latency, 0.95))
    assert outcome.row["req99"] is None
    assert outcome.row["calls"] == experiment.workload.stages[picks[5:25]].sum()
    inside = (run.workflow["finish"] >= arrivals[5]) & (run.workflow["finish"] < arrivals[25])
    assert outcome.row["throughput"] == pytest.approx(inside.sum() / (arrivals[25] - arrivals[5]))


def test_measuring_everything_is_summarising():
    definition = small()
    shared = shared_for(definition)
    experiment = shared.settings[0].experiments[0]
    picks, arrivals = experiment.sample(20, 0.2, 0)
    run = experiment.run(EarliestDeadline(), picks, arrivals)
    standalone = experiment.standalone[picks]
    ours, whole = measured(run, standalone, 0, 20), summarise(run, standalone)
    # An instance is busy while a call of its has started and not ended.
    assert ours.utilisation == pytest.approx(whole.utilisation, rel=0.02)
    assert replace(ours, utilisation=0.0, throughput=0.0, goodput=0.0) == replace(
        whole, utilisation=0.0, throughput=0.0, goodput=0.0
    )


def test_busy_share_by_hand():
    run = make_run(
        [
            {"workflow": 0, "instance": 0, "ready": 0.0, "start": 1.0, "finish": 4.0},
            {"workflow": 0, "instance": 0, "ready": 0.0, "start": 2.0, "finish": 3.0},
            {"workflow": 0, "instance": 0, "ready": 0.0, "start": 3.5, "finish": 5.0},
            {"workflow": 0, "instance": 0, "ready": 0.0, "start": 7.0},
            {"workflow": 0, "instance": 1, "ready": 0.0},
        ],
        [{"arrival": 0.0, "deadline": 5.0, "stages": 5}],
        end=10.0,
    )
    assert busy_share(run, 0.0, 10.0) == pytest.approx((4.0 + 3.0) / 20.0)
    assert busy_share(run, 4.5, 8.0) == pytest.approx((0.5 + 1.0) / 7.0)


def test_parquet_holds_every_run_and_workflow(tuned, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    _, _, results = tuned
    write_results(results, tmp_path)
    runs, workflows = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("runs", "workflows"))
    assert runs.num_rows == len(results.rows)
    assert {"attainment", "req95", "preemptions", "scheduler_us_per_call", "seed", "phase"} <= set(runs.column_names)
    assert workflows.num_rows == 20 * len(results.reported)
    last = workflows.slice(workflows.num_rows - 20).to_pydict()
    assert last["latency_s"] == results.workflows[-1]["latency_s"].tolist()
    assert set(last["policy"]) == {results.reported[-1]["policy"]} and set(last["seed"]) == {1}
