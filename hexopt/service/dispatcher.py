"""The scheduler of the live service: the policies of the simulator over real calls.

Everything here runs in the event loop's thread, between two awaits, so the board is never seen half-changed. Calls that
come within one turn of the loop are decided together.
"""

# mypy: ignore-errors
from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hexopt.cluster import Cluster
from hexopt.models.lengths import empty_lengths, observe_output
from hexopt.models.online import OnlineState, empty_online
from hexopt.models.online import observe as observe_seconds
from hexopt.models.tails import empty_tails, observe_tail
from hexopt.objective import make_objective
from hexopt.policies import compiled
from hexopt.policies.compiled import PLANNER
from hexopt.policies.greedy_urgency import IMPOSED, appraise
from hexopt.policies.knowledge import believe
from hexopt.policies.policy import GreedyUrgency, Policy
from hexopt.service.beliefs import Kinds, training_of, workflow_tails
from hexopt.service.calls import Call, FinishedStage, LiveWorkflow
from hexopt.service.fleet import Server
from hexopt.service.live_board import candidates, enqueue, leave, leave_queue, progress, start, uncorrected_seconds
from hexopt.service.live_scheduler import LiveScheduler
from hexopt.service.prompts import CHUNK_TOKENS, TokenScale
from hexopt.service.receipts import Receipt, Receipts
from hexopt.service.solver_process import SolverProcess
from hexopt.service.workflows import Workflows
from hexopt.simulation.open_board import OpenBoard
from hexopt.simulation.simulator import fleet_of, instance_table
from hexopt.simulation.state import NONE
from hexopt.traces import Workflow

_log = logging.getLogger(__name__)

_LEAST_OUTPUT = 8
"""Output tokens from which a call's times correct the latency model."""


