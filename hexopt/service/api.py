"""The API beside the gateway: solving, predicting, workflows, instances, policy, decisions."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import fields, replace
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse

from hexopt.cluster import parse_cluster
from hexopt.objective import PRESETS, WEIGHTS, make_objective, weights_of
from hexopt.policies import LIVE, make_live_policy
from hexopt.policies.rolling_horizon import RollingHorizon
from hexopt.service.fleet import Server
from hexopt.service.schemas import (
    InstanceRequest,
    ObjectiveRequest,
    PolicyRequest,
    PredictRequest,
    Problem,
    ProposalRequest,
    SolveRequest,
    WorkflowRequest,
)
from hexopt.service.service import Service
from hexopt.service.solving import Busy, Solving
from hexopt.service.state import instance_state
from hexopt.service.store import StoreError
from hexopt.service.tuning import Tuner
from hexopt.solvers import SOLVERS


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _authorized(request: Request) -> None:
    if not _service(request).gateway.authorized(request.scope["headers"]):
        raise HTTPException(401, "missing or wrong API key", {"www-authenticate": "Bearer"})


_PROBLEM: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "What is wrong, and what was expected",
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    }
}
probes = APIRouter(tags=["health"])
router = APIRouter(dependencies=[Depends(_authorized)], responses=_PROBLEM)


@probes.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@probes.get("/readyz", responses={503: {"description": "They cannot"}})
async def readyz(request: Request, response: Response) -> dict[str, Any]:
    """Calls can be served: some instance is up, and the service is not shutting down."""
    service = _service(request)
    response.status_code = 200 if service.ready else 503
    return {"ready": service.ready, "up": [s.name for s in service.dispatcher.servers if s.takes_calls]}


@router.get("/metrics", tags=["health"], response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(_service(request).telemetry.text(), media_type="text/plain; version=0.0.4")


@router.get("/v1/models", tags=["gateway"])
async def models(request: Request) -> dict[str, Any]:
    """The models that the instances serve."""
    names = dict.fromkeys(name for server in _service(request).dispatcher.servers for name in server.models)
    return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "hexopt"} for name in names]}


@router.post("/v1/solve", tags=["solver"])
async def solve(body: SolveRequest, request: Request) -> dict[str, Any]:
    """Solve one epoch problem: stages x instances in, plan with terms, bound and gap out."""
    if body.solver not in SOLVERS:
        raise ValueError(f"solver {body.solver!r}: expected one of {', '.join(SOLVERS)}")
    solving: Solving = request.app.state.solving
    try:
        return await solving.solve(body.problem, body.solver, body.time_limit, body.seed)
    except Busy as error:
        raise HTTPException(429, str(error), {"retry-after": "1"}) from None


@router.post("/v1/predict", tags=["solver"])
async def predict(body: PredictRequest, request: Request) -> dict[str, Any]:
    """How long a call would take on each instance, in company, without a queue."""
    if body.cached_tokens >= body.prompt_tokens:
        raise ValueError(f"cached_tokens is {body.cached_tokens}, expected less than prompt_tokens")
    dispatcher = _service(request).dispatcher
    rows = dispatcher.predict(body.prompt_tokens, body.cached_tokens, body.output_tokens, body.company)
    return {
        "instances": [
            {"instance": server.name, "time_to_first_token_seconds": first, "seconds": total}
            for server, (first, total) in zip(dispatcher.servers, rows, strict=True)
        ]
    }


@router.post("/v1/workflows", tags=["workflows"], status_code=201)
async def announce(body: WorkflowRequest, request: Request) -> dict[str, Any]:
    """Announce a workflow, so that its deadline runs from now."""
    service = _service(request)
    now = time.time()
    if body.id is not None and service.workflows.get(body.tenant, body.id) is not None:
        raise HTTPException(409, f"workflow {body.id!r} exists already")
    workflow = service.workflows.announce(body.id, body.tenant, body.deadline, body.weight, now)
    return service.workflows.snapshot(workflow, now)


@router.get("/v1/workflows", tags=["workflows"])
async def workflows(request: Request) -> dict[str, Any]:
    """The live workflows, the most pressing first."""
    service = _service(request)
    now = time.time()
    alive = sorted(service.workflows.all(), key=lambda w: w.deadline)
    return {"workflows": [service.workflows.snapshot(w, now) for w in alive]}


def _workflow(request: Request, name: str, tenant: str | None) -> Any:
    found = _service(request).workflows.find(name)
    found = [w for w in found if tenant is None or w.tenant == tenant]
    if not found:
        raise HTTPException(404, f"there is no live workflow {name!r}")
    if len(found) > 1:
        raise HTTPException(409, f"several tenants have a workflow {name!r}: say which with ?tenant=")
    return found[0]


@router.get("/v1/workflows/{name}", tags=["workflows"])
async def workflow(name: str, request: Request, tenant: str | None = None) -> dict[str, Any]:
    """One live workflow with its finished stages."""
    service = _service(request)
    found = _workflow(request, name, tenant)
    kinds = service.dispatcher.kinds
    stages = [
        {
            "id": s.id,
            "kind": kinds[s.kind],
            "parents": list(s.parents),
            "instance": s.instance,
            "ready": s.ready,
            "finish": s.finish,
            "prompt_tokens": s.prompt,
            "output_tokens": s.output,
        }
        for s in found.done
    ]
    return service.workflows.snapshot(found, time.time()) | {"stages": stages}


@router.delete("/v1/workflows/{name}", tags=["workflows"])
async def end_workflow(name: str, request: Request, tenant: str | None = None) -> dict[str, Any]:
    """End a workflow: at once, or when its last running call has ended."""
    service = _service(request)
    found = _workflow(request, name, tenant)
    found.final = True
    service.workflows.settle(found)
    return {"id": name, "ended": not found.open, "running": len(found.open)}


@router.get("/v1/instances", tags=["instances"])
async def instances(request: Request) -> dict[str, Any]:
    """The fleet."""
    service = _service(request)
    return {"instances": [instance_state(service, i) for i in range(len(service.dispatcher.servers))]}


@router.post("/v1/instances", tags=["instances"], status_code=201)
async def add_instance(body: InstanceRequest, request: Request) -> dict[str, Any]:
    """Add a server; calls go there once its health answers."""
    service = _service(request)
    if service.server(body.name) is not None:
        raise HTTPException(409, f"instance {body.name!r} exists already")
    row = body.model_dump(exclude_none=True)
    row.setdefault("llm", service.dispatcher.servers[0].instance.cell.cell.llm)
    instance = parse_cluster({"instance": [row]}, "body").instances[0]
    service.add(instance, body.url)
    return instance_state(service, len(service.dispatcher.servers) - 1)


def _server(request: Request, name: str) -> Server:
    found = _service(request).server(name)
    if found is None:
        raise HTTPException(404, f"there is no instance {name!r}")
    return found


@router.post("/v1/instances/{name}/drain", tags=["instances"])
async def drain(name: str, request: Request) -> dict[str, Any]:
    """Send nothing more there; what runs there ends."""
    service, server = _service(request), _server(request, name)
    service.drain(server)
    return instance_state(service, service.dispatcher.servers.index(server))


@router.post("/v1/instances/{name}/resume", tags=["instances"])
async def resume(name: str, request: Request) -> dict[str, Any]:
    """Undo a drain: calls go there again once its health answers."""
    service, server = _service(request), _server(request, name)
    service.resume(server)
    return instance_state(service, service.dispatcher.servers.index(server))


@router.delete("/v1/instances/{name}", tags=["instances"])
async def remove_instance(name: str, request: Request) -> dict[str, Any]:
    """Forget an instance that has no calls."""
    service, server = _service(request), _server(request, name)
    try:
        service.remove(server)
    except ValueError as error:
        raise HTTPException(409, str(error)) from None
    return {"removed": name}


@router.get("/v1/policy", tags=["policy"])
async def policy(request: Request) -> dict[str, Any]:
    """The active policy, its shadow, and those there are."""
    dispatcher = _service(request).dispatcher
    active = dispatcher.policy
    values = {field.name: getattr(active, field.name) for field in fields(active)}
    shadow = dispatcher.shadow
    return {
        "policy": active.name,
        "label": active.label,
        "parameters": values,
        "shadow": shadow.label if shadow is not None else None,
        "shadow_same": dispatcher.shadow_agreed,
        "shadow_different": dispatcher.shadow_differed,
        "policies": list(LIVE),
    }


@router.put("/v1/policy", tags=["policy"])
async def set_policy(body: PolicyRequest, request: Request) -> dict[str, Any]:
    """Switch the policy, or its shadow, while calls wait and run."""
    dispatcher = _service(request).dispatcher
    wanted = make_live_policy(body.policy) if body.policy else None
    shadow = make_live_policy(body.shadow) if body.shadow else None
    if wanted is not None:
        dispatcher.use(wanted)
    if body.shadow is not None:
        dispatcher.use_shadow(shadow)
    return await policy(request)


@router.get("/v1/objective", tags=["policy"])
async def objective(request: Request) -> dict[str, Any]:
    """The objective's weights; only the rolling horizon has them."""
    active = _service(request).dispatcher.policy
    text = active.objective if isinstance(active, RollingHorizon) else None
    found: dict[str, Any] = {"presets": list(PRESETS), "names": list(WEIGHTS), "objective": text, "weights": None}
    if text is not None:
        found["weights"] = weights_of(make_objective(text))
    return found


