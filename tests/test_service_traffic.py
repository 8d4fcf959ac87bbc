"""From the store back to workflows: what was served is what can be simulated again."""

import random
from functools import partial
from pathlib import Path

import pytest
from command_line import call
from hypothesis import given, settings
from hypothesis import strategies as st
from service_records import postgres, stage

from hexopt.cluster import load_cluster
from hexopt.policies.registry import make_policy
from hexopt.service.database import SCHEMA, Database
from hexopt.service.store import Store, StoreError
from hexopt.service.traffic import Traffic
from hexopt.simulation.experiment import Experiment
from hexopt.traces import Prefix, read_trace
from hexopt.traces.samples import sample_path

MIDNIGHT = 1_767_225_600.0  # 2026-01-01T00:00 UTC


@pytest.fixture
def hexopt(capsys, monkeypatch):
    return partial(call, capsys, monkeypatch)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/hexopt.db"


def keep(url, records):
    store = Store(url)
    for record in records:
        store.put(record)
    store.close(60)
    assert store.stats.written == len(records)


def exported(url, records, **selection):
    keep(url, records)
    return list(Traffic(Database(url), **selection).workflows())


def simulated(workflows, rate=0.4, count=40):
    """Records of a simulated run as a gateway would write them, and the workflows behind them, by id."""
    experiment = Experiment.of(workflows, load_cluster("hetero-1"))
    picks, arrivals = experiment.sample(count, rate, 3)
    run = experiment.run(make_policy("greedy-urgency"), picks, arrivals)
    records, origin = [], {}
    for w, about in enumerate(run.workflow):
        workflow = workflows[picks[w]]
        origin[f"run-{w}"] = (workflow, float(about["arrival"]))
        first = int(about["first_stage"])
        for done, row in zip(workflow.stages, run.stage[first : first + int(about["stages"])], strict=True):
            records.append(
                stage(
                    workflow=f"run-{w}", stage=done.id, parents=done.parents, kind=done.kind, tenant=f"t{w % 2}",
                    weight=1.0 + w % 3, arrival=MIDNIGHT + about["arrival"], ready=MIDNIGHT + row["ready"],
                    dispatched=MIDNIGHT + row["ready"], first_token=MIDNIGHT + row["first_token"],
                    finish=MIDNIGHT + row["finish"], deadline=MIDNIGHT + about["deadline"],
                    prompt_tokens=int(row["prompt"]), cached_tokens=int(row["cached"]),
                    output_tokens=int(row["output"]), prefix=None,
                )
            )  # fmt: skip
    return records, origin


def test_a_simulated_day_comes_back_as_it_was(hexopt, url, tmp_path):
    records, origin = simulated(read_trace(sample_path("text-to-sql")))
    random.Random(0).shuffle(records)  # stages end in any order
    keep(url, records)
    out = tmp_path / "trace.jsonl.gz"
    result = hexopt("traces", "export", "--store", url, "--out", out)
    assert (result.code, result.out) == (0, "")
    assert f"Wrote {len(origin)} workflows, {len(records)} calls to {out}" in result.err
    found = read_trace(out)
    assert {workflow.id for workflow in found} == set(origin)
    start = min(arrival for _, arrival in origin.values())
    deadline = {record.workflow: record.deadline - record.arrival for record in records}
    for workflow in found:
        wanted, arrival = origin[workflow.id]
        number = int(workflow.id.removeprefix("run-"))
        assert workflow.arrival == pytest.approx(arrival - start, abs=1e-5)
        assert (workflow.tenant, workflow.weight) == (f"t{number % 2}", 1.0 + number % 3)
        assert workflow.deadline == pytest.approx(deadline[workflow.id], abs=1e-5)
        stages = {found_stage.id: found_stage for found_stage in workflow.stages}
        assert len(stages) == len(wanted.stages)
        for one in wanted.stages:
            same = stages[one.id]
            assert (same.kind, same.prompt_tokens, same.output_tokens) == (
                one.kind,
                one.prompt_tokens,
                one.output_tokens,
            )
            assert same.parents == one.parents
            assert same.tool_delay == pytest.approx(one.tool_delay, abs=1e-5)


