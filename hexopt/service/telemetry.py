"""Prometheus metrics of the service."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from hexopt.service.calls import Call

_FAST = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
_SLOW = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 600.0)
_SLACK = (-300.0, -100.0, -30.0, -10.0, -3.0, -1.0, 0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_SHARE = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Telemetry:
    """What the service counts.

    Parameters
    ----------
    gauges
        Asked at every scrape for name, help, labels, and rows of label values with their value; a name that ends in
        ``_total`` is a counter.
    """

    def __init__(
        self, gauges: Callable[[], Iterable[tuple[str, str, list[str], list[tuple[list[str], float]]]]]
    ) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "hexopt_requests", "Calls that have ended, by outcome", ["outcome"], registry=self.registry
        )
        self._refused = Counter(
            "hexopt_errors", "Errors given to clients, by status", ["status"], registry=self.registry
        )
        self._retries = Counter(
            "hexopt_retries", "Calls sent elsewhere, by the instance that failed them", ["instance"],
            registry=self.registry,
        )  # fmt: skip
        self._seconds = self._histogram("hexopt_request_seconds", "From a call's arrival to its end", _SLOW)
        self._first = self._histogram(
            "hexopt_time_to_first_token_seconds", "From dispatch to the first token, streams only", _SLOW
        )
        self._queue = self._histogram("hexopt_queue_seconds", "From a call's arrival to its dispatch", _SLOW)
        self._decision = self._histogram("hexopt_decision_seconds", "Processor time of one decision", _FAST)
        self._slack = self._histogram("hexopt_slack_at_dispatch_seconds", "Predicted slack when sent", _SLACK)
        self._gap = self._histogram("hexopt_solver_gap_ratio", "Proven gap of applied plans that have a bound", _SHARE)
        self._solve = self._histogram("hexopt_solver_seconds", "Time of applied solves", _FAST)
        self._outcomes = {name: self._requests.labels(name) for name in ("ok", "error", "aborted", "rejected")}
        self._workflows = Counter(
            "hexopt_workflows", "Workflows that have ended, by whether in time", ["met"], registry=self.registry
        )
        self.registry.register(_Asked(gauges))  # type: ignore[arg-type]

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)

    def refused(self, status: int) -> None:
        """An error was answered."""
        self._refused.labels(str(status)).inc()

    def retried(self, instance: str) -> None:
        """A call was sent elsewhere."""
        self._retries.labels(instance).inc()

    def decided(self, call: Call) -> None:
        """A call was sent to its instance."""
        receipt = call.receipt
        self._queue.observe(receipt.waited)
        self._slack.observe(receipt.deadline - receipt.predicted_finish - receipt.tail)

    def decision_took(self, seconds: float) -> None:
        """One decision, of one or many calls, took so long."""
        self._decision.observe(seconds)

    def solved(self, seconds: float, gap: float) -> None:
        """A plan was applied; ``gap`` is infinite without a bound."""
        self._solve.observe(seconds)
        if gap < float("inf"):
            self._gap.observe(gap)

    def ended(self, call: Call, outcome: str) -> None:
        """A call has ended."""
        self._outcomes[outcome].inc()
        if outcome == "ok":
            self._seconds.observe(call.finish - call.ready)
            if call.first_token == call.first_token:
                self._first.observe(call.first_token - call.dispatched)

    def workflow_ended(self, met: bool) -> None:
        """A workflow has ended."""
        self._workflows.labels(str(met).lower()).inc()

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)


class _Asked:
    """Figures that are looked up only when somebody scrapes."""

    def __init__(
        self, gauges: Callable[[], Iterable[tuple[str, str, list[str], list[tuple[list[str], float]]]]]
    ) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[Any]:
        for name, text, labels, rows in self._gauges():
            counter = name.endswith("_total")
            kind = CounterMetricFamily if counter else GaugeMetricFamily
            family = kind(name.removesuffix("_total"), text, labels=labels)
            for values, value in rows:
                family.add_metric(values, value)
            yield family