@router.put("/v1/objective", tags=["policy"])
async def set_objective(body: ObjectiveRequest, request: Request) -> dict[str, Any]:
    """Set the weights of the rolling horizon that is active."""
    dispatcher = _service(request).dispatcher
    active = dispatcher.policy
    if not isinstance(active, RollingHorizon):
        raise HTTPException(409, f"policy {active.name} has no objective: switch to {RollingHorizon.name} first")
    if body.preset not in PRESETS:
        raise ValueError(f"preset {body.preset!r} is unknown; there are {', '.join(PRESETS)}")
    values = ",".join(f"{name}={value!r}" for name, value in body.weights.items())
    dispatcher.use(replace(active, objective=f"{body.preset}:{values}" if values else body.preset))
    return await objective(request)


def _tuner(request: Request) -> Tuner:
    tuner = _service(request).tuner
    if tuner is None:
        raise HTTPException(409, "tuning is off: start the service with --tune propose or --tune apply")
    return tuner


@router.get("/v1/tuning", tags=["policy"])
async def tuning(request: Request) -> dict[str, Any]:
    """What the search of weights has found, and what became of it."""
    tuner = _service(request).tuner
    return {"mode": "off"} if tuner is None else tuner.status()


@router.post("/v1/tuning/search", tags=["policy"], status_code=202)
async def search_weights(request: Request) -> dict[str, Any]:
    """Search now, in the background."""
    tuner = _tuner(request)
    tuner.search_now()
    return tuner.status()


