"""What an emulated instance counts: vLLM's metrics, by vLLM's names and labels.

Times are seconds on the wall, as a client sees them. The time between two tokens is a request's mean: engine steps
that are alike are simulated as one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.cluster import Instance

# vLLM's buckets (vllm/v1/metrics/loggers.py).
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_REQUEST = (
    0.3,
    0.5,
    0.8,
    1.0,
    1.5,
    2.0,
    2.5,
    5.0,
    10.0,
    15.0,
    20.0,
    30.0,
    40.0,
    50.0,
    60.0,
    120.0,
    240.0,
    480.0,
    960.0,
)
_PREEMPTIONS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_ITERATION_BUCKETS = 15
REASONS = ("stop", "length", "abort", "error")

HISTOGRAMS = {
    "time_to_first_token_seconds": _FIRST,
    "inter_token_latency_seconds": _TOKEN,
    "request_time_per_output_token_seconds": _TOKEN,
    "e2e_request_latency_seconds": _REQUEST,
    "request_queue_time_seconds": _REQUEST,
    "request_prefill_time_seconds": _REQUEST,
    "request_decode_time_seconds": _REQUEST,
    "request_num_preemptions": _PREEMPTIONS,
}


@dataclass(slots=True)
class Ended:
    """A request that has ended; times in simulated seconds."""

    prompt: int
    output: int
    cached: int
    preemptions: int
    arrival: float
    start: float
    first_token: float
    finish: float
    reason: str


class Histogram:
    """Counts by upper bound, and the sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """``times`` observations of ``value``."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """In Prometheus' text form."""
        yield f"# TYPE {name} histogram"
        total = 0
        for bound, total in zip((*map(str, self.bounds), "+Inf"), accumulate(self.counts), strict=True):
            yield f'{name}_bucket{{{labels},le="{bound}"}} {total}'
        yield f"{name}_count{{{labels}}} {total}"
        yield f"{name}_sum{{{labels}}} {self.sum:.9g}"


class Measures:
    """The counters of one instance; ``speed_up`` simulated seconds are a second on the wall."""

    def __init__(self, speed_up: float) -> None:
        self.iterations = np.zeros(_ITERATION_BUCKETS, dtype=np.int64)
        """Engine steps by their tokens, see :func:`hexopt.emulation.stepping.catch_up`."""
        self._speed_up = speed_up
        self._histograms = {name: Histogram(bounds) for name, bounds in HISTOGRAMS.items()}
        self._reasons = dict.fromkeys(REASONS, 0)
        self._tokens = np.zeros(4, dtype=np.int64)

    def ended(self, call: Ended) -> None:
        """Count a request that has ended."""
        self._reasons[call.reason] += 1
        self._tokens += (call.prompt, call.output, call.prompt, call.cached)
        decode = call.finish - call.first_token
        between = decode / max(call.output - 1, 1)
        seconds = {
            "time_to_first_token_seconds": call.first_token - call.arrival,
            "request_time_per_output_token_seconds": between,
            "e2e_request_latency_seconds": call.finish - call.arrival,
            "request_queue_time_seconds": call.start - call.arrival,
            "request_prefill_time_seconds": call.first_token - call.start,
            "request_decode_time_seconds": decode,
        }
        for name, value in seconds.items():
            self._histograms[name].observe(value / self._speed_up)
        self._histograms["inter_token_latency_seconds"].observe(between / self._speed_up, call.output - 1)
        self._histograms["request_num_preemptions"].observe(call.preemptions)

    def aborted(self, counted: NDArray[np.int64]) -> None:
        """Count a request whose client has gone; ``counted`` as ``live`` in :meth:`text`, of this one alone."""
        self._reasons["abort"] += 1
        self._tokens += counted

    def text(self, model: str, instance: Instance, state: Any, live: NDArray[np.int64]) -> str:
        """Everything in Prometheus' text form.

        Parameters
        ----------
        state
            The INSTANCE record.
        live
            Prompt tokens, generated ones, looked up and found ones of the requests that are there.
        """
        labels = f'engine="0",model_name="{model}"'
        tokens = (self._tokens + live).tolist()
        blocks = int(state["blocks"])
        lines: list[str] = []

        def put(kind: str, name: str, value: float) -> None:
            lines.append(f"# TYPE vllm:{name} {kind}")
            lines.append(f"vllm:{name}{{{labels}}} {value:.10g}")

        waiting = int(state["waiting"])
        put("gauge", "num_requests_running", int(state["running"]))
        put("gauge", "num_requests_waiting", waiting)
        lines.append("# TYPE vllm:num_requests_waiting_by_reason gauge")
        for reason, value in (("capacity", waiting), ("deferred", 0)):
            lines.append(f'vllm:num_requests_waiting_by_reason{{{labels},reason="{reason}"}} {value}')
        put("gauge", "kv_cache_usage_perc", (blocks - int(state["free"])) / blocks)
        put("counter", "prefix_cache_queries_total", tokens[2])
        put("counter", "prefix_cache_hits_total", tokens[3])
        put("counter", "num_preemptions_total", int(state["preemptions"]))
        put("counter", "prompt_tokens_total", tokens[0])
        put("counter", "prompt_tokens_cached_total", tokens[3])
        put("counter", "generation_tokens_total", tokens[1])
        put("counter", "admission_rejections_total", 0)
        lines.append("# TYPE vllm:request_success_total counter")
        for reason, value in self._reasons.items():
            lines.append(f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {value}')
        lines.append("# TYPE vllm:cache_config_info gauge")
        config = f'block_size="{instance.block_size}",enable_prefix_caching="{instance.prefix_caching}"'
        config += f',num_gpu_blocks="{blocks}",kv_cache_size_tokens="{blocks * instance.block_size}"'
        lines.append(f'vllm:cache_config_info{{engine="0",{config}}} 1')
        for name, histogram in self._histograms.items():
            lines += histogram.lines(f"vllm:{name}", labels)
        iterations = Histogram(tuple(float(2**b) for b in range(_ITERATION_BUCKETS - 1)))
        iterations.counts = self.iterations.tolist()
        iterations.sum = float(state["computed_tokens"])
        lines += iterations.lines("vllm:iteration_tokens_total", labels)
        return "\n".join(lines) + "\n"
