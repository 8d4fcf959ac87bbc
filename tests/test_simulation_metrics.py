"""The figures of a run against their definitions, written out one workflow at a time."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import make_run

from hexopt.simulation.metrics import attainment_curve, latencies, scale_at, summarise

SECONDS = st.floats(0.01, 50.0)
WORKFLOW = st.fixed_dictionaries(
    {"arrival": st.floats(0.0, 9.0), "took": st.none() | SECONDS, "allowed": SECONDS, "alone": SECONDS}
)


def run_of(workflows, end: float = 60.0):
    """A run of one call a workflow; ``took`` None: it had not ended."""
    rows = [
        {
            "arrival": w["arrival"],
            "deadline": w["arrival"] + w["allowed"],
            "finish": math.nan if w["took"] is None else w["arrival"] + w["took"],
            "stages": 1,
        }
        for w in workflows
    ]
    return make_run([{"workflow": k} for k in range(len(rows))], rows, end=end), np.array(
        [w["alone"] for w in workflows]
    )


@given(st.lists(WORKFLOW, min_size=1, max_size=30))
def test_latency_and_attainment_are_counted_by_workflow(workflows):
    run, alone = run_of(workflows)
    summary = summarise(run, alone)
    span = 60.0 - min(w["arrival"] for w in workflows)
    # Through the same sums as the run's, so that a workflow exactly in time stays so.
    took = [float(row["finish"] - row["arrival"]) for row in run.workflow]
    allowed = [float(row["deadline"] - row["arrival"]) for row in run.workflow]
    done = [t for t in took if not math.isnan(t)]
    in_time = sum(t <= a for t, a in zip(took, allowed, strict=True))
    assert (summary.workflows, summary.calls, summary.finished) == (len(workflows), len(workflows), len(done))
    assert summary.attainment == pytest.approx(in_time / len(workflows))
    assert summary.throughput == pytest.approx(len(done) / span)
    assert summary.goodput == pytest.approx(in_time / span)
    if not done:
        assert math.isnan(summary.mean_s) and math.isnan(summary.p99_s) and math.isnan(summary.mean_tardiness_s)
        return
    assert summary.mean_s == pytest.approx(sum(done) / len(done))
    for q, value in ((0.5, summary.p50_s), (0.95, summary.p95_s), (0.99, summary.p99_s)):
        place = q * (len(done) - 1)
        low, high = sorted(done)[math.floor(place)], sorted(done)[math.ceil(place)]
        assert value == pytest.approx(low + (high - low) * (place - math.floor(place)))
    late = [max(t - a, 0.0) for t, a in zip(took, allowed, strict=True) if not math.isnan(t)]
    assert summary.mean_tardiness_s == pytest.approx(sum(late) / len(late))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(1, 100))
def test_slo_scale_is_the_smallest_multiple_within_which_the_share_ends(ratios, percent):
    wanted = Fraction(percent, 100)
    within = [r for r in sorted(ratios) if Fraction(sum(x <= r for x in ratios), len(ratios)) >= wanted]
    # A binary share may lie just above its decimal: then one more workflow is asked for, never one fewer.
    assert scale_at(np.array(ratios, dtype=float), percent / 100) >= within[0]
    if percent in (50, 95, 99):
        assert scale_at(np.array(ratios, dtype=float), percent / 100) == within[0]


@given(st.lists(WORKFLOW, min_size=1, max_size=30))
def test_an_unfinished_workflow_is_beyond_every_scale(workflows):
    run, alone = run_of(workflows)
    summary = summarise(run, alone)
    unfinished = sum(w["took"] is None for w in workflows)
    assert math.isinf(summary.req99) == (unfinished > len(workflows) * Fraction(1, 100))
    assert math.isinf(summary.req95) == (unfinished > len(workflows) * Fraction(5, 100))
    assert np.isinf(latencies(run)).sum() == unfinished
    assert summary.req95 <= summary.req99


@given(st.lists(WORKFLOW, min_size=1, max_size=30))
def test_a_row_is_json_with_null_for_what_is_no_number(workflows):
    summary = summarise(*run_of(workflows))
    row = json.loads(json.dumps(summary.row(), allow_nan=False))
    for key, value in row.items():
        own = getattr(summary, key)
        assert value == own or (value is None and not math.isfinite(own))


@given(st.lists(WORKFLOW, min_size=1, max_size=30), st.lists(st.floats(0.0, 60.0), max_size=10))
def test_attainment_curve_counts_those_within_each_deadline(workflows, deadlines):
    run, _ = run_of(workflows)
    took = latencies(run)
    asked = np.array([*deadlines, *took[np.isfinite(took)]])  # the workflows' own latencies too: within means at most
    curve = attainment_curve(run, asked)
    assert curve.tolist() == [sum(t <= d for t in took) / len(took) for d in asked]


def test_use_of_the_instances_is_over_the_whole_run():
    run, alone = run_of([{"arrival": 10.0, "took": 2.0, "allowed": 1.0, "alone": 1.0}], end=30.0)
    run.instance["busy_seconds"], run.instance["block_seconds"] = [5.0, 15.0], [100.0, 300.0]
    run.instance["blocks"], run.instance["preemptions"] = [50, 100], [1, 2]
    run.instance["cached_tokens"], run.instance["computed_tokens"] = [30, 0], [10, 60]
    summary = summarise(run, alone)
    assert summary.utilisation == pytest.approx((5 / 20 + 15 / 20) / 2)
    assert summary.kv_usage == pytest.approx((100 / (50 * 20) + 300 / (100 * 20)) / 2)
    assert summary.cache_hit_rate == pytest.approx(0.3) and summary.preemptions == 3
    assert summary.scheduler_us_per_call == pytest.approx(0.25e6)