@router.post("/v1/tuning/accept", tags=["policy"])
async def accept_weights(body: ProposalRequest, request: Request) -> dict[str, Any]:
    """Apply the proposed weights; they are taken back if fewer workflows are in time with them."""
    tuner = _tuner(request)
    tuner.accept(body.id)
    return tuner.status()


@router.post("/v1/tuning/dismiss", tags=["policy"])
async def dismiss_weights(body: ProposalRequest, request: Request) -> dict[str, Any]:
    """Refuse the proposed weights for good."""
    tuner = _tuner(request)
    tuner.dismiss(body.id)
    return tuner.status()


@router.get("/v1/decisions", tags=["decisions"])
async def decisions(request: Request, limit: int = 50) -> dict[str, Any]:
    """The latest route receipts, the newest first."""
    latest = _service(request).dispatcher.receipts.latest(min(max(limit, 0), 1000))
    return {"decisions": [receipt.as_dict(terms=False) for receipt in latest]}


@router.get("/v1/decisions/{name}", tags=["decisions"])
async def decision(name: str, request: Request) -> dict[str, Any]:
    """Why a call went where it went: the id is in its answer's ``x-hexopt-decision`` header."""
    service = _service(request)
    receipt = service.dispatcher.receipts.get(name)
    if receipt is not None:
        return receipt.as_dict()
    if service.store is not None:
        try:
            kept = await asyncio.to_thread(service.store.decision, name)
        except StoreError as error:
            raise HTTPException(503, f"the store does not answer: {error}") from None
        if kept is not None:
            found: dict[str, Any] = kept
            return found
    raise HTTPException(404, f"there is no decision {name!r}, or it is too long ago")


@router.get("/v1/state", tags=["health"])
async def state(request: Request, limit: int = 200) -> dict[str, Any]:
    """The service at a glance."""
    found = _service(request).state(min(max(limit, 0), 1000))
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in found.items()}
