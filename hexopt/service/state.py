"""The service at a glance: what the dashboard draws."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hexopt.service.service import Service


def instance_state(service: Service, i: int) -> dict[str, Any]:
    """One instance, for JSON."""
    dispatcher = service.dispatcher
    server = dispatcher.servers[i]
    running, waiting = dispatcher.load(i)
    free, blocks = dispatcher.blocks(i)
    reported = server.reported
    return {
        "name": server.name,
        "url": server.url,
        "gpu": server.instance.cell.cell.gpu,
        "llm": server.instance.cell.cell.llm,
        "tp": server.instance.cell.cell.tp,
        "pp": server.instance.cell.cell.pp,
        "price": server.instance.price,
        "state": server.state.value,
        "reason": server.reason,
        "models": list(server.models),
        "running": running,
        "waiting": waiting,
        "seats": server.instance.max_num_seqs,
        "kv_usage": reported.get("kv_usage", 1.0 - free / blocks),
        "reported_running": reported.get("running"),
        "reported_waiting": reported.get("waiting"),
        "preemptions": reported.get("preemptions"),
        "prefix_hit_rate": _rate(reported.get("prefix_hits"), reported.get("prefix_queries")),
        "backlog_seconds": dispatcher.backlog(i),
        "scale": dispatcher.scale[i],
        "takes_priority": server.takes_priority,
        "sent": server.sent,
        "ended": server.ended,
        "errors": server.errors,
    }


def state_of(service: Service, limit: int) -> dict[str, Any]:
    """All of it; lists are cut to ``limit`` rows."""
    dispatcher = service.dispatcher
    now = time.time()
    alive = sorted(service.workflows.all(), key=lambda w: w.deadline)
    recent = list(service.workflows.recent)
    attainment = service.workflows.attainment()
    scheduler, solver = dispatcher.scheduler, dispatcher.solver
    plan = scheduler.last if scheduler is not None else None
    latencies = sorted(w.finish - w.arrival for w in recent)
    return {
        "now": now,
        "uptime_seconds": now - service.started,
        "policy": dispatcher.policy.label,
        "objective": getattr(dispatcher.policy, "objective", None),
        "shadow": None
        if dispatcher.shadow is None
        else {
            "policy": dispatcher.shadow.label,
            "same": dispatcher.shadow_agreed,
            "different": dispatcher.shadow_differed,
        },
        "waiting": dispatcher.waiting,
        "running": dispatcher.running,
        "instances": [instance_state(service, i) for i in range(len(dispatcher.servers))],
        "workflows": [
            service.workflows.snapshot(w, now) | {"slack_seconds": dispatcher.slack_of(w, now)} for w in alive[:limit]
        ],
        "workflows_alive": len(alive),
        "ended": [
            {
                "id": w.id,
                "tenant": w.tenant,
                "arrival": w.arrival,
                "finish": w.finish,
                "deadline": w.deadline,
                "stages": w.stages,
                "met": w.met,
            }
            for w in recent[-limit:]
        ],
        "attainment": None if math.isnan(attainment) else attainment,
        "p50_seconds": _quantile(latencies, 0.5),
        "p95_seconds": _quantile(latencies, 0.95),
        "calls": [
            {
                "id": call.id,
                "workflow": call.workflow.id,
                "kind": call.context.kind,
                "instance": dispatcher.servers_by_index[call.instance].name if call.instance >= 0 else None,
                "ready": call.ready,
                "dispatched": None if math.isnan(call.dispatched) else call.dispatched,
                "predicted_finish": _finite(call.receipt.predicted_finish) if call.instance >= 0 else None,
            }
            for call in dispatcher.calls[:limit]
        ],
        "solver": None
        if plan is None or solver is None
        else {
            "name": plan.solver,
            "stages": len(plan.order),
            "seconds": plan.seconds,
            "objective": plan.objective,
            "gap": _finite(plan.gap),
            "solved": solver.tally.solved,
            "failed": solver.tally.failed,
            "late": solver.tally.late,
            "deaths": solver.tally.deaths,
        },
        "tuning": None if service.tuner is None else service.tuner.status(),
        "store": None
        if service.store is None
        else {
            "pending": service.store.stats.pending,
            "written": service.store.stats.written,
            "dropped": service.store.stats.dropped,
            "degraded": service.store.stats.degraded,
        },
    }


def _rate(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _quantile(ordered: list[float], q: float) -> float | None:
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
