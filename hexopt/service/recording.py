"""What the service writes down, made of what it knows."""

from __future__ import annotations

import math

import orjson

from hexopt.service.calls import Call
from hexopt.service.fleet import Server
from hexopt.service.receipts import Receipt
from hexopt.service.records import DecisionRecord, StageRecord


def stage_record(
    call: Call, status: str, end: float, output_tokens: int, cached_tokens: int, server: Server | None
) -> StageRecord:
    """The row of a call that ended at ``end``, unix seconds; tokens as the server counted them."""
    context, workflow, receipt = call.context, call.workflow, call.receipt
    ok = status == "ok"
    return StageRecord(
        workflow=workflow.id,
        stage=context.stage or call.id,
        arrival=workflow.arrival,
        ready=call.ready,
        finish=end,
        status=status,
        parents=context.parents,
        kind=context.kind,
        tenant=workflow.tenant,
        weight=workflow.weight,
        model=call.model,
        instance=server.name if server is not None else None,
        gpu=server.instance.cell.cell.gpu if server is not None else None,
        dispatched=_known(call.dispatched),
        first_token=_known(call.first_token),
        deadline=workflow.deadline,
        prompt_tokens=call.prompt_tokens if ok else None,
        cached_tokens=cached_tokens if ok else None,
        output_tokens=output_tokens if ok else None,
        prefix=context.prefix,
        retries=max(call.attempts - 1, 0),
        decision_id=call.id if receipt is not None else None,
        predicted_finish=_known(receipt.predicted_finish) if receipt is not None else None,
        policy=receipt.policy if receipt is not None else "",
    )


def decision_record(receipt: Receipt) -> DecisionRecord:
    """The row of a decision."""
    return DecisionRecord(
        id=receipt.id,
        time=receipt.time,
        workflow=receipt.workflow,
        stage=receipt.stage,
        policy=receipt.policy,
        solver=receipt.planned.plan.solver if receipt.planned is not None else "",
        chosen=receipt.instances[receipt.chosen][0],
        receipt=orjson.dumps(receipt.as_dict(terms=False)).decode(),
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
