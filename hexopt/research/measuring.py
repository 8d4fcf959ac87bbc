"""What a run was worth once warm-up and drain are left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hexopt.simulation.metrics import Summary, latencies, summarise
from hexopt.simulation.simulator import Run


def measured(run: Run, standalone: NDArray[np.float64], first: int, count: int) -> Summary:
    """Figures of the ``count`` workflows from number ``first`` on.

    Latencies, attainment, Req, tardiness, calls and preemptions are theirs, however late they ended. Throughput,
    goodput and utilisation are of the window from the first of them to the arrival after the last: what ended in it,
    whenever it arrived, and the time that instances had a call. KV usage, hit rate and processor times are the whole
    run's.

    Parameters
    ----------
    standalone
        Stand-alone latency of each workflow of the run, seconds, shape (w,).
    """
    chosen = np.zeros(run.workflow.shape[0], dtype=bool)
    chosen[first : first + count] = True
    stage = run.stage[chosen[run.stage["workflow"]]]
    summary = summarise(replace(run, workflow=run.workflow[chosen], stage=stage), standalone[chosen])
    begin, end = window(run, first, count)
    finish = run.workflow["finish"]
    ended = (finish >= begin) & (finish < end)
    return replace(
        summary,
        preemptions=int(stage["preemptions"].sum()),
        throughput=float(ended.sum() / (end - begin)),
        goodput=float((ended & (finish <= run.workflow["deadline"])).sum() / (end - begin)),
        utilisation=busy_share(run, begin, end),
    )


def window(run: Run, first: int, count: int) -> tuple[float, float]:
    """First measured arrival, and the arrival after the last one; without one, the end of the run; seconds."""
    arrival = run.workflow["arrival"]
    after = first + count
    return float(arrival[first]), float(arrival[after]) if after < arrival.shape[0] else run.end


def busy_share(run: Run, begin: float, end: float) -> float:
    """Share of ``begin`` to ``end`` in which an instance had a call that had started, the mean over the instances."""
    started = run.stage[~np.isnan(run.stage["start"])]
    start = np.clip(started["start"], begin, end)
    finish = np.clip(np.where(np.isnan(started["finish"]), run.end, started["finish"]), begin, end)
    busy = 0.0
    for i in range(run.instance.shape[0]):
        here = started["instance"] == i
        order = np.argsort(start[here], kind="stable")
        starts, ends = start[here][order], finish[here][order]
        covered = np.maximum.accumulate(np.concatenate([[begin], ends]))[:-1] if starts.size else starts
        busy += float(np.maximum(ends - np.maximum(starts, covered), 0.0).sum())
    return busy / ((end - begin) * len(run.instance))


def per_workflow(
    run: Run, standalone: NDArray[np.float64], template: NDArray[np.int64], first: int, count: int
) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
    """The measured workflows: number of the template, arrival, latency, allowed and stand-alone seconds."""
    rows = slice(first, first + count)
    return {
        "template": template[rows],
        "arrival_s": run.workflow["arrival"][rows],
        "latency_s": latencies(run)[rows],
        "allowed_s": (run.workflow["deadline"] - run.workflow["arrival"])[rows],
        "standalone_s": standalone[rows],
    }