def test_a_window_and_a_tenant_select_workflows_by_arrival(hexopt, url, tmp_path):
    records = [
        stage(k, arrival=MIDNIGHT + 3600.0 * k, ready=MIDNIGHT + 3600.0 * k, finish=MIDNIGHT + 9e4, deadline=None,
              parents=(), tenant="ab"[k % 2])
        for k in range(-2, 8)
    ]  # fmt: skip
    keep(url, records)
    export = ("traces", "export", "--store", url, "--out")
    out = tmp_path / "trace.jsonl"
    for flags, expected in (
        (("--since", "2026-01-01"), range(8)),
        (("--since", "2026-01-01T02:00", "--until", "2026-01-01T05:00"), (2, 3, 4)),
        (("--since", "2026-01-01T02:00+02:00", "--until", "2026-01-01T00:00:01Z"), (0,)),
        (("--until", "2025-12-31T23:30"), (-2, -1)),
        (("--tenant", "a"), range(-2, 8, 2)),
    ):
        assert hexopt(*export, out, *flags).code == 0
        found = read_trace(out)
        assert [workflow.id for workflow in found] == [f"w{k}" for k in expected]
        assert found[0].arrival == 0.0
        assert found[-1].arrival == 3600.0 * (expected[-1] - expected[0])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--since", "yesterday"), "hexopt: --since is 'yesterday', expected a time like 2026-01-01T00:00"),
        (("--since", "1990-01-01"), "holds no finished workflow that arrived in this time"),
        (("--store", "sqlite:////no.db"), "store sqlite:////no.db: no such file"),
        (("--store", "x"), "store 'x': not a URL"),
        (("--store", "{empty}"), "holds no table hexopt_schema, expected a database of HexOpt's"),
        (("--out", "/no/such/x"), "--out /no/such/x: there is no folder /no/such"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(hexopt, url, tmp_path, flags, message):
    keep(url, [stage()])
    (tmp_path / "empty.db").touch()
    flags = [flag.format(empty=f"sqlite:///{tmp_path}/empty.db") for flag in flags]
    defaults = ("--store", url, "--out", tmp_path / "trace.jsonl")
    result = hexopt("traces", "export", *defaults, *flags)
    assert result.code == 2 and message in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.glob("*.jsonl*")) == []
    assert (tmp_path / "empty.db").stat().st_size == 0
    assert not Path("/no.db").exists()


def test_a_newer_store_is_not_read(url, tmp_path):
    import sqlite3

    keep(url, [stage()])
    connection = sqlite3.connect(tmp_path / "hexopt.db")
    connection.execute("UPDATE hexopt_schema SET version = version + 1")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match=f"its schema is version {SCHEMA + 1}"):
        list(Traffic(Database(url)).workflows())


def row(name, ready, finish, parents=(), **fields):
    return stage(
        workflow="w", stage=name, arrival=0.0, ready=ready, finish=finish, parents=parents, deadline=None, prefix=None,
        **fields,
    )  # fmt: skip


def shape(workflow):
    return {s.id: (s.parents, s.tool_delay) for s in workflow.stages}


def test_only_stages_that_ended_well_stay_and_their_children_hang_on(url):
    records = [
        row("a", 0, 1), row("b", 2, 3, ("a",), status="error"), row("c", 5, 6, ("b",)),
        row("d", 7, 8, ("c",), output_tokens=0), row("e", 9, 10, ("d", "a")), row("f", 11, 12, ("nobody",)),
    ]  # fmt: skip
    traffic = Traffic(Database(url))
    keep(url, records)
    (workflow,) = traffic.workflows()
    assert shape(workflow) == {
        "a": ((), 0.0),
        "c": (("a",), 4.0),
        "e": (("c", "a"), 3.0),
        "f": (("e",), 1.0),
    }
    assert traffic.left_out == 2


def test_a_stage_tried_again_counts_once_and_two_of_one_name_stay_two(url):
    records = [
        row("a", 0, 1, status="error"), row("a", 2, 3), row("b", 4, 5, ("a",)), row("b", 4, 6, ("a",)),
        row("b#2", 4, 7, ("a",)),
    ]  # fmt: skip
    (workflow,) = exported(url, records)
    assert shape(workflow) == {
        "a": ((), 2.0), "b": (("a",), 1.0), "b#2": (("a",), 1.0), "b#2#2": (("a",), 1.0),
    }  # fmt: skip


def test_workflows_without_a_good_stage_vanish_and_ids_used_again_stay_apart(url):
    records = [
        stage(0, workflow="bad", status="aborted"),
        stage(0, workflow="w", arrival=50.0, parents=()),
        stage(0, workflow="w", arrival=90.0, parents=()),
    ]
    found = exported(url, records)
    assert [(workflow.id, workflow.arrival) for workflow in found] == [("w", 0.0), ("w#2", 40.0)]


