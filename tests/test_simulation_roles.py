"""Prefill and decode instances: the jumping engine against the oracle, and closed forms of hand-overs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle_engine import OracleConfig, OracleStage
from test_simulation_engine import Case, assert_case_agrees, random_case, simulate_case

from hexopt.models.roofline import FEATURE_NAMES, N_FEATURES


def random_roles(rng: np.random.Generator) -> Case:
    """A random case with roles, links and expectations: some calls know where they decode, others do not."""
    case = random_case(rng)
    mixed = [replace(c, scheduling=str(rng.choice(["fcfs", "priority"]))) for c in case.configs]
    prefill = [replace(mixed[0], role="prefill") for _ in range(int(rng.integers(1, 3)))]
    decode = [
        replace(mixed[-1], role="decode", blocks=int(mixed[-1].blocks * rng.choice([1.0, 1.5])))
        for _ in range(int(rng.integers(1, 4)))
    ]
    configs = [*prefill, *decode, *(mixed if rng.random() < 0.4 else [])]
    rng.shuffle(configs)  # type: ignore[arg-type]
    begins = [k for k, c in enumerate(configs) if c.role != "decode"]
    decodes = [k for k, c in enumerate(configs) if c.role == "decode"]
    stages = [
        replace(
            s,
            instance=int(rng.choice(begins)),
            decode_at=int(rng.choice(decodes)) if rng.random() < 0.6 else -1,
            expected_output=max(int(s.output * rng.choice([0.3, 1.0, 2.5])), 1),
        )
        for s in case.stages
    ]
    m = len(configs)
    latency, seconds = rng.choice([0.0, 0.01, 0.5]) * rng.random((m, m)), rng.choice([0.0, 1e-3]) * rng.random((m, m))
    return Case(stages, case.nodes, configs, links=(latency, seconds))


def agree(seed: int) -> tuple[int, int, int]:
    """Handed over, preempted where they decode, waiting there for more than their KV."""
    sim = assert_case_agrees(random_roles(np.random.default_rng(seed)), seed)
    stage, instance = sim.stage, sim.instance
    handed = ~np.isnan(stage["handed"])
    assert (stage["prefill_instance"][handed] >= 0).all() and (stage["prefill_instance"][~handed] == -1).all()
    at_decode = instance["role"][stage["instance"]] == 2
    assert (handed == at_decode).all()
    assert (stage["output"][handed] > 1).all()
    return int(handed.sum()), int((stage["preemptions"] * handed).sum()), int(stage["cached"].sum())


def test_agrees_with_the_oracle_on_two_thousand_workloads_with_roles() -> None:
    totals = np.array([agree(seed) for seed in range(2000)])
    handed, preempted, found = (totals > 0).sum(axis=0)
    assert handed > 1500 and preempted > 100 and found > 300


@given(st.integers(10_000, 2**31))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_agrees_with_the_oracle_on_any_workload_with_roles(seed: int) -> None:
    agree(seed)


def plain(**seconds: float) -> np.ndarray:
    """Coefficients of a model that knows only these features."""
    coef = np.zeros(N_FEATURES)
    for name, value in seconds.items():
        coef[FEATURE_NAMES.index({"decoding": "[B>0]", "token": "K"}[name])] = value
    return coef


PRE = OracleConfig(plain(token=1e-3), blocks=100, block_size=10, max_num_batched_tokens=10_000, role="prefill")
DEC = replace(PRE, coef=plain(decoding=0.02, token=1e-3), role="decode")
LINK = np.array([[0.0, 0.25], [0.0, 0.0]]), np.array([[0.0, 1e-3], [0.0, 0.0]])


def run(*stages: OracleStage, pre: OracleConfig = PRE, dec: OracleConfig = DEC):  # type: ignore[no-untyped-def]
    return simulate_case(Case(list(stages), [], [pre, dec], links=LINK))


def test_a_call_prefills_travels_and_decodes() -> None:
    (call,) = run(OracleStage(prompt=400, output=51, expected_output=51)).stage
    # 0.4 s of prefill with the first token, 0.25 + 0.4 s on the way, 50 steps of 20 ms.
    assert (call["start"], call["first_token"], call["handed"]) == pytest.approx((0.0, 0.4, 0.4))
    assert call["moved_seconds"] == pytest.approx(0.65) and call["finish"] == pytest.approx(0.4 + 0.65 + 1.0)
    assert (call["prefill_instance"], call["instance"]) == (0, 1)


def test_one_token_is_no_reason_to_travel() -> None:
    (call,) = run(OracleStage(prompt=400, output=1)).stage
    assert call["finish"] == pytest.approx(0.4) and call["instance"] == 0 and np.isnan(call["handed"])


def test_a_reservation_holds_up_what_would_fit_and_all_behind_it() -> None:
    # The first reserves 59 of 100 blocks; 50 more do not fit, the 10 of the third would, but are behind the second.
    long = OracleStage(prompt=400, output=101, expected_output=190)
    same = OracleStage(prompt=400, output=51, expected_output=100)
    small = OracleStage(prompt=50, output=51, expected_output=50, arrival=2.0)
    sim = run(long, same, small, pre=replace(PRE, max_num_batched_tokens=400))
    a, b, c = sim.stage["finish"]
    # First token at 0.4, KV there at 1.05 s; the others' at 1.45 and 2.35 s. Both enter when the first has ended.
    assert a == pytest.approx(1.05 + 2.0)
    assert sim.stage["first_token"].tolist() == pytest.approx([0.4, 0.8, 2.05])
    assert sim.stage["moved_seconds"].tolist() == pytest.approx([0.65, 0.65, 0.3])
    assert (b, c) == pytest.approx((a + 1.0, a + 1.0))
    # Were less expected of the second, it would run beside the first.
    sim = run(long, replace(same, expected_output=1), small, pre=replace(PRE, max_num_batched_tokens=400))
    assert sim.stage["finish"][1] == pytest.approx(1.45 + 1.0, abs=0.021)


def test_blocks_of_the_prefill_instance_are_free_when_the_kv_has_arrived() -> None:
    # 100 blocks: the second prompt does not fit beside the first, which leaves at 0.6 + 0.85 s.
    sim = run(OracleStage(prompt=600, output=3), OracleStage(prompt=600, output=3, arrival=0.1))
    assert sim.stage["start"].tolist() == pytest.approx([0.0, 0.6 + 0.25 + 0.6])


def test_what_is_expected_too_low_is_preempted_and_recomputed() -> None:
    # Each reserves 45 blocks and grows to 56: one must go, and computes its 500 tokens again where it decodes.
    stages = [OracleStage(prompt=400, output=161, expected_output=50) for _ in range(2)]
    sim = run(*stages)
    assert sim.stage["preemptions"].sum() == 1 and sim.instance["preemptions"].tolist() == [0, 1]
    assert sim.instance["computed_tokens"][1] > 2 * 160 + 400