class Dispatcher:
    """Decides where and when every call goes.

    Parameters
    ----------
    servers
        The fleet to begin with.
    policy
        The active policy.
    workflows
        The live workflows.
    training
        Finished workflows that predictors start from; may be empty.
    clock
        Unix seconds.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        policy: Policy,
        workflows: Workflows,
        training: Sequence[Workflow] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.servers = list(servers)
        self.workflows = workflows
        self.receipts = Receipts()
        self.tokens = TokenScale()
        self.decision_seconds: Callable[[float], None] = lambda seconds: None
        self.decided: Callable[[Call], None] = lambda call: None
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._started = clock()
        self._numbers = itertools.count()
        self._kinds = Kinds(list(dict.fromkeys(s.kind for w in training for s in w.stages)))
        self._training = training_of(self._kinds, training, self.cluster)
        self._online: OnlineState = empty_online(len(self.servers))
        self._process: SolverProcess | None = None
        self._scheduler: LiveScheduler | None = None
        self._calls: dict[int, Call] = {}
        self._fresh: list[int] = []
        self._queues: list[list[tuple[float, int, Call]]] = []
        self._stirred = False
        self._timer: asyncio.TimerHandle | None = None
        self._service_seconds = 1.0
        self.running = 0
        """Calls that have been sent and not ended."""
        self.policy = policy
        self.shadow: Policy | None = None
        self.shadow_agreed = self.shadow_differed = 0
        self._lay_board()
        self.use(policy)

    # What it is asked.

    @property
    def waiting(self) -> int:
        """Calls that have not been sent."""
        return len(self._calls) - self.running

    @property
    def kinds(self) -> Sequence[str]:
        """Stage kinds seen so far."""
        return self._kinds.names

    @property
    def calls(self) -> Sequence[Call]:
        """All calls that wait or run."""
        return list(self._calls.values())

    @property
    def solver(self) -> SolverProcess | None:
        """The process that solves, where the policy plans."""
        return self._process

    @property
    def scheduler(self) -> LiveScheduler | None:
        """The planner, where the policy is one."""
        return self._scheduler

    @property
    def scale(self) -> list[float]:
        """Observed over predicted seconds of each instance."""
        return self._online.scale.tolist()

    def blocks(self, i: int) -> tuple[int, int]:
        """KV blocks of instance ``i`` as the board has them: free, and all."""
        row = self._board.sim.instance[i]
        return int(row["free"]), int(row["blocks"])

    def load(self, i: int) -> tuple[int, int]:
        """Calls running on and waiting for instance ``i``."""
        row = self._board.sim.instance[i]
        return int(row["running"]), int(row["waiting"])

    def backlog(self, i: int) -> float:
        """Seconds until all that instance ``i`` runs is predicted to have ended."""
        now = self._clock()
        ends = [c.receipt.predicted_finish for c in self._calls.values() if c.instance == i and c.receipt is not None]
        return max((end - now for end in ends if end - now > 0.0 and math.isfinite(end)), default=0.0)

    def slack_of(self, workflow: LiveWorkflow, now: float) -> float | None:
        """Predicted seconds to spare of a workflow, by its tightest open call; None while nothing of it is open."""
        stages = self._board.sim.stage
        slacks = []
        for call in workflow.open:
            if call.row == NONE:
                continue
            stage = stages[call.row]
            finish = call.receipt.predicted_finish if call.instance != NONE else now + self._service_seconds
            slacks.append(workflow.deadline - max(finish, now) - float(stage["tail"]))
        return min((s for s in slacks if math.isfinite(s)), default=None)

    def longest_context(self) -> int:
        """Tokens of the longest call that any instance can take, up or not."""
        return int(self._context.max())

    def any_up(self) -> bool:
        """Whether some instance takes calls."""
        return any(server.takes_calls for server in self.servers)

    def expected_wait(self) -> float:
        """Seconds that a newcomer would wait by and large: the queue through all seats, at the recent service time."""
        seats = sum(s.instance.max_num_seqs for s in self.servers if s.takes_calls)
        return self._service_seconds * (self.waiting + 1) / max(seats, 1)

    # Calls come and go.

    def predict(self, prompt: int, cached: int, output: int, company: float) -> list[tuple[float, float]]:
        """Seconds to the first token and to the last of a call on each instance, corrected by what was observed."""
        found = []
        for i in range(len(self.servers)):
            total, decode = uncorrected_seconds(
                self._board.sim, self._rule, i, float(prompt), float(cached), float(output), float(company)
            )
            scale = float(self._online.scale[i])
            found.append((scale * (total - decode), scale * total))
        return found

    def kind_number(self, name: str) -> int:
        """Number of a stage kind."""
        return self._kinds.number(name)

    def admit(self, call: Call) -> None:
        """Take a call in; its ``placed`` resolves when it may be sent."""
        self._put_on_board(call)
        self._fresh.append(call.row)
        self._stir()

    def appraise_only(self, call: Call) -> Receipt:
        """Where the call would go now; nothing is sent or kept."""
        self._put_on_board(call)
        try:
            now = self._clock()
            i = self._choose(call, now)
            call.reason = "dry run"
            return self._receipt(call, i, now)
        finally:
            self._forget(call)

    def first_token(self, call: Call) -> None:
        """The server has begun to answer; the board hears of it by :meth:`progressed`."""
        if math.isnan(call.first_token):
            call.first_token = self._clock()

    def progressed(self, call: Call, tokens: int) -> None:
        """The server has produced so many tokens so far."""
        progress(self._board.sim, call.row, tokens)

    def finish(self, call: Call, prompt_tokens: int, cached_tokens: int, output_tokens: int) -> None:
        """The call has ended well; ``prompt_tokens`` is 0 where the server did not say."""
        now = call.finish = self._clock()
        sim = self._board.sim
        if prompt_tokens > 0:
            self.tokens.observe(call.prompt, prompt_tokens)
            call.prompt_tokens = prompt_tokens
        else:
            cached_tokens = int(sim.stage[call.row]["cached"])
        if output_tokens > 0:
            observe_output(self._know.lengths, call.kind, float(call.prompt_tokens), float(output_tokens))
        self._learn_speed(call, cached_tokens, output_tokens, now)
        self._service_seconds += 0.05 * (now - call.dispatched - self._service_seconds)
        server = self.servers[call.instance]
        server.ended += 1
        stage = FinishedStage(
            call.context.stage or call.id, call.kind, call.occurrence, call.context.parents, call.prompt_tokens,
            cached_tokens, output_tokens, call.ready, now, server.name,
        )  # fmt: skip
        self.workflows.ended(call, stage, now)
        self._forget(call)
        self._stir()

    def give_up(self, call: Call) -> None:
        """The call has failed for good, or its client has gone."""
        if call.row == NONE:
            return
        self.workflows.lost(call, self._clock())
        self._forget(call)
        self._stir()

    def retry(self, call: Call) -> None:
        """The call's server failed it before anything was answered: it waits again, for another one."""
        leave(self._board.sim, call.row)
        self.running -= 1
        call.excluded.add(self.servers[call.instance].name)
        call.instance = NONE
        call.first_token = math.nan
        call.placed = self._loop.create_future()
        self._fresh.append(call.row)
        self._stir()

    # Workflows end.

    def learn_workflow(self, stages: Sequence[FinishedStage]) -> None:
        """Learn what followed each stage of a workflow that has ended."""
        if len(stages) == 1:
            observe_tail(self._know.tails, stages[0].kind, stages[0].occurrence, 0.0)
            return
        budget = float(self._board.sim.instance["max_batched"][0])
        for stage, tail in zip(stages, workflow_tails(stages, self._know, budget), strict=True):
            observe_tail(self._know.tails, stage.kind, stage.occurrence, tail)

    def open_workflow(self, arrival: float, deadline: float, weight: float, tenant: int) -> int:
        """A place on the board."""
        w = self._board.add_workflow(arrival, deadline, weight, tenant)
        self._know = _with_counts(self._know, w)
        if self.shadow is not None:
            self._shadow_know = _with_counts(self._shadow_know, w)
        return w

    def close_workflow(self, slot: int) -> None:
        """Give the place back."""
        self._board.remove_workflow(slot)

    # The fleet and the policy change.

    def fleet_changed(self) -> None:
        """An instance is up, down or draining, or reports other work: what waits may go elsewhere."""
        self._open_and_close()
        sim = self._board.sim
        for i, queue in enumerate(self._queues):
            if not self.servers[i].takes_calls:
                self._fresh += self._take_queue(sim, queue)
        if self._scheduler is not None:
            self._scheduler.forget_places()
        self._stir()

    def relay_board(self) -> None:
        """An instance was added or removed: the board is laid anew, and everything put back on it.

        Calls whose server is gone are the gateway's to retry; what the prefix caches hold is learned again.
        """
        running = [
            (call, self.servers_by_index[call.instance]) for call in self._calls.values() if call.instance != NONE
        ]
        calls = list(self._calls.values())
        for call in calls:
            call.instance = call.queued = NONE
        old_scale = dict(zip(self._names, self._online.scale.tolist(), strict=True))
        self._online = empty_online(len(self.servers))
        for i, server in enumerate(self.servers):
            self._online.scale[i] = old_scale.get(server.name, 1.0)
        self._calls.clear()
        self._fresh.clear()
        self._lay_board()
        self.use(self.policy)
        for workflow in self.workflows.all():
            workflow.slot = self.open_workflow(
                workflow.arrival, workflow.deadline, workflow.weight, self.workflows.tenant_number(workflow.tenant)
            )
        place = {server.name: i for i, server in enumerate(self.servers)}
        was = {call: server.name for call, server in running}
        for call in calls:
            self._put_on_board(call)
            name = was.get(call)
            if name is None:
                self._fresh.append(call.row)
            elif name in place:
                call.instance = place[name]
                start(self._board.sim, call.instance, call.row, call.dispatched)
        self._stir()

    def use(self, policy: Policy) -> None:
        """Switch the policy; what waits is decided anew, what was learned stays."""
        know = getattr(self, "_know", None)
        learned = self._training if know is None else _with_tallies(self._training, know)
        fleet = fleet_of(self.cluster)
        waiting = self._take_back()
        self._know = policy.prepare(fleet, learned, self._board.sim.workflow.shape[0])._replace(
            scale=self._online.scale
        )
        if know is not None:
            self._know = self._know._replace(lengths=know.lengths, tails=know.tails)
        self.policy = policy
        self._label = policy.label
        self._lay_rule(fleet, learned)
        self._scheduler = None
        if policy.code == PLANNER:
            if self._process is None:
                self._process = SolverProcess(policy.solver, self._loop)
            self._scheduler = LiveScheduler(policy, fleet, self._sent_by_planner, self._process, self._stir)
        self._fresh += waiting
        if self.shadow is not None:
            self.use_shadow(self.shadow)
        self._stir()

    def _lay_rule(self, fleet: Any, learned: Any) -> None:
        """What predictions and retries go by: greedy urgency, the policy's own where it is one."""
        if self.policy.code in (PLANNER, compiled.GREEDY_URGENCY):
            self._rule = self._know
            return
        know = GreedyUrgency().prepare(fleet, learned, 1)
        self._rule = know._replace(scale=self._online.scale, lengths=self._know.lengths, tails=self._know.tails)

    def use_shadow(self, policy: Policy | None) -> None:
        """Compare with a policy that only decides beside the active one."""
        if policy is not None and policy.code == PLANNER:
            # Call by call the planner decides as this rule does; a plan of its own needs stages of its own.
            objective = make_objective(policy.objective)
            policy = GreedyUrgency(objective.weights.imposed, True, objective.urgency, objective.lost)
        self.shadow = policy
        self._shadow_label = "" if policy is None else policy.label
        self.shadow_agreed = self.shadow_differed = 0
        if policy is not None:
            fleet = fleet_of(self.cluster)
            self._shadow_know = policy.prepare(fleet, self._training, self._board.sim.workflow.shape[0])._replace(
                lengths=self._know.lengths, tails=self._know.tails, scale=self._online.scale
            )

    def warm_up(self) -> None:
        """Run through every kernel once on calls of nobody, so that no request waits for a compiler."""
        sim, now = self._board.sim, self._clock()
        w = self.open_workflow(now, now + 60.0, 1.0, 0)
        rows = [self._board.add_stage(w, 0, 600, 10, (1, 2), k) for k in range(2)]
        for r in rows:
            believe(sim, self._know, r)
        for know, policy in ((self._know, self.policy), (self._rule, GreedyUrgency())):
            policy.place(sim, know, rows[0], now)
        appraise(sim, self._rule, rows[0], now, 0.0)
        if self._scheduler is not None:
            self._scheduler.rehearse(sim, self._know, now, rows)
        candidates(sim, self._rule, rows[0], now, np.empty((len(self.servers), 4)))
        for r in rows:
            enqueue(sim, 0, r)
            leave_queue(sim, r)
            start(sim, 0, r, now)
            progress(sim, r, 1)
            leave(sim, r)
            self._board.remove_stage(r)
        uncorrected_seconds(sim, self._rule, 0, 600.0, 0.0, 10.0, 2.0)
        observe_seconds(empty_online(1), 0, 1.0, 1.0)
        observe_output(empty_lengths(1), 0, 600.0, 10.0)
        observe_tail(empty_tails(1), 0, 0, 1.0)
        self.close_workflow(w)

    def close(self) -> None:
        """Stop solving."""
        if self._timer is not None:
            self._timer.cancel()
        if self._process is not None:
            self._process.close()

    # How it decides.

    def _stir(self) -> None:
        if not self._stirred:
            self._stirred = True
            self._loop.call_soon(self._decide)

    def _decide(self) -> None:
        self._stirred = False
        started = time.perf_counter()
        sim, now = self._board.sim, self._clock()
        sim.clock["now"] = now
        fresh, self._fresh = [r for r in self._fresh if r in self._calls], []
        if not self.any_up():
            self._fresh = fresh
            return
        try:
            self._decide_on(fresh, now)
        except Exception as error:
            # A fault of ours must not leave calls waiting for ever.
            _log.exception("deciding on %d calls failed", len(fresh))
            for r in fresh:
                call = self._calls.get(r)
                if call is not None and not call.placed.done():
                    call.placed.set_exception(RuntimeError(f"deciding failed: {error}"))
        self._pump(now)
        if fresh:
            self.decision_seconds(time.perf_counter() - started)

    def _decide_on(self, fresh: list[int], now: float) -> None:
        sim = self._board.sim
        retried = [r for r in fresh if self._calls[r].excluded]
        for r in retried:
            self._place_again(self._calls[r], now)
        fresh = [r for r in fresh if not self._calls[r].excluded]
        if self._scheduler is not None:
            if fresh or self._scheduler.waiting:
                self._plan(sim, fresh)
        else:
            for r in fresh:
                call = self._calls[r]
                i = self._choose(call, now)
                call.reason = self.policy.name
                self._enqueue(call, i)

    def _plan(self, sim: Any, fresh: list[int]) -> None:
        clock = sim.clock
        n = len(fresh)
        sim.ready[:n] = fresh
        clock["ready"], clock["ready_done"] = n, 0
        self._scheduler.decide(sim, self._know)
        clock["ready"] = clock["ready_done"] = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake = float(clock["wake"][0])
        if math.isfinite(wake):
            self._timer = self._loop.call_later(max(wake - self._clock(), 0.0), self._stir)

    def _sent_by_planner(self, sim: Any, r: int, i: int) -> None:
        call = self._calls[r]
        planned = self._scheduler.planned.pop(r, None)
        if planned is None:
            call.reason = "greedy urgency between solves"
        else:
            call.reason = f"plan of {planned.plan.solver}"
        # What fits nowhere may have been sent to a closed one.
        self._send(call, self._first_open(i), self._clock(), planned)

    def _choose(self, call: Call, now: float) -> int:
        """The policy's place for one call, decided at once."""
        return self._first_open(self.policy.place(self._board.sim, self._know, call.row, now)[0])

    def _first_open(self, i: int) -> int:
        """Instance ``i``, or the next that takes calls: policies that look at no lengths may choose a closed one."""
        for k in range(len(self.servers)):
            j = (i + k) % len(self.servers)
            if self.servers[j].takes_calls:
                return j
        return i

    def _place_again(self, call: Call, now: float) -> None:
        """Place a call that was failed, away from those that failed it, if there are others."""
        sim = self._board.sim
        barred = [i for i, s in enumerate(self.servers) if s.name in call.excluded and s.takes_calls]
        if len(barred) == sum(s.takes_calls for s in self.servers):
            barred = []
        lengths = sim.instance["max_len"].copy()
        sim.instance["max_len"][barred] = 0
        code = compiled.GREEDY_URGENCY
        i = int(compiled.place(code, sim, self._rule, call.row, now))
        sim.instance["max_len"] = lengths
        if i in barred or not self.servers[i].takes_calls:
            i = next((k for k, s in enumerate(self.servers) if s.takes_calls and k not in barred), i)
        call.reason = "retry"
        self._enqueue(call, i)

    def _enqueue(self, call: Call, i: int) -> None:
        sim = self._board.sim
        rank = float(sim.stage[call.row]["priority"]) if self.policy.by_priority else 0.0
        enqueue(sim, i, call.row)
        call.queued = next(self._numbers)
        heapq.heappush(self._queues[i], (rank, call.queued, call))

    def _pump(self, now: float) -> None:
        """Send what its instance can admit, in the order of its queue."""
        sim = self._board.sim
        for i, queue in enumerate(self._queues):
            instance = sim.instance[i]
            while queue and self.servers[i].takes_calls:
                _, number, call = queue[0]
                if call.queued != number:
                    heapq.heappop(queue)
                    continue
                stage = sim.stage[call.row]
                needed = -(-int(stage["prompt"]) // int(instance["block_size"]))
                if instance["running"] > 0 and (
                    instance["running"] >= instance["max_seqs"] or instance["free"] < needed
                ):
                    break
                heapq.heappop(queue)
                call.queued = NONE
                leave_queue(sim, call.row)
                self._send(call, i, now, None)

    def _send(self, call: Call, i: int, now: float, planned: Any) -> None:
        sim = self._board.sim
        call.receipt = self._receipt(call, i, now)
        call.receipt.planned = planned
        self.receipts.add(call.receipt)
        start(sim, i, call.row, now)
        call.instance = i
        self.running += 1
        call.dispatched = now
        call.company = float(sim.instance[i]["running"])
        call.attempts += 1
        self.servers[i].sent += 1
        if self.policy.by_priority and self.servers[i].takes_priority and call.doubted is None:
            call.priority = int(1000.0 * (float(sim.stage[call.row]["priority"]) - self._started))
        else:
            call.priority = None
        self.decided(call)
        if not call.placed.done():
            call.placed.set_result(i)

    def _receipt(self, call: Call, i: int, now: float) -> Receipt:
        sim = self._board.sim
        stage = sim.stage[call.row]
        if stage["urgency"] == 0.0:
            priority = float(stage["priority"])
            appraise(sim, self._rule, call.row, now, float(stage["tail"]))
            stage["priority"] = priority
        figures = np.empty((len(self.servers), 4))
        candidates(sim, self._rule, call.row, now, figures)
        shadow = None
        if self.shadow is not None:
            kept = sim.stage[call.row].copy()
            s = self._first_open(self.shadow.place(sim, self._shadow_know, call.row, now)[0])
            sim.stage[call.row] = kept
            shadow = (self._shadow_label, self.servers[s].name)
            self.shadow_agreed += s == i
            self.shadow_differed += s != i
        return Receipt(
            id=call.id,
            time=now,
            workflow=call.workflow.id,
            stage=call.context.stage or call.id,
            kind=call.context.kind,
            policy=self._label,
            reason=call.reason,
            chosen=i,
            instances=tuple((s.name, "" if s.takes_calls else s.state.value) for s in self.servers),
            figures=figures,
            urgency=float(stage["urgency"]),
            imposed_weight=float(self._rule.weights[IMPOSED]),
            prompt_tokens=call.prompt_tokens,
            expected_output=float(stage["expected_output"]),
            tail=float(stage["tail"]),
            deadline=call.workflow.deadline,
            waited=now - call.ready,
            shadow=shadow,
        )

    # The board.

    @property
    def servers_by_index(self) -> list[Server]:
        """The servers as the present board numbers them."""
        return self._laid

    @property
    def cluster(self) -> Cluster:
        """The fleet of the moment."""
        return Cluster("live", tuple(server.instance for server in self.servers))

    def _lay_board(self) -> None:
        table = instance_table(self.cluster, True)
        self._context = table["max_len"].copy()
        self._seats = table["max_seqs"].copy()
        self._laid = list(self.servers)
        self._names = [server.name for server in self.servers]
        self._board = OpenBoard(table, fleet_of(self.cluster).coef, nodes=8192, chunk_tokens=CHUNK_TOKENS)
        self._queues = [[] for _ in self.servers]
        self._scheduler = None
        self._open_and_close()

    def _open_and_close(self) -> None:
        """Nothing fits an instance that takes no calls; seats that others' calls have are not ours."""
        instance = self._board.sim.instance
        for i, server in enumerate(self.servers):
            instance["max_len"][i] = self._context[i] if server.takes_calls else 0
            others = max(server.reported.get("foreign", 0.0), 0.0)
            instance["max_seqs"][i] = max(self._seats[i] - int(others), 1)

    def _put_on_board(self, call: Call) -> None:
        longest = self.longest_context()
        # An estimate must not turn a call away: whether it fits is the server's to say.
        output = min(call.max_tokens, longest - 1)
        prompt = max(min(call.prompt_tokens, longest - output), 1)
        chunks = call.prompt.chunks[: prompt // CHUNK_TOKENS]
        call.row = self._board.add_stage(call.workflow.slot, call.kind, prompt, output, chunks, call.occurrence)
        stage = self._board.sim.stage[call.row]
        stage["told_output"] = call.context.expected_output or 0
        stage["told_final"] = call.context.final
        stage["ready"] = call.ready
        believe(self._board.sim, self._know, call.row)
        if 0 < call.max_tokens < float(stage["expected_output"]):
            stage["told_output"] = stage["expected_output"] = call.max_tokens
        self._calls[call.row] = call

    def _forget(self, call: Call) -> None:
        sim = self._board.sim
        r = call.row
        if call.instance != NONE:
            leave(sim, r)
            self.running -= 1
        elif call.queued != NONE:
            leave_queue(sim, r)
            call.queued = NONE
        if self._scheduler is not None:
            self._scheduler.forget(r)
        del self._calls[r]
        if r in self._fresh:
            self._fresh.remove(r)
        self._board.remove_stage(r)
        call.row = call.instance = NONE

    def _take_back(self) -> list[int]:
        """What waits in queues or with the planner, to be decided anew."""
        waiting = []
        for queue in self._queues:
            waiting += self._take_queue(self._board.sim, queue)
        if self._scheduler is not None:
            waiting += self._scheduler.release_all()
        return waiting

    def _take_queue(self, sim: Any, queue: list[tuple[float, int, Call]]) -> list[int]:
        waiting = [call for _, number, call in queue if call.queued == number]
        queue.clear()
        for call in waiting:
            call.queued = NONE
            leave_queue(sim, call.row)
        return [call.row for call in waiting]

    def _learn_speed(self, call: Call, cached: int, output: int, now: float) -> None:
        if output < _LEAST_OUTPUT:
            return
        sim = self._board.sim
        company = (call.company + float(sim.instance[call.instance]["running"])) / 2.0
        total, decode = uncorrected_seconds(
            sim, self._rule, call.instance, float(call.prompt_tokens), float(cached), float(output), company
        )
        if math.isnan(call.first_token):
            observe_seconds(self._online, call.instance, total, now - call.dispatched)
        else:
            observe_seconds(self._online, call.instance, decode, now - call.first_token)


def _with_counts(know: Any, w: int) -> Any:
    """Knowledge with room for workflow ``w``, of which no call was counted yet."""
    counts = know.counts
    if counts.shape[0] == 0:
        return know
    if w >= counts.shape[0]:
        counts = np.vstack([counts, np.zeros((w + 1, counts.shape[1]), counts.dtype)])
        know = know._replace(counts=counts)
    counts[w] = 0
    return know


def _with_tallies(training: Any, know: Any) -> Any:
    from dataclasses import replace

    return replace(training, lengths=know.lengths, tails=know.tails)