def test_clocks_that_ran_back_and_parents_that_go_round_give_no_cycle_and_no_negative_delay(url):
    records = [row("a", 1, 5, ("b",)), row("b", 2, 3, ("a",)), row("c", 2.5, 9, ("a", "b", "c"))]
    (workflow,) = exported(url, records)
    assert shape(workflow) == {"a": ((), 1.0), "b": (("a",), 0.0), "c": (("a", "b"), 0.0)}


def test_hints_become_prefixes_as_long_as_caches_knew_them(url):
    def hinted(k, workflow, hint, prompt, cached):
        return stage(
            k, workflow=workflow, parents=(), prefix=hint, prompt_tokens=prompt, cached_tokens=cached, arrival=0.0
        )

    records = [
        hinted(0, "v", "template", 500, None), hinted(1, "v", "template", 700, 320),
        hinted(2, "w", "template", 100, 96),
        hinted(3, "w", "history", 1000, 0), hinted(4, "w", "history", 1500, 992), hinted(5, "w", "history", 2000, 1488),
        hinted(6, "w", "cold", 80, 0), hinted(7, "w", None, 80, 64),
    ]  # fmt: skip
    stages = {s.id: s for workflow in exported(url, records) for s in workflow.stages}
    assert [stages[f"s{k}"].prefixes for k in range(8)] == [
        (Prefix("template", 320),),
        (Prefix("template", 320),),
        (Prefix("template", 100),),
        (Prefix("history", 1000, local=True),),
        (Prefix("history", 1488, local=True),),
        (Prefix("history", 1488, local=True),),
        (),
        (),
    ]


def test_postgresql_gives_the_same_workflows(url):
    records = [
        stage(k, workflow=f"w{k % 7}", arrival=float(k % 7), ready=k + 1.0, finish=k + 1.0 + k % 5, parents=(),
              status=("ok", "error")[k % 11 == 0], prefix=("a", "b", None)[k % 3], cached_tokens=k % 50 or None)
        for k in range(2500)
    ]  # fmt: skip
    found = exported(url, records)
    assert sum(len(workflow.stages) for workflow in found) > 2000
    with postgres() as server:
        assert exported(server.url, records) == found


times = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=9)


@settings(deadline=None, max_examples=60)
@given(spans=times, known=st.data())
def test_undeclared_parents_are_the_last_ones_that_had_ended(tmp_path_factory, spans, known):
    """Against the definition: all that had ended, less those that are ancestors of others of them."""
    spans.sort()
    declared = [
        known.draw(st.lists(st.integers(0, k - 1), max_size=2, unique=True)) if k and known.draw(st.booleans()) else []
        for k in range(len(spans))
    ]
    records = [
        row(f"s{k}", ready, ready + seconds, tuple(f"s{p}" for p in declared[k]))
        for k, (ready, seconds) in enumerate(spans)
    ]
    (workflow,) = exported(f"sqlite:///{tmp_path_factory.mktemp('t')}/x.db", records)
    found = {int(s.id[1:]): {int(p[1:]) for p in s.parents} for s in workflow.stages}
    ancestors: dict[int, set[int]] = {}
    for k, (ready, _) in enumerate(spans):
        ended = {p for p in range(k) if sum(spans[p]) <= ready}
        expected = set(declared[k]) or {p for p in ended if not any(p in ancestors[q] for q in ended)}
        assert found[k] == expected
        ancestors[k] = expected.union(*(ancestors[p] for p in expected))
    for one in workflow.stages:
        began = max((sum(spans[int(p[1:])]) for p in one.parents), default=0)
        assert one.tool_delay == max(0, spans[int(one.id[1:])][0] - began)


def test_the_command_names_the_extra_that_is_missing(hexopt, url, monkeypatch, tmp_path):
    import sys

    for name in list(sys.modules):
        if name.startswith("hexopt.service."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    result = hexopt("traces", "export", "--store", url, "--out", tmp_path / "x.jsonl")
    assert (result.code, result.err) == (2, "hexopt: --store needs sqlalchemy: pip install 'hexopt[service]'\n")


def test_parents_are_kept_whatever_is_in_their_names(url):
    names = ('a"b', "ü,", "c d")
    records = [row(name, k, k + 0.5) for k, name in enumerate(names)] + [row("end", 9, 10, names)]
    (workflow,) = exported(url, records)
    assert workflow.stages[-1].parents == names
