"""Every policy on clusters with prefill and decode instances: calls begin where they may, and all of them end."""

from __future__ import annotations

import numpy as np
import pytest
from random_workload import ALL_POLICIES, RATE, random_workflows

from hexopt.cluster import Cluster, parse_cluster
from hexopt.policies.registry import make_policy
from hexopt.simulation.experiment import Experiment, standalone_seconds
from hexopt.simulation.simulator import SimulationError
from hexopt.simulation.state import DECODE, NONE, PREFILL
from hexopt.simulation.workload import Workload
from hexopt.traces import Stage, Workflow


def apart(mixed: bool = False, **limits: object) -> Cluster:
    """Decode instances first, so that no rule may take the first instance for granted."""
    tight = {"kv_tokens": 2400, "max_num_seqs": 6, "max_num_batched_tokens": 256, **limits}
    rows = [
        {"gpu": gpu, "role": role, "name": f"{k}", **tight}
        for k, (gpu, role) in enumerate(
            (("h100", "decode"), ("l40s", "prefill"), ("a6000", "decode"), ("h100", "prefill"), ("h100", "decode"))
        )
    ]
    if mixed:
        rows.append({"gpu": "l40s", "name": "both", **tight})
    links = [{"bandwidth": 2e9, "latency": 0.002}, {"from": "h100", "to": "h100", "bandwidth": 2e10}]
    return parse_cluster({"llm": "llama-3.1-8b", "instance": rows, "link": links}, "test")


@pytest.mark.parametrize("policy", ALL_POLICIES)
@pytest.mark.parametrize("mixed", [False, True])
def test_calls_begin_where_they_may_and_all_end(policy: str, mixed: bool) -> None:
    experiment = Experiment.of(random_workflows(np.random.default_rng(7), 10), apart(mixed))
    run = experiment.run(make_policy(policy), *experiment.sample(25, RATE, 7))
    stage, role = run.stage, run.instance["role"]
    assert not np.isnan(run.workflow["finish"]).any()
    handed = ~np.isnan(stage["handed"])
    assert (role[stage["prefill_instance"][handed]] == PREFILL).all() and (
        role[stage["instance"][handed]] == DECODE
    ).all()
    # What was not handed over ended where it began: at its first token, or on a mixed instance.
    assert (role[stage["instance"][~handed]] != DECODE).all()
    assert (stage["output"][~handed & (role[stage["instance"]] == PREFILL)] == 1).all()
    assert (stage["prefill_instance"][~handed] == NONE).all()
    assert (stage["first_token"][handed] <= stage["handed"][handed]).all()
    assert (stage["handed"] + stage["moved_seconds"] <= stage["finish"])[handed].all()
    assert (run.instance["free"] == run.instance["blocks"]).all()


@pytest.mark.parametrize("policy", ["least-loaded", "greedy-urgency", "hexagent-style", "heft-like"])
def test_later_turns_find_the_prefix_where_it_was_prefilled(policy: str) -> None:
    experiment = Experiment.of(random_workflows(np.random.default_rng(3), 20), apart(kv_tokens=60_000))
    run = experiment.run(make_policy(policy), *experiment.sample(40, RATE, 3))
    assert run.stage["cached"].sum() > 0
    assert run.instance["cached_tokens"][run.instance["role"] == PREFILL].sum() == run.stage["cached"].sum()
    assert run.instance["cached_tokens"][run.instance["role"] == DECODE].sum() == 0


def test_alone_a_workflow_takes_its_stand_alone_seconds() -> None:
    cluster = apart(kv_tokens=60_000, max_num_batched_tokens=8192, max_num_seqs=64)
    workflow = Workflow("w", (Stage("a", "k", 3000, 50), Stage("b", "k", 500, 1, ("a",), tool_delay=2.0)))
    experiment = Experiment.of([workflow], cluster)
    run = experiment.run(make_policy("clairvoyant:order=urgency"), np.zeros(1, dtype=np.int64), np.zeros(1))
    assert run.workflow["finish"][0] == pytest.approx(experiment.standalone[0], rel=1e-9)
    slow = parse_cluster(
        {
            "llm": "llama-3.1-8b",
            "instance": [{"gpu": "h100", "role": "prefill"}, {"gpu": "h100", "role": "decode"}],
            "link": [{"from": "prefill-h100-0", "to": "decode-h100-0", "bandwidth": 131072e3, "latency": 1.0}],
        },
        "test",
    )
    fast = parse_cluster({"llm": "llama-3.1-8b", "instance": [{"gpu": "h100"}]}, "test")
    # A token's KV of 131,072 bytes takes a millisecond; the second call has one token and stays.
    alone, at_once = (standalone_seconds(Workload([workflow]), c)[0][0] for c in (slow, fast))
    assert alone == pytest.approx(at_once + 1.0 + 3.0)


def test_calls_that_fit_no_pair_are_refused() -> None:
    rows = [
        {"gpu": "h100", "role": "prefill", "max_model_len": 1000},
        {"gpu": "h100", "role": "decode", "max_model_len": 500},
    ]
    cluster = parse_cluster({"llm": "llama-3.1-8b", "instance": rows}, "test")
    for prompt, output, fits in ((999, 1, True), (1000, 1, False), (400, 100, True), (400, 101, False)):
        experiment = Experiment.of([Workflow("w", (Stage("a", "k", prompt, output),))], cluster)
        given = np.zeros(1, dtype=np.int64), np.zeros(1)
        if fits:
            assert experiment.run(make_policy("least-loaded"), *given).stage["finish"][0] > 0
        else:
            with pytest.raises(
                SimulationError, match="prefill instances take prompts of 999 tokens, decode instances 500"
            ):
                experiment.run(make_policy("least-loaded"), *given)
