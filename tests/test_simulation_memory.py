"""Swap to host memory, admission rules and re-drawn priorities: against the step-by-step oracle, and in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bare_board import bare_board
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle_engine import OracleHost, OracleRandom, OracleRule, OracleStage
from test_simulation_engine import Case, assert_case_agrees, random_case, with_failures

from hexopt.cluster import parse_cluster
from hexopt.memory_rules import Admission, Swap
from hexopt.simulation.admission import future_peak, insert, observe, still_to_come
from hexopt.simulation.generator import draw
from hexopt.simulation.hostmemory import copy_seconds
from hexopt.simulation.mechanisms import remembered, switch_admission, switch_swap
from hexopt.simulation.simulator import instance_table

RULES = ("aggressive", "conservative", "past-future", "true")


def with_mechanisms(case: Case, rng: np.random.Generator) -> Case:
    """Some of the mechanisms on, on each of the instances."""
    configs = []
    for config in case.configs:
        host = OracleHost(
            blocks=int(config.blocks * rng.choice([0.3, 1.0, 10.0])),
            token_bytes=float(rng.choice([1e3, 1e5, 1e7])),
            parts=int(rng.choice([2, 64])),
            call_seconds=float(rng.choice([0.0, 1e-5, 1e-3])),
            bandwidth=1e10,
            group=bool(rng.random() < 0.5),
            overlap=bool(rng.random() < 0.5),
            reuse=bool(rng.random() < 0.5),
            keep=bool(rng.random() < 0.5),
        )
        rule = OracleRule(
            str(rng.choice(RULES)),
            share=float(rng.choice([0.5, 0.97, 1.0])),
            every=int(rng.choice([1, 3, 10])),
            max_prefill=int(rng.choice([1, 100, 32768])),
            max_new=int(rng.choice([10, 60])),
            window=int(rng.choice([2, 5, 1000])),
        )
        redraw = rng.random() < 0.4
        if redraw:
            # With recompute, calls that take turns for shorter than their prefill would never end.
            host = replace(host, blocks=1000 * config.blocks)
        configs.append(
            replace(
                config,
                host=host if redraw or rng.random() < 0.6 else None,
                admission=rule if rng.random() < 0.5 else None,
                scheduling="priority" if redraw else config.scheduling,
                redraw_every=int(rng.choice([3, 8, 25])) if redraw else 0,
                redraw_keep=float(rng.choice([0.0, 0.7])),
            )
        )
    return replace(case, configs=configs)


def agree(seed: int, fail: bool = False):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    case = with_mechanisms(random_case(rng), rng)
    sim = assert_case_agrees(with_failures(case, rng) if fail else case, seed)
    assert (sim.instance["host_used"] == 0).all() and (sim.instance["loading"] == 0).all()
    assert (sim.stage["on_host"] == 0).all() and (sim.instance["stall"] == 0.0).all()
    return sim


def test_agrees_with_the_oracle_on_four_hundred_workloads_with_mechanisms_on() -> None:
    swapped = looked = 0
    for seed in range(400):
        sim = agree(seed, fail=seed % 4 == 0)
        swapped += int(sim.instance["swapped_in"].sum() > 0)
        looked += int((sim.instance["admission"] > 0).any())
    assert swapped > 60, "too few workloads came back from host memory"
    assert looked > 60


def with_contexts(case: Case, rng: np.random.Generator) -> Case:
    """Every workflow at one instance, its calls on one content; host memory that keeps it, and brings it back fast."""
    first: dict[int, OracleStage] = {}
    stages = []
    for stage in case.stages:
        like = first.setdefault(stage.workflow, stage)
        leaf = like.path_leaf
        end = 0 if leaf < 0 else case.nodes[leaf].end_tokens
        prompt = max(stage.prompt, end - stage.output, 1)
        stages.append(replace(stage, instance=like.instance, path_leaf=leaf, prompt=prompt))
    host = OracleHost(blocks=0, token_bytes=1e3, call_seconds=0.0, keep=True, group=bool(rng.random() < 0.5))
    room = [int(config.blocks * rng.choice([0.5, 10.0])) for config in case.configs]
    configs = [replace(config, host=replace(host, blocks=b)) for config, b in zip(case.configs, room, strict=True)]
    return replace(case, stages=stages, configs=configs)


def test_agrees_with_the_oracle_on_four_hundred_workloads_whose_contexts_come_back() -> None:
    reloaded = 0
    for seed in range(400):
        rng = np.random.default_rng(1_000_000 + seed)
        case = with_contexts(random_case(rng), rng)
        sim = assert_case_agrees(with_failures(case, rng) if seed % 4 == 0 else case, seed)
        assert (sim.instance["host_used"] == 0).all() and (sim.stage["on_host"] == 0).all()
        # Without preemptions nothing else comes back.
        calm = sim.instance["preemptions"] == 0
        reloaded += int((sim.instance["swapped_in"][calm] > 0).any())
    assert reloaded > 25, "too few workloads reloaded a context"


@given(st.integers(10_000, 2**31))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_agrees_with_the_oracle_on_any_workload_with_mechanisms_on(seed: int) -> None:
    agree(seed, fail=seed % 4 == 0)


def instance_row(swap: Swap | None = None, admission: Admission | None = None, **limits):  # type: ignore[no-untyped-def]
    """The record of a Llama-3.1-8B on an A100."""
    row = {"gpu": "a100", "llm": "llama-3.1-8b", **limits}
    table = instance_table(parse_cluster({"instance": [row]}, "test"), True)
    switch_swap(table[0], swap)
    switch_admission(table[0], admission)
    return table


@pytest.mark.parametrize(
    ("granularity", "tokens", "milliseconds"),
    [("block", 1000, 40.32), ("group", 1000, 4.096), ("group", 400, 1.6384), ("block", 1, 0.64), ("group", 0, 0.0)],
)
def test_a_copy_costs_its_calls_or_its_bytes(granularity, tokens, milliseconds) -> None:  # type: ignore[no-untyped-def]
    row = instance_row(Swap(gb=60.0, granularity=granularity))[0]
    assert copy_seconds(row, tokens) * 1e3 == pytest.approx(milliseconds, rel=1e-12)
    assert row["host_blocks"] == 60e9 // (16 * 131072)


def test_a_gpu_copies_its_own_part_of_the_kv() -> None:
    rows = instance_row(Swap(gb=60.0), llm="llama-3.1-70b", gpu="l40s", tp=2, pp=2)
    assert rows["kv_bytes"][0] == 327680 / 4 and rows["copy_parts"][0] == 80


def sorted_lists(calls):  # type: ignore[no-untyped-def]
    held, to_come = np.zeros(len(calls), dtype=np.int32), np.zeros(len(calls), dtype=np.int32)
    for k, (a, b) in enumerate(calls):
        insert(held, to_come, k, a, b)
    return held, to_come


def test_the_forecast_of_the_worked_example() -> None:
    running = [(100, 50), (80, 20), (60, 10)]
    assert future_peak(*sorted_lists(running), 3) == 270
    peak = future_peak(*sorted_lists([*running, (40, 30)]), 4)
    assert peak == 320
    assert not peak < 0.95 * 330 and peak < 0.95 * 340


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 200)), min_size=1, max_size=12))
def test_the_forecast_is_the_peak_token_by_token(calls: list[tuple[int, int]]) -> None:
    most = max(sum(a + t for a, b in calls if b >= t) for t in range(201))
    assert future_peak(*sorted_lists(calls), len(calls)) == most


def test_lengths_are_sampled_given_what_was_generated() -> None:
    history = np.array([100, 200, 300, 400], dtype=np.int32)
    assert still_to_come(history, 4, 250, 4096, 0.5) == 100
    assert still_to_come(history, 4, 500, 4096, 0.5) == 1798
    assert still_to_come(history, 4, 5000, 4096, 0.5) == 0


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=9), st.integers(0, 60), st.integers(1, 60), st.floats(0, 0.999)
)
def test_a_sampled_length_is_an_interpolated_quantile(history, generated, longest, u) -> None:  # type: ignore[no-untyped-def]
    points = [generated, *sorted(h for h in history if h > generated)]
    points.append(max(longest, points[-1]))
    expected = np.interp(u * (len(points) - 1), np.arange(len(points)), points) - generated
    ordered = np.array(sorted(history), dtype=np.int32)
    assert abs(still_to_come(ordered, len(history), generated, longest, u) - expected) <= 0.5 + 1e-9


@given(st.lists(st.integers(1, 20), max_size=40), st.integers(2, 7))
@settings(max_examples=50, deadline=None)
def test_the_last_lengths_are_remembered_in_both_orders(outputs: list[int], window: int) -> None:
    sim = board(Admission(rule="past-future", window=window))
    for output in outputs:
        observe(sim, 0, output)
    last = [*[512] * (window // 2), *outputs][-window:]
    row = sim.instance[0]
    assert row["remembered"] == len(last)
    ring = sim.history[0, 0, : len(last)]
    assert np.roll(ring, -int(row["oldest"])).tolist() == last
    assert sim.history[0, 1, : len(last)].tolist() == sorted(last)


def test_random_numbers_are_splitmix64() -> None:
    sim, reference = board(None), OracleRandom(1)
    drawn = [draw(sim, 0) for _ in range(1000)]
    assert drawn == [reference.draw() for _ in range(1000)]
    assert 0.45 < np.mean(drawn) < 0.55
    # The published test vector of the generator, from state 0 (Vigna's splitmix64.c).
    first = OracleRandom(0)
    assert first.draw() == (0xE220A8397B1DCDAF >> 11) / 2**53


def board(admission: Admission | None):  # type: ignore[no-untyped-def]
    """A simulation of one idle instance."""
    table = instance_row(None, admission)
    history, forecast = remembered(table)
    return bare_board(instance=table, history=history, forecast=forecast)
