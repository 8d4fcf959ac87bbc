"""``hexopt serve``: the gateway, the solver service and the dashboard."""

from __future__ import annotations

import logging
from typing import Annotated

import typer


def serve(
    cluster: Annotated[str, typer.Option(help="Cluster TOML file, with a url for every instance.")],
    policy: Annotated[str, typer.Option(help="Policy, with its parameters after a colon.")] = "rolling-horizon",
    weights: Annotated[
        str, typer.Option(help="Objective of the rolling horizon: a preset, weights, a TOML file.")
    ] = "",
    shadow: Annotated[str, typer.Option(help="Policy that decides beside it and is only compared.")] = "",
    trace: Annotated[str, typer.Option(help="Finished workflows that predictors start from.")] = "",
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen.")] = 8000,
    api_key: Annotated[
        str, typer.Option(envvar="HEXOPT_API_KEY", help="What clients must send; needed beyond loopback.")
    ] = "",
    server_key: Annotated[
        str, typer.Option(envvar="HEXOPT_SERVER_KEY", help="What is sent to the servers as their API key.")
    ] = "",
    slo: Annotated[float, typer.Option(help="Seconds that a workflow gets whose client names no deadline.")] = 60.0,
    max_queue: Annotated[int, typer.Option(help="Calls that may wait; further ones get 429.")] = 10_000,
    retries: Annotated[int, typer.Option(help="Further attempts of a call that has not begun to be answered.")] = 2,
    queue_timeout: Annotated[float, typer.Option(help="Longest wait for an instance, seconds.")] = 600.0,
    stall_timeout: Annotated[float, typer.Option(help="Longest pause of a server in an answer, seconds.")] = 300.0,
    drain_timeout: Annotated[float, typer.Option(help="What running calls get at shutdown, seconds.")] = 60.0,
    workflow_idle: Annotated[float, typer.Option(help="A workflow without calls for so long has ended.")] = 300.0,
    store: Annotated[str, typer.Option(help="Database URL of finished stages and decisions; empty for none.")] = (
        "sqlite:///hexopt.db"
    ),
    tune: Annotated[
        str, typer.Option(help="Weights that would have done better: off, propose, or apply, with rollback.")
    ] = "off",
    tune_every: Annotated[float, typer.Option(help="--tune: seconds between searches.")] = 3600.0,
    tune_window: Annotated[float, typer.Option(help="--tune: seconds of recent traffic to search on.")] = 86_400.0,
    tune_objective: Annotated[
        str, typer.Option(help="--tune: what to improve, with commas: attainment, p95, cost.")
    ] = "attainment,p95",
    otel_endpoint: Annotated[str, typer.Option(help="OpenTelemetry collector (OTLP over HTTP); empty for none.")] = "",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Schedule real calls on real servers: an OpenAI-compatible gateway, a solver API, and a dashboard at /."""
    try:
        import uvicorn

        from hexopt.service.app import Application
        from hexopt.service.logs import configure
        from hexopt.service.process import Process
    except ImportError as error:
        raise ValueError(f"hexopt serve needs the extra hexopt[service]: {error}") from None
    from hexopt.cli import console
    from hexopt.cluster import load_cluster, refuse_roles
    from hexopt.policies import make_live_policy
    from hexopt.service.fleet import Server
    from hexopt.service.settings import ServiceSettings

    if log_level not in ("debug", "info", "warning", "error"):
        raise ValueError(f"--log-level {log_level}: expected debug, info, warning or error")
    settings = ServiceSettings(
        host=host,
        port=port,
        api_key=api_key,
        default_slo=slo,
        max_queue=max_queue,
        retries=retries,
        queue_timeout=queue_timeout,
        stall_timeout=stall_timeout,
        drain_timeout=drain_timeout,
        workflow_idle=workflow_idle,
        store=store,
        otel_endpoint=otel_endpoint,
        tune=tune,
        tune_every=tune_every,
        tune_window=tune_window,
        tune_objective=tune_objective,
    )
    if tune != "off":
        _check_tuning(tune_objective)
    fleet = load_cluster(cluster)
    refuse_roles(fleet, "hexopt serve")
    for instance in fleet.instances:
        if not instance.url:
            raise ValueError(f"{fleet.source}: instance {instance.name!r} has no url: say where its server is")
    active = make_live_policy(policy)
    if weights:
        active = _with_weights(active, weights)
    training = console.load_workflows(trace) if trace else []
    servers = [Server(i, i.url, server_key) for i in fleet.instances]
    application = Application(settings, servers, active, training, make_live_policy(shadow) if shadow else None)
    configure(log_level)
    console.note(f"Gateway, API and dashboard on http://{host}:{port} before {len(fleet)} instances ({active.label})")
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        log_level=logging.getLevelName(logging.WARNING).lower(),
        timeout_graceful_shutdown=max(int(drain_timeout), 1),
        server_header=False,
        limit_concurrency=None,
    )
    Process(application, config).run()


def _check_tuning(objective: str) -> None:
    """Refuse goals that are unknown, and to tune without Optuna, before anything starts."""
    from hexopt.tuning import Settings

    try:
        Settings(goals=tuple(objective.split(",")))
    except ValueError as error:
        raise ValueError(str(error).replace("--objective", "--tune-objective")) from None


def _with_weights(policy: object, weights: str) -> object:
    from dataclasses import replace

    from hexopt.policies.rolling_horizon import RollingHorizon

    if not isinstance(policy, RollingHorizon):
        raise ValueError("--weights belongs to --policy rolling-horizon")
    return replace(policy, objective=weights)
