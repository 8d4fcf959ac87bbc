"""Histograms against NumPy, and what a request adds to the counters."""

from __future__ import annotations

import numpy as np
import pytest
from random_workload import small_cluster

from hexopt.emulation.measures import HISTOGRAMS, Ended, Histogram, Measures
from hexopt.simulation.simulator import instance_table

BOUNDS = (0.1, 0.5, 2.0)


def values(lines: list[str]) -> dict[str, float]:
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_buckets_are_cumulative_and_their_bounds_inclusive():
    rng = np.random.default_rng(0)
    seen = np.concatenate((rng.exponential(1.0, 200), BOUNDS))
    histogram = Histogram(BOUNDS)
    for value in seen:
        histogram.observe(float(value))
    histogram.observe(1.0, times=7)
    seen = np.append(seen, [1.0] * 7)
    got = values(list(histogram.lines("h", 'a="b"')))
    for bound in BOUNDS:
        assert got[f'h_bucket{{a="b",le="{bound}"}}'] == (seen <= bound).sum()
    assert got['h_bucket{a="b",le="+Inf"}'] == got['h_count{a="b"}'] == len(seen)
    assert got['h_sum{a="b"}'] == pytest.approx(seen.sum())


def test_times_are_those_on_the_wall():
    measures = Measures(speed_up=10.0)
    measures.ended(Ended(100, 11, 32, 1, arrival=5.0, start=6.0, first_token=8.0, finish=28.0, reason="stop"))
    cluster = small_cluster()
    state = instance_table(cluster, True)[0]
    live = np.array([7, 3, 9, 2])
    got = values(measures.text("m", cluster.instances[0], state, live).splitlines())
    labels = 'engine="0",model_name="m"'
    for name, wanted in {
        "time_to_first_token_seconds": 0.3,
        "request_queue_time_seconds": 0.1,
        "request_prefill_time_seconds": 0.2,
        "request_decode_time_seconds": 2.0,
        "e2e_request_latency_seconds": 2.3,
        "request_time_per_output_token_seconds": 0.2,
        "inter_token_latency_seconds": 2.0,
        "request_num_preemptions": 1.0,
    }.items():
        assert got[f"vllm:{name}_sum{{{labels}}}"] == pytest.approx(wanted), name
        assert got[f"vllm:{name}_count{{{labels}}}"] == (10 if name == "inter_token_latency_seconds" else 1)
    assert set(HISTOGRAMS) <= {name.split("{")[0].removeprefix("vllm:").removesuffix("_sum") for name in got}
    totals = ("prompt_tokens", "generation_tokens", "prefix_cache_queries", "prefix_cache_hits")
    assert [got[f"vllm:{name}_total{{{labels}}}"] for name in totals] == [107, 14, 109, 34]
    assert got[f'vllm:request_success_total{{{labels},finished_reason="stop"}}'] == 1
