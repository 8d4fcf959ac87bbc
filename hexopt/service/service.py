"""Everything that the service is made of, put together and taken apart."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import aiohttp

from hexopt.cluster import Instance
from hexopt.policies.policy import Policy
from hexopt.service.calls import Call, FinishedStage
from hexopt.service.dispatcher import Dispatcher
from hexopt.service.fleet import Server, State, answered, failed
from hexopt.service.gateway import Gateway
from hexopt.service.health import Monitor
from hexopt.service.recording import decision_record, stage_record
from hexopt.service.settings import ServiceSettings
from hexopt.service.store import Store
from hexopt.service.telemetry import Telemetry
from hexopt.service.tracing import Tracing
from hexopt.service.tuning import Tuner
from hexopt.service.workflows import EndedWorkflow, Workflows
from hexopt.traces import Workflow

_log = logging.getLogger(__name__)

_TICK = 1.0
"""Seconds between two looks for workflows that have gone idle."""


class Service:
    """The running service.

    Parameters
    ----------
    settings
        How it runs.
    servers
        The fleet to begin with.
    policy
        The active policy.
    training
        Finished workflows that predictors start from; may be empty.
    shadow
        Policy to compare with.
    """

    dispatcher: Dispatcher
    gateway: Gateway

    def __init__(
        self,
        settings: ServiceSettings,
        servers: Sequence[Server],
        policy: Policy,
        training: Sequence[Workflow] = (),
        shadow: Policy | None = None,
    ) -> None:
        self.settings = settings
        self.started = time.time()
        self.workflows = Workflows(settings.default_slo, settings.workflow_idle)
        self.telemetry = Telemetry(self._gauges)
        self.store = Store(settings.store) if settings.store else None
        self.tracing = Tracing(settings.otel_endpoint) if settings.otel_endpoint else None
        self._servers = list(servers)
        self._policy = policy
        self._shadow = shadow
        self._training = training
        self._ticker: asyncio.Task[None] | None = None
        self.tuner: Tuner | None = None

    async def start(self) -> None:
        """Begin: solver, client, health checks."""
        # Shorter than vLLM's own 5 s: nothing is sent into a connection that is being closed.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0, ttl_dns_cache=300)
        self.session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        )
        dispatcher = self.dispatcher = Dispatcher(self._servers, self._policy, self.workflows, self._training)
        dispatcher.decided = self._decided
        dispatcher.decision_seconds = self.telemetry.decision_took
        self.workflows.open_slot = dispatcher.open_workflow
        self.workflows.close_slot = dispatcher.close_workflow
        self.workflows.ended_hook = self._workflow_ended
        dispatcher.use_shadow(self._shadow)
        dispatcher.warm_up()
        self.gateway = Gateway(
            self.settings, dispatcher, self.workflows, self.session, self.telemetry, self._server_failed, self._finished
        )
        self.monitor = Monitor(
            self.session, self._server_changed, self._busy, self.settings.health_every, self.settings.health_patience
        )
        # Calls may come at once: who is up should be known.
        await asyncio.gather(*(self.monitor.check(server) for server in dispatcher.servers))
        self.monitor.watch(dispatcher.servers)
        if self.settings.tune != "off":
            self.tuner = Tuner(
                self.settings, lambda: dispatcher.policy, dispatcher.use, lambda: dispatcher.cluster, self.workflows
            )
            self.tuner.start()
        self._ticker = asyncio.create_task(self._tick(), name="workflows")

    def drain_all(self) -> None:
        """Take no more calls; those that are here may end."""
        if hasattr(self, "gateway"):
            self.gateway.draining = True

    async def stop(self) -> None:
        """End: what is known is written down."""
        if self._ticker is not None:
            self._ticker.cancel()
        if self.tuner is not None:
            self.tuner.close()
        self.monitor.close()
        self.dispatcher.close()
        await self.session.close()
        if self.store is not None:
            await asyncio.to_thread(self.store.close)
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)

    @property
    def draining(self) -> bool:
        """Whether no more calls are taken."""
        return hasattr(self, "gateway") and self.gateway.draining

    @property
    def ready(self) -> bool:
        """Whether calls can be served."""
        return not self.gateway.draining and self.dispatcher.any_up()

    # The fleet.

    def add(self, instance: Instance, url: str, api_key: str = "") -> Server:
        """A further server; calls go there once its health answers.

        Raises
        ------
        ValueError
            If there is one of that name.
        """
        if any(server.name == instance.name for server in self.dispatcher.servers):
            raise ValueError(f"instance {instance.name!r} exists already")
        server = Server(instance, url.rstrip("/"), api_key)
        self.dispatcher.servers.append(server)
        self.dispatcher.relay_board()
        self.monitor.watch(self.dispatcher.servers)
        return server

    def drain(self, server: Server) -> None:
        """Let ``server`` finish what it has."""
        server.state, server.reason = State.DRAINING, "drained by an operator"
        self.dispatcher.fleet_changed()

    def resume(self, server: Server) -> None:
        """Undo :meth:`drain`."""
        if server.state is State.DRAINING:
            server.state, server.reason = State.STARTING, ""

    def remove(self, server: Server) -> None:
        """Forget ``server``.

        Raises
        ------
        ValueError
            If it still has calls, or is the last one.
        """
        if self._busy(server):
            raise ValueError(f"instance {server.name!r} still has {self._busy(server)} calls: drain it first")
        if len(self.dispatcher.servers) == 1:
            raise ValueError(f"instance {server.name!r} is the last one")
        self.dispatcher.servers.remove(server)
        self.dispatcher.relay_board()
        self.monitor.watch(self.dispatcher.servers)

    def server(self, name: str) -> Server | None:
        """The server of that name."""
        return next((server for server in self.dispatcher.servers if server.name == name), None)

    # What happens.

    def _busy(self, server: Server) -> int:
        if server not in self.dispatcher.servers_by_index:
            return 0
        return self.dispatcher.load(self.dispatcher.servers_by_index.index(server))[0]

    def _server_failed(self, server: Server, reason: str, at_once: bool) -> None:
        server.errors += 1
        if failed(server, reason, time.monotonic(), at_once):
            _log.warning("%s (%s) is down: %s", server.name, server.url, reason)
            self._server_changed(server)

    def _server_changed(self, server: Server) -> None:
        self.dispatcher.fleet_changed()
        if server.state is State.DOWN:
            self.gateway.interrupt(server)

    def _decided(self, call: Call) -> None:
        self.telemetry.decided(call)

    def _workflow_ended(self, ended: EndedWorkflow, stages: list[FinishedStage]) -> None:
        self.telemetry.workflow_ended(ended.met)
        self.dispatcher.learn_workflow(stages)
        if self.tuner is not None:
            self.tuner.workflow_ended(ended)

    def _finished(self, call: Call, status: str, output: int, cached: int) -> None:
        end = call.finish if status == "ok" else time.time()
        self.telemetry.ended(call, status)
        receipt = call.receipt
        name = receipt.instances[receipt.chosen][0] if receipt is not None else ""
        server = self.server(name)
        if status == "ok" and server is not None:
            answered(server)
        if receipt is not None and receipt.planned is not None:
            self.telemetry.solved(receipt.planned.plan.seconds, receipt.planned.plan.gap)
        if self.tracing is not None:
            self.tracing.ended(call, status, end, output, name, server.url if server is not None else "")
        if self.store is not None:
            self.store.put(stage_record(call, status, end, output, cached, server))
            if receipt is not None:
                self.store.put(decision_record(receipt))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self.workflows.end_idle(time.time())
            if self.tuner is not None:
                self.tuner.tick(time.time())

    # What it says of itself.

    def _gauges(self) -> Iterable[tuple[str, str, list[str], list[tuple[list[str], float]]]]:
        dispatcher = self.dispatcher
        servers = list(enumerate(dispatcher.servers))
        yield "hexopt_calls_waiting", "Calls that wait to be sent", [], [([], dispatcher.waiting)]
        yield (
            "hexopt_calls_running",
            "Calls sent and not ended",
            ["instance"],
            [([s.name], dispatcher.load(i)[0]) for i, s in servers],
        )
        yield (
            "hexopt_instance_up",
            "Whether calls are sent there",
            ["instance"],
            [([s.name], float(s.takes_calls)) for _, s in servers],
        )
        yield (
            "hexopt_prediction_scale_ratio",
            "Observed over predicted seconds",
            ["instance"],
            [([s.name], scale) for (_, s), scale in zip(servers, dispatcher.scale, strict=True)],
        )
        yield "hexopt_workflows_alive", "Workflows that have not ended", [], [([], len(self.workflows))]
        attainment = self.workflows.attainment()
        if not math.isnan(attainment):
            yield "hexopt_workflow_attainment_ratio", "Share of recent workflows in time", [], [([], attainment)]
        if dispatcher.solver is not None:
            tally = dispatcher.solver.tally
            yield "hexopt_solves_total", "Problems handed to the solver process, by outcome", ["outcome"], [
                (["solved"], tally.solved), (["failed"], tally.failed), (["late"], tally.late)
            ]  # fmt: skip
            yield "hexopt_solver_deaths_total", "Times that the solver process died", [], [([], tally.deaths)]
        if dispatcher.shadow is not None:
            yield "hexopt_shadow_decisions_total", "Decisions of the shadow policy", ["same"], [
                (["true"], dispatcher.shadow_agreed), (["false"], dispatcher.shadow_differed)
            ]  # fmt: skip
        if self.tuner is not None:
            outcomes = self.tuner.outcomes
            yield "hexopt_tuning_proposals_total", "Proposals of weights, by what became of them", ["state"], [
                ([state.replace(" ", "_")], outcomes[state])
                for state in ("proposed", "applied", "kept", "rolled back", "dismissed", "superseded")
            ]  # fmt: skip
        if self.store is not None:
            stats = self.store.stats
            yield "hexopt_store_rows_total", "Rows for the store, by outcome", ["outcome"], [
                (["written"], stats.written), (["dropped"], stats.dropped), (["failed"], stats.failed)
            ]  # fmt: skip
            yield "hexopt_store_pending_rows", "Rows that wait to be written", [], [([], stats.pending)]
            yield "hexopt_store_degraded", "Whether the store cannot write", [], [([], float(stats.degraded))]

    def state(self, limit: int = 200) -> dict[str, Any]:
        """All that a dashboard shows, for JSON."""
        from hexopt.service.state import state_of

        return state_of(self, limit)
