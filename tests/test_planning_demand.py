"""Demands: rates, deadlines, and what arrives when."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planning_cases import demand, workflows

from hexopt.planning.demand import Demand, DemandError, Service, single
from hexopt.planning.workload_file import load_demand
from hexopt.traces import read_trace, sample_path, with_arrivals


def two() -> Demand:
    sql, chat = workflows(20), workflows(10, family="chat")
    return Demand((Service("sql", sql, 0.5, 60.0), Service("chat", chat, 1.5, 10.0)))


def test_every_service_arrives_at_its_rate() -> None:
    both = two()
    picks, times = both.sample(4000.0, seed=3)
    assert (np.diff(times) >= 0).all()
    service = both.service[picks]
    for s, rate in ((0, 0.5), (1, 1.5)):
        assert (service == s).sum() == round(rate * 4000.0)
        assert times[service == s].max() == pytest.approx(4000.0, rel=0.15)
    assert both.rate == 2.0
    assert both.slowest == 60.0


def test_every_workflow_of_a_service_is_used_as_often() -> None:
    both = two()
    picks, _ = both.sample(400.0, seed=0)
    counts = np.bincount(picks, minlength=30)
    assert (counts[:20] == 10).all()
    assert (counts[20:] == 60).all()


def test_the_same_seed_draws_the_same_and_another_one_does_not() -> None:
    both = two()
    first, again, other = (both.sample(100.0, seed) for seed in (1, 1, 2))
    assert (first[0] == again[0]).all() and (first[1] == again[1]).all()
    assert not np.array_equal(first[1], other[1])


def test_another_rate_keeps_what_was_compiled() -> None:
    base = demand(0.3)
    faster = base.at(3.0)
    assert faster.rate == pytest.approx(0.9)
    assert faster.workload is base.workload
    assert faster.template_rate.sum() == pytest.approx(0.9)


@pytest.mark.parametrize("arrivals", ["poisson", "gamma", "trace"])
def test_arrival_processes_keep_the_rate(arrivals: str) -> None:
    times = np.cumsum(np.random.default_rng(0).exponential(7.0, 40))
    flows = tuple(with_arrivals(workflows(40), times.tolist()))
    process = Demand((Service("sql", flows, 2.0, 60.0),), arrivals)  # type: ignore[arg-type]
    picks, when = process.sample(500.0, 5)
    assert len(when) == 1000
    assert when[-1] == pytest.approx(500.0, rel=0.25)
    if arrivals == "trace":
        # The trace's own order and gaps, from some place on.
        start = picks[0]
        assert (picks == (start + np.arange(1000)) % 40).all()
        gaps, own = np.diff(when)[: 39 - start], np.diff(times)[start:]
        assert gaps == pytest.approx(own / (np.diff(times).mean() * 2.0))


def test_a_rate_is_taken_from_the_trace() -> None:
    flows = with_arrivals(workflows(11), np.arange(11) * 2.0)
    assert single(flows, None, 60.0).rate == pytest.approx(0.5)
    with pytest.raises(DemandError, match="no arrival times, give --rate"):
        _ = single(workflows(5), None, 60.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0.0}, "rate is 0.0, expected workflows a second"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"slo": -1.0}, "slo is -1.0, expected seconds"),
        ({"slo": None}, "has no deadlines of its own, give --slo"),
        ({"workflows": ()}, "the trace has no workflows"),
    ],
)
def test_a_service_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(DemandError, match=message):
        replace(Service("sql", workflows(3), 1.0, 60.0), **change)  # type: ignore[arg-type]


def test_a_workload_file(tmp_path: Path) -> None:
    file = tmp_path / "workload.toml"
    file.write_text(
        '[[workload]]\ntrace = "text-to-sql"\nrate = 0.4\nslo = 60.0\n'
        '[[workload]]\nname = "talk"\nfamily = "chat"\nworkflows = 12\nrate = 2.0\n'
    )
    found = load_demand(file, lambda name: read_trace(sample_path(name)), slo=30.0)
    assert [(s.name, s.rate, s.slo) for s in found.services] == [("text-to-sql", 0.4, 60.0), ("talk", 2.0, 30.0)]
    assert len(found.services[1].workflows) == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "workload: Field required"),
        ("[[workload]]\nrate = 1.0\n", r"workload\[0\]: expected either a trace or a family"),
        ('[[workload]]\nfamily = "poems"\nrate = 1.0\nslo = 1.0\n', r"workload\[0\].family: 'poems' is unknown"),
        ('[[workload]]\nfamily = "chat"\nrate = -1.0\n', r"workload\[0\].rate: Input should be greater than 0"),
        ('[[workload]]\nfamily = "chat"\nspeed = 1.0\n', r"workload\[0\].speed: Extra inputs"),
        ("[[workload", "is not a TOML file"),
    ],
)
def test_a_workload_file_that_cannot_be_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "workload.toml"
    file.write_text(text)
    with pytest.raises(DemandError, match=message):
        load_demand(file, lambda name: read_trace(sample_path(name)))
