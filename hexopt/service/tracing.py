"""OpenTelemetry traces of the calls, by the semantic conventions for generative AI; the extra ``hexopt[otel]``.

Spans are made when a call has ended, from the times that are known anyway: nothing is added to the hot path.
"""

from __future__ import annotations

import math
from typing import Any

from hexopt.service.calls import Call


class Tracing:
    """Sends a span for every call to an OTLP endpoint.

    Parameters
    ----------
    endpoint
        Base URL of the collector, such as ``http://127.0.0.1:4318``.

    Raises
    ------
    ValueError
        If the extra is missing.
    """

    def __init__(self, endpoint: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import SpanKind
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise ValueError(f"--otel-endpoint needs the extra hexopt[otel]: {error}") from None
        self._provider = TracerProvider(resource=Resource.create({"service.name": "hexopt"}))
        exporter = OTLPSpanExporter(endpoint.rstrip("/") + "/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("hexopt")
        self._propagator = TraceContextTextMapPropagator()
        self._kind = SpanKind.SERVER

    def ended(self, call: Call, status: str, end: float, output_tokens: int, server: str, url: str) -> None:
        """A call has ended at ``end``, unix seconds."""
        operation = "chat" if call.path.endswith("chat/completions") else "text_completion"
        receipt = call.receipt
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "vllm",
            "gen_ai.request.model": call.model,
            "gen_ai.request.max_tokens": call.max_tokens,
            "gen_ai.usage.input_tokens": call.prompt_tokens,
            "gen_ai.usage.output_tokens": output_tokens,
            "gen_ai.conversation.id": call.workflow.id,
            "server.address": url,
            "hexopt.instance": server,
            "hexopt.stage.kind": call.context.kind,
            "hexopt.decision.id": call.id,
            "hexopt.attempts": call.attempts,
            "hexopt.outcome": status,
        }
        if receipt is not None:
            attributes["hexopt.policy"] = receipt.policy
            attributes["hexopt.decided_by"] = receipt.reason
            attributes["hexopt.queue.seconds"] = receipt.waited
        if status != "ok":
            attributes["error.type"] = status
        parent = self._propagator.extract({"traceparent": call.traceparent}) if call.traceparent else None
        span = self._tracer.start_span(
            f"{operation} {call.model}", parent, self._kind, attributes, start_time=_nanoseconds(call.ready)
        )
        for name, seconds in (("dispatched", call.dispatched), ("first token", call.first_token)):
            if not math.isnan(seconds):
                span.add_event(name, timestamp=_nanoseconds(seconds))
        span.end(_nanoseconds(end))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
