"""A gateway's store with an hour of Text-to-SQL workflows in it."""

from __future__ import annotations

import time

from hexopt.service.store import StageRecord, Store
from hexopt.traces import read_trace
from hexopt.traces.samples import sample_path


def fill(url: str, gap: float = 40.0, deadline: float = 400.0) -> None:
    """Sixty workflows, the first of which came an hour ago; every call took five seconds."""
    store = Store(url)
    start = time.time() - 3600.0
    for k, workflow in enumerate(read_trace(sample_path("text-to-sql"))[:60]):
        arrival = start + gap * k
        finish: dict[str, float] = {}
        for stage in workflow.stages:
            ready = max((finish[parent] for parent in stage.parents), default=arrival) + stage.tool_delay
            finish[stage.id] = ready + 5.0
            store.put(
                StageRecord(
                    workflow=workflow.id, stage=stage.id, parents=stage.parents, kind=stage.kind, tenant="",
                    weight=1.0, model="m", instance="fast", gpu="a100", arrival=arrival, ready=ready,
                    dispatched=ready, first_token=ready + 1.0, finish=ready + 5.0, deadline=arrival + deadline,
                    prompt_tokens=stage.prompt_tokens, cached_tokens=0, output_tokens=stage.output_tokens, prefix=None,
                    status="ok", retries=0, decision_id=f"{k}-{stage.id}", predicted_finish=ready + 5.0,
                    policy="rolling-horizon",
                )
            )  # fmt: skip
    store.close()
