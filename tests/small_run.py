"""Runs made by hand: no latency profile, no simulation."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from hexopt.simulation.simulator import Run
from hexopt.simulation.state import INSTANCE, STAGE, WORKFLOW

TIMES = ("ready", "start", "first_token", "finish")


def fake_cluster(*gpus: str) -> Any:
    """What exports and reports read of a cluster: names and GPU types."""
    return SimpleNamespace(
        name="two-of-a-kind",
        instances=tuple(
            SimpleNamespace(name=f"{gpu}-{k}", cell=SimpleNamespace(cell=SimpleNamespace(gpu=gpu)))
            for k, gpu in enumerate(gpus)
        ),
    )


def make_run(
    stages: list[dict[str, Any]],
    workflows: list[dict[str, Any]],
    *,
    policy: str = "round-robin",
    kinds: tuple[str, ...] = ("generate", "revise"),
    gpus: tuple[str, ...] = ("h100", "l40s"),
    end: float = 10.0,
) -> Run:
    """A run of these rows; times that a row does not name never happened."""
    stage = np.zeros(len(stages), dtype=STAGE)
    workflow = np.zeros(len(workflows), dtype=WORKFLOW)
    for field in TIMES:
        stage[field] = np.nan
    workflow["finish"] = np.nan
    workflow["weight"] = 1.0
    for table, rows in ((stage, stages), (workflow, workflows)):
        for k, row in enumerate(rows):
            for field, value in row.items():
                table[field][k] = value
    instance = np.zeros(len(gpus), dtype=INSTANCE)
    instance["blocks"] = 100
    instance["busy_seconds"] = end / 2
    return Run(
        policy=policy,
        stage=stage,
        workflow=workflow,
        instance=instance,
        kinds=kinds,
        cluster=fake_cluster(*gpus),
        engine_cpu_seconds=0.5,
        scheduler_cpu_seconds=0.25,
        decisions=len(stages),
        end=end,
    )


def small_run(policy: str = "round-robin", slower: float = 1.0) -> Run:
    """Two workflows of two stages; the last stage has not ended, one before it had not started."""
    s = slower
    return make_run(
        [
            {"workflow": 0, "kind": 0, "instance": 0, "prompt": 100, "output": 20, "cached": 16,
             "ready": 0.0, "start": 0.25, "first_token": 0.5, "finish": 2.0 * s},
            {"workflow": 0, "kind": 1, "instance": 1, "prompt": 50, "output": 10,
             "ready": 2.0 * s, "start": 2.0 * s, "first_token": 2.5 * s, "finish": 4.0 * s},
            {"workflow": 1, "kind": 0, "instance": 0, "prompt": 70, "output": 5,
             "ready": 1.0, "start": 1.0, "first_token": 1.5, "finish": 3.0 * s},
            {"workflow": 1, "kind": 1, "instance": 0, "prompt": 30, "output": 5,
             "ready": 3.0 * s, "start": 3.5 * s},
            {"workflow": 1, "kind": 1, "instance": 1, "prompt": 30, "output": 5, "ready": 3.0 * s},
        ],
        [
            {"arrival": 0.0, "deadline": 5.0, "finish": 4.0 * s, "stages": 2},
            {"arrival": 1.0, "deadline": 6.0, "first_stage": 2, "stages": 3, "tenant": 1},
        ],
        policy=policy,
        end=10.0,
    )  # fmt: skip


def random_run(policy: str, workflows: int, seed: int, slower: float = 1.0) -> Run:
    """Chains of three stages on four instances, all of which finish."""
    rng = np.random.default_rng(seed)
    arrival = np.sort(rng.uniform(0.0, workflows * 1.5, workflows))
    stages, rows = [], []
    for w in range(workflows):
        now = float(arrival[w])
        for k in range(3):
            ready = now
            start = ready + float(rng.exponential(2.0 * slower))
            first = start + float(rng.uniform(0.1, 0.6))
            now = first + float(rng.exponential(4.0 * slower))
            stages.append(
                {"workflow": w, "kind": k % 2, "instance": int(rng.integers(4)), "prompt": int(rng.integers(50, 4000)),
                 "output": int(rng.integers(5, 900)), "ready": ready, "start": start, "first_token": first,
                 "finish": now}
            )  # fmt: skip
        rows.append({"arrival": arrival[w], "deadline": arrival[w] + 25.0, "finish": now, "stages": 3})
    end = max(row["finish"] for row in rows)
    return make_run(stages, rows, policy=policy, gpus=("h100", "h100", "l40s", "a6000"), end=end)


def summary_row(run: Run) -> dict[str, Any]:
    """The figures of a run that the page asks for; Req against five seconds alone."""
    latency = np.sort(run.workflow["finish"] - run.workflow["arrival"])
    done = latency[~np.isnan(latency)]
    in_time = float((run.workflow["finish"] <= run.workflow["deadline"]).mean())
    p50, p95, p99 = (float(np.quantile(done, q)) for q in (0.5, 0.95, 0.99))
    return {
        "policy": run.policy, "workflows": latency.size, "calls": run.stage.size, "mean_s": float(done.mean()),
        "p50_s": p50, "p95_s": p95, "p99_s": p99, "attainment": in_time, "req95": p95 / 5.0, "req99": None,
        "throughput": done.size / run.end, "goodput": in_time * latency.size / run.end,
        "engine_cpu_s": run.engine_cpu_seconds,
    }  # fmt: skip
