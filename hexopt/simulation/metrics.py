"""What a run was worth: latency, attainment, SLO scale, throughput, use of the instances."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.simulation.simulator import Run


@dataclass(frozen=True)
class Summary:
    """One policy's figures in one run.

    Latencies are over the workflows that finished, seconds from arrival to the end of the last stage. ``attainment``
    is the share of all workflows that finished by their deadline; ``req95`` (``req99``) the SLO scale: the smallest
    multiple of its stand-alone latency within which 95% (99%) of the workflows finish, infinite if fewer do.
    ``throughput`` and ``goodput`` are workflows a second that finished, and that finished in time, over the run.
    ``preemptions``, ``lost`` and ``migrations`` count how often calls were preempted, failed with their instance, and
    moved while they ran.
    """

    policy: str
    workflows: int
    calls: int
    finished: int
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    attainment: float
    req95: float
    req99: float
    throughput: float
    goodput: float
    mean_tardiness_s: float
    utilisation: float
    kv_usage: float
    cache_hit_rate: float
    preemptions: int
    lost: int
    migrations: int
    engine_cpu_s: float
    scheduler_us_per_call: float

    def row(self) -> dict[str, Any]:
        """As a flat mapping; infinities and NaN become ``None``, so that it is valid JSON."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


def latencies(run: Run) -> NDArray[np.float64]:
    """Seconds from arrival to end of each workflow, shape (w,); infinite where it has not ended."""
    seconds = run.workflow["finish"] - run.workflow["arrival"]
    return np.where(np.isnan(seconds), np.inf, seconds)


def scale_at(ratios: NDArray[np.float64], share: float) -> float:
    """Smallest value within which at least ``share`` of ``ratios`` lie (HexAGenT's Req_q, arXiv 2605.16637)."""
    ordered = np.sort(ratios)
    return float(ordered[math.ceil(share * ordered.shape[0]) - 1])


def summarise(run: Run, standalone: NDArray[np.float64]) -> Summary:
    """Figures of ``run``; ``standalone`` is each workflow's stand-alone latency, seconds, shape (w,)."""
    latency = latencies(run)
    done = latency[np.isfinite(latency)]
    quantiles = np.quantile(done, [0.5, 0.95, 0.99]) if done.size else np.full(3, np.nan)
    allowed = run.workflow["deadline"] - run.workflow["arrival"]
    in_time = latency <= allowed
    late = np.maximum(done - allowed[np.isfinite(latency)], 0.0)
    start = float(run.workflow["arrival"].min())
    span = max(run.end - start, 1e-9)
    instance = run.instance
    looked_up = instance["cached_tokens"].sum() + instance["computed_tokens"].sum()
    calls = run.stage.shape[0]
    return Summary(
        policy=run.policy,
        workflows=latency.shape[0],
        calls=calls,
        finished=int(done.size),
        mean_s=float(done.mean()) if done.size else math.nan,
        p50_s=float(quantiles[0]),
        p95_s=float(quantiles[1]),
        p99_s=float(quantiles[2]),
        attainment=float(in_time.mean()),
        req95=scale_at(latency / standalone, 0.95),
        req99=scale_at(latency / standalone, 0.99),
        throughput=float(done.size / span),
        goodput=float(in_time.sum() / span),
        mean_tardiness_s=float(late.mean()) if late.size else math.nan,
        utilisation=float(instance["busy_seconds"].sum() / (span * instance.shape[0])),
        kv_usage=float((instance["block_seconds"] / instance["blocks"]).sum() / (span * instance.shape[0])),
        cache_hit_rate=float(instance["cached_tokens"].sum() / max(looked_up, 1)),
        preemptions=int(instance["preemptions"].sum()),
        lost=int(run.stage["lost"].sum()),
        migrations=int(run.stage["migrations"].sum()),
        engine_cpu_s=run.engine_cpu_seconds,
        scheduler_us_per_call=run.scheduler_cpu_seconds / max(run.decisions, 1) * 1e6,
    )


def attainment_curve(run: Run, deadlines: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of workflows that finished within each of ``deadlines`` (seconds from arrival), same shape."""
    return np.searchsorted(np.sort(latencies(run)), deadlines, side="right") / run.workflow.shape[0]
