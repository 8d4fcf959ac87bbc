"""The rule of ``docs/simulated-instance.md`` carried out one engine step at a time, to test the engine that jumps.

Written from that page alone, for reading rather than for speed: lists and dicts, no closed forms, and every invariant
is asserted after every change. Where the page leaves a choice, the comment at that place names the reading taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hexopt.models.roofline import step_seconds

ANONYMOUS = -1
"""In the free queue: blocks that hold nothing that can be found again."""


@dataclass(frozen=True)
class OracleNode:
    """A run of tokens that continues its parent's (-1: starts at token zero) and ends before ``end_tokens``."""

    parent: int
    end_tokens: int


@dataclass(frozen=True)
class OracleStage:
    """One call, on an instance chosen beforehand.

    Ready at ``max(arrival, finish of the parents) + tool_delay`` seconds. ``path_leaf`` is the deepest node of the
    path that covers its sharable tokens, prompt and quoted output alike; -1 where nothing is shared. A prefill
    instance hands it over to ``decode_at``, -1: to the freest; ``expected_output`` is what is then reserved.
    """

    prompt: int
    output: int
    path_leaf: int = -1
    priority: float = 0.0
    arrival: float = 0.0
    parents: tuple[int, ...] = ()
    tool_delay: float = 0.0
    instance: int = 0
    decode_at: int = -1
    expected_output: int = 1
    workflow: int = 0
    pin: float = 0.0
    """Seconds after its end for which its contents stay pinned."""


@dataclass(frozen=True)
class OracleMove:
    """At ``when`` stage ``stage`` sets out for instance ``to``, if it decodes then and nothing else moves away."""

    when: float
    stage: int
    to: int


@dataclass(frozen=True)
class OracleHost:
    """Host memory; ``token_bytes`` and ``parts`` (layers times two) are what a copy's seconds come from."""

    blocks: int
    token_bytes: float = 131072.0
    parts: int = 64
    call_seconds: float = 10e-6
    bandwidth: float = 32e9
    group: bool = False
    overlap: bool = False
    reuse: bool = False
    keep: bool = False

    def seconds(self, tokens: int, block: int) -> float:
        """Seconds of copying ``tokens``."""
        chunk = tokens if self.group else block
        calls = math.ceil(tokens / chunk) * self.parts if tokens else 0
        return calls * max(self.call_seconds, chunk * self.token_bytes / self.parts / self.bandwidth)


@dataclass(frozen=True)
class OracleRule:
    """An admission rule."""

    rule: str
    share: float = 0.97
    every: int = 10
    max_prefill: int = 32768
    max_new: int = 4096
    window: int = 1000


class OracleRandom:
    """splitmix64."""

    def __init__(self, state: int) -> None:
        self.state = state

    def draw(self) -> float:
        """Uniform in [0, 1)."""
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return ((z ^ (z >> 31)) >> 11) / (1 << 53)


@dataclass(frozen=True)
class OracleConfig:
    """One instance: ``coef`` as :func:`hexopt.models.roofline.step_seconds` takes it, KV memory and vLLM's limits."""

    coef: Sequence[float]
    blocks: int
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    scheduling: str = "fcfs"
    prefix_caching: bool = True
    host: OracleHost | None = None
    admission: OracleRule | None = None
    redraw_every: int = 0
    redraw_keep: float = 0.0
    role: str = "mixed"
    preempted_first: bool = False

    def __post_init__(self) -> None:
        assert self.scheduling in ("fcfs", "priority"), f"scheduling must be fcfs or priority, not {self.scheduling}"
        assert self.role in ("mixed", "prefill", "decode"), f"role must be mixed, prefill or decode, not {self.role}"
        assert min(self.blocks, self.block_size, self.max_num_seqs, self.max_num_batched_tokens) > 0


@dataclass(frozen=True)
class OracleEvent:
    """From ``when`` on instance ``instance`` is up, or down; down it loses its memory and its calls begin anew."""

    when: float
    instance: int
    up: bool


@dataclass(frozen=True)
class OracleOutcome:
    """What became of a stage: times in seconds, prefix tokens found at its first admission, preemptions.

    ``handed`` is when a prefill instance handed it over, NaN where none did; ``decoded_at`` where it ended. Times and
    tokens are those of the attempt that ended, preemptions those of all.
    """

    start: float
    first_token: float
    finish: float
    cached_tokens: int
    preemptions: int
    migrations: int = 0
    handed: float = math.nan
    decoded_at: int = 0


@dataclass(frozen=True)
class OracleStep:
    """One engine step: (stage, computed before, new tokens, decodes) of each scheduled stage, in order."""

    start: float
    seconds: float
    scheduled: tuple[tuple[int, int, int, bool], ...]
    preempted: tuple[int, ...]


class OracleStall(RuntimeError):
    """Stages wait, none runs, and the head of the queue does not fit."""


@dataclass
class _Call:
    """A stage's state on its instance."""

    stage: int
    prompt: int
    output: int
    path: list[int]
    priority: float
    sequence: int
    generated: int = 0
    computed: int = 0
    held: int = 0
    nodes_held: list[int] = field(default_factory=list)
    """Root first."""
    in_nodes: int = 0
    """How many of the held blocks belong to nodes; they are its first ones."""
    filling: bool = False
    on_host: int = 0
    start: float = math.nan
    first_token: float = math.nan
    cached_tokens: int = -1
    preemptions: int = 0
    handed: float = math.nan
    brought: int = 0
    """Tokens of KV that have come along from a prefill instance and wait for their blocks here."""
    reserved: int = 0
    """Blocks promised on the decode instance."""
    migrations: int = 0
    workflow: int = 0
    arrival: float = 0.0
    pin: float = 0.0
    leaf: int = -1

    @property
    def tokens(self) -> int:
        return self.prompt + self.generated

    @property
    def key(self) -> tuple[float, int]:
        return (self.priority, self.sequence)

    @property
    def private(self) -> int:
        return self.held - self.in_nodes


@dataclass
class _Pin:
    """Nodes that an ended stage keeps held."""

    stage: int
    workflow: int
    arrival: float
    nodes: list[int]
    until: float

    @property
    def nodes_held(self) -> list[int]:
        return self.nodes


@dataclass
class _Move:
    """A call that is copied while it runs."""

    call: _Call
    to: OracleInstance
    copies: int = 0
    copied: int = 0
    reserved: int = 0
    until: float = 0.0


class OracleCache:
    """The KV blocks of one instance: the free queue and the nodes' cached blocks and holders."""

    def __init__(self, nodes: Sequence[OracleNode], blocks: int, block_size: int) -> None:
        self.nodes = nodes
        self.blocks = blocks
        self.block_size = block_size
        self.cached = [0] * len(nodes)
        self.holders = [0] * len(nodes)
        # Front first, [node or ANONYMOUS, blocks].
        self.free_queue: list[list[int]] = [[ANONYMOUS, blocks]]

    def path(self, leaf: int) -> list[int]:
        """Nodes from the root to ``leaf``."""
        path: list[int] = []
        while leaf >= 0:
            path.append(leaf)
            leaf = self.nodes[leaf].parent
        return path[::-1]

    def first_block(self, node: int) -> int:
        """Number of the node's first block, counted from the start of the content."""
        parent = self.nodes[node].parent
        return 0 if parent < 0 else self.nodes[parent].end_tokens // self.block_size

    def size(self, node: int) -> int:
        """Blocks whose last token lies in the node."""
        return self.nodes[node].end_tokens // self.block_size - self.first_block(node)

    def free(self) -> int:
        """Free blocks."""
        return sum(count for _, count in self.free_queue)

    def find(self, path: Sequence[int], limit: int) -> list[tuple[int, int]]:
        """(node, found blocks) from the root on; every node with at least one block found."""
        found: list[tuple[int, int]] = []
        for node in path:
            here = min(self.cached[node], limit)
            limit -= here
            # A node without blocks of its own has nothing to be found, held or filled: it is passed through.
            if here > 0:
                found.append((node, here))
            if here < self.size(node):
                break
        return found

    def taken_by_holding(self, nodes: Sequence[int]) -> int:
        """Blocks that leave the free queue when a stage takes hold of these nodes."""
        return sum(self.cached[node] for node in nodes if self.holders[node] == 0)

    def hold(self, node: int) -> None:
        """One holder more: the node leaves the free queue with all of its cached blocks."""
        if self.holders[node] == 0 and self.cached[node] > 0:
            self.free_queue.remove([node, self.cached[node]])
        self.holders[node] += 1

    def drop(self, node: int) -> None:
        """One holder less: the last one sends the node to the back of the free queue."""
        self.holders[node] -= 1
        assert self.holders[node] >= 0
        if self.holders[node] == 0:
            self.free_queue.append([node, self.cached[node]])

    def release_anonymous(self, count: int) -> None:
        """Blocks without content to find again, to the back."""
        if count == 0:
            return
        if self.free_queue and self.free_queue[-1][0] == ANONYMOUS:
            self.free_queue[-1][1] += count
        else:
            self.free_queue.append([ANONYMOUS, count])

    def allocate(self, count: int) -> None:
        """Take blocks from the front, a node's last ones first."""
        for _ in range(count):
            front = self.free_queue[0]
            front[1] -= 1
            if front[0] != ANONYMOUS:
                self.cached[front[0]] -= 1
            if front[1] == 0:
                self.free_queue.pop(0)

    def fill(self, call: _Call, full_blocks: int) -> None:
        """Credit the stage's blocks up to ``full_blocks`` to the nodes of its path."""
        while call.filling and call.in_nodes < full_blocks:
            block = call.in_nodes
            owners = [v for v in call.path if self.first_block(v) <= block < self.first_block(v) + self.size(v)]
            if not owners:
                call.filling = False
                return
            (node,) = owners
            if node not in call.nodes_held:
                # Entered with its first full block: a part of a block has no hash that would keep others out.
                if self.holders[node] > 0 or self.cached[node] > 0:
                    call.filling = False
                    return
                self.hold(node)
                call.nodes_held.append(node)
            assert self.cached[node] == block - self.first_block(node)
            self.cached[node] += 1
            call.in_nodes += 1

    def check(self, running: Sequence[_Call], pins: Sequence[_Pin], reserved: int) -> None:
        """Assert that no block is lost or counted twice; ``reserved`` are allocated for calls on their way here."""
        assert all(count > 0 for _, count in self.free_queue)
        queued = [node for node, _ in self.free_queue if node != ANONYMOUS]
        assert len(set(queued)) == len(queued)
        for node, count in self.free_queue:
            assert node == ANONYMOUS or count == self.cached[node]
        in_use = 0
        for node, cached in enumerate(self.cached):
            assert 0 <= cached <= self.size(node)
            assert self.holders[node] == sum(node in x.nodes_held for x in [*running, *pins])
            assert (node in queued) == (self.holders[node] == 0 and cached > 0)
            if self.holders[node] > 0:
                in_use += cached
                assert cached > 0
            if cached > 0:
                assert all(self.cached[v] == self.size(v) for v in self.path(node)[:-1])
        private = 0
        for call in running:
            assert call.private >= 0
            assert call.nodes_held == [v for v in call.path if v in call.nodes_held]
            assert call.in_nodes <= sum(self.cached[v] for v in call.nodes_held)
            private += call.private
        assert self.free() + in_use + private + reserved == self.blocks


class OracleInstance:
    """One simulated vLLM V1 engine, one step at a time.

    ``arrive`` stages, then alternate ``start_step`` (None: nothing to do) and ``end_step``. After a step, ``leaving``
    are the calls whose KV is on its way elsewhere: ``let_go`` frees it here, ``welcome`` takes them in there.
    """

    def __init__(self, config: OracleConfig, nodes: Sequence[OracleNode] = (), number: int = 1) -> None:
        self.config = config
        self.number = number - 1
        self.random = OracleRandom(number)
        self.leaving: list[_Call] = []
        self.promised = 0
        self.here: list[_Call] = []
        """In the order of their arrival."""
        self.loading: list[tuple[float, _Call]] = []
        """When their copies from host memory are done."""
        self.link_free = 0.0
        self.stall = 0.0
        rule = config.admission
        self.history = [512] * (rule.window // 2) if rule else []
        self.since_look = rule.every if rule else 0
        self.since_redraw = 0
        self.coef = np.asarray(config.coef, dtype=np.float64)
        self.cache = OracleCache(nodes, config.blocks, config.block_size)
        self.running: list[_Call] = []
        self.waiting: list[_Call] = []
        self.steps: list[OracleStep] = []
        self.outcomes: dict[int, OracleOutcome] = {}
        self.ended: dict[int, _Call] = {}
        self.kept: dict[int, int] = {}
        """Blocks of ended stages that host memory keeps."""
        self._arrived = 0
        self._prepended = 0
        self._scheduled: dict[int, tuple[_Call, int]] = {}
        self.past: dict[int, tuple[int, int]] = {}
        """Shared by all instances: preemptions and migrations of stages that were lost."""
        self.up = True
        self.touched = False
        """Something has happened that may let it do more."""
        self.pins: list[_Pin] = []
        self.move: _Move | None = None
        self.joining: list[_Call] = []
        self.leaving: list[_Call] = []
        """Paused, their last copy under way: their blocks are still here."""
        self.reserved = 0
        """Blocks of calls on their way here."""
        self.link_seconds: Sequence[float] = ()
        """Of a token to each instance."""
        self.transit: list[tuple[float, _Call, OracleInstance, OracleInstance, int]] = []
        """Shared by all instances: when each paused call arrives, from where, to where, in how many blocks."""

    def fail(self) -> list[int]:
        """Go down: nothing is cached any more; the stages that were here, the lowest number first."""
        self.cache = OracleCache(self.cache.nodes, self.config.blocks, self.config.block_size)
        if self.move is not None:
            self.give_up()
        self.reserved = 0
        self.pins.clear()
        self.kept.clear()
        lost = self.turn_away()
        self.loading.clear()
        self.link_free = self.stall = 0.0
        self.since_look = self.config.admission.every if self.config.admission else 0
        self.since_redraw = 0
        self.running.clear()
        self.joining.clear()
        self._scheduled.clear()
        self.up = False
        return lost

    def turn_away(self) -> list[int]:
        """Forget all stages that are here; the lowest number first."""
        here, self.here = self.here, []
        for call in here:
            self.past[call.stage] = (call.preemptions, call.migrations)
        self.waiting.clear()
        return sorted(call.stage for call in here)

    def arrive(self, stage: int, spec: OracleStage) -> None:
        """Put a stage into the waiting queue."""
        assert spec.prompt >= 1 and spec.output >= 1
        assert self._blocks(spec.prompt + spec.output - 1) <= self.config.blocks, f"stage {stage} can never fit"
        path = self.cache.path(spec.path_leaf) if self.config.prefix_caching else []
        assert not path or self.cache.nodes[path[-1]].end_tokens <= spec.prompt + spec.output
        priority = spec.priority if self.config.scheduling == "priority" else 0.0
        call = _Call(stage, spec.prompt, spec.output, path, priority, self._arrived)
        call.workflow, call.arrival, call.pin, call.leaf = spec.workflow, spec.arrival, spec.pin, spec.path_leaf
        call.preemptions, call.migrations = self.past.get(stage, (0, 0))
        if self.config.redraw_every and self.config.scheduling == "priority":
            call.priority = self.random.draw()
        self._arrived += 1
        self.here.append(call)
        self.waiting.append(call)

    def blocks_expected(self, call: _Call, expected_output: int) -> int:
        """Blocks to reserve for a call that has its first token."""
        return self._blocks(call.prompt + max(expected_output, call.generated + 1))

    def let_go(self, call: _Call) -> None:
        """Free the KV of a call that has arrived elsewhere."""
        self.leaving.remove(call)
        self._release(call)
        call.brought, call.computed = call.computed, 0
        self._check()

    def welcome(self, call: _Call, path_leaf: int) -> None:
        """Queue a call whose KV has arrived with it."""
        assert self.config.role == "decode" and call.brought == call.prompt and call.generated == 1
        call.path = self.cache.path(path_leaf) if self.config.prefix_caching else []
        if self.config.scheduling == "fcfs":
            call.priority = 0.0
        call.sequence = self._arrived
        self._arrived += 1
        self.here.append(call)
        self.waiting.append(call)

    def start_step(self, now: float) -> OracleStep | None:
        """Schedule and start the step that begins at ``now``; None where there is nothing to schedule."""
        assert not self._scheduled, "a step is running"
        if not self.up or not (self.running or self.waiting or self.joining):
            return None
        self._now = now
        if self.config.redraw_every and self.since_redraw >= self.config.redraw_every:
            self._redraw()
        if self.move is not None and self.move.call not in self.running:
            self.give_up()
        if self.move is not None:
            self._go_on(now)
        preempted: list[int] = []
        while True:
            while self.joining and len(self.running) + len(self.loading) < self.config.max_num_seqs:
                self.running.append(self.joining.pop(0))
            if not self.running and not self.waiting:
                return None
            victims = self._schedule_running()
            if self.move is not None and self.move.call.stage in victims:
                self.give_up()
            if not victims:
                self._admit_waiting(now)
            preempted += victims
            self._check()
            if self._scheduled or not victims:
                break
        if not self._scheduled and (self.loading or self.leaving):
            # What is on its way may hold the memory that the head of the queue needs.
            return None
        if not self._scheduled:
            if self.reserved or self.leaving:
                # The memory is that of calls on their way, and will be free.
                return None
            raise OracleStall(f"stage {min(self.waiting, key=lambda c: c.key).stage} never fits")
        scheduled: list[tuple[int, int, int, bool]] = []
        n_prefill = prefill_tokens = prefill_context = n_decode = decode_context = 0
        prefill_attention = 0.0
        for call, new in self._scheduled.values():
            decodes = self._decodes(call)
            scheduled.append((call.stage, call.computed, new, decodes))
            if decodes:
                n_decode += 1
                decode_context += call.computed + 1
            else:
                n_prefill += 1
                prefill_tokens += new
                prefill_attention += new * (call.computed + new / 2)
                prefill_context += call.computed + new
        seconds = step_seconds(
            self.coef,
            float(n_prefill),
            float(prefill_tokens),
            prefill_attention,
            float(prefill_context),
            float(n_decode),
            float(decode_context),
        )
        assert seconds > 0
        seconds += self.stall
        self.stall = 0.0
        step = OracleStep(now, seconds, tuple(scheduled), tuple(preempted))
        self.steps.append(step)
        return step

    def end_step(self, now: float) -> list[int]:
        """Emit the running step's tokens and return the stages that end with it."""
        ended: list[int] = []
        self.since_look += 1
        self.since_redraw += 1
        for call in list(self.running):
            if call.stage not in self._scheduled:
                continue
            call.computed += self._scheduled[call.stage][1]
            assert call.computed <= call.tokens
            if call.computed < call.tokens:
                continue
            call.generated += 1
            if call.generated == 1:
                call.first_token = now
            if call.generated == call.output:
                self.running.remove(call)
                self.here.remove(call)
                self._release(call)
                call.on_host = 0
                if self.config.admission is not None:
                    self.history = [*self.history, call.output][-self.config.admission.window :]
                self.promised -= call.reserved
                if self.move is not None and self.move.call is call:
                    self.give_up()
                assert call.stage not in self.outcomes
                self.outcomes[call.stage] = OracleOutcome(
                    call.start,
                    call.first_token,
                    now,
                    call.cached_tokens,
                    call.preemptions,
                    call.migrations,
                    call.handed,
                    self.number,
                )
                self.ended[call.stage] = call
                ended.append(call.stage)
            elif self.config.role == "prefill":
                self.running.remove(call)
                self.here.remove(call)
                call.handed = now
                self.leaving.append(call)
        self._scheduled.clear()
        self._check()
        return ended

    def keep(self, stage: int, now: float) -> None:
        """Pin what the ended ``stage`` has left here."""
        call = self.ended[stage]
        found = [node for node, _ in self.cache.find(call.path, self.config.blocks)]
        if call.pin > 0.0 and found:
            for node in found:
                self.cache.hold(node)
            self.pins.append(_Pin(stage, call.workflow, call.arrival, found, now + call.pin))

    def keep_on_host(self, stage: int) -> None:
        """Keep what the ended ``stage`` has left, instead of what begins it, if there is room."""
        host = self.config.host
        if host is None or not host.keep:
            return
        call = self.ended[stage]
        if self.config.role == "decode" or not call.path:
            return
        blocks = min(self.cache.nodes[call.path[-1]].end_tokens, call.tokens - 1) // self.config.block_size
        for other in list(self.kept):
            shared = self._common_blocks(self.ended[other], call)
            if self.ended[other].workflow == call.workflow and self.kept[other] <= min(blocks, shared):
                del self.kept[other]
        if blocks > 0 and self._on_host() + blocks <= host.blocks:
            self.kept[stage] = blocks

    def _common_blocks(self, one: _Call, other: _Call) -> int:
        alike = [a for a, b in zip(one.path, other.path, strict=False) if a == b]
        return self.cache.nodes[alike[-1]].end_tokens // self.config.block_size if alike else 0

    def _on_host(self) -> int:
        """Blocks of host memory in use."""
        return sum(self._blocks(c.on_host) for c in self.here) + sum(self.kept.values())

    def forget_kept(self, workflow: int) -> None:
        """The workflow has ended."""
        self.kept = {k: n for k, n in self.kept.items() if self.ended[k].workflow != workflow}

    def _reloaded(self, call: _Call, hits: int) -> int:
        """Blocks behind the cached ones that come back from host memory, where that is faster than a prefill."""
        host, block = self.config.host, self.config.block_size
        if host is None or not call.path:
            return 0
        mine = [k for k in self.kept if self.ended[k].workflow == call.workflow]
        there = max((min(self.kept[k], self._common_blocks(self.ended[k], call)) for k in mine), default=0)
        blocks = min(there, (call.tokens - 1) // block) - hits
        if blocks <= 0:
            return 0
        tokens, cached = blocks * block, hits * block
        work = (1, tokens, tokens * (cached + tokens / 2), cached + tokens, 0, 0)
        return blocks if host.seconds(tokens, block) < step_seconds(self.coef, *work) else 0

    def unpin(self, pin: _Pin) -> None:
        """The contents of ``pin`` may be evicted."""
        self.touched = True
        self.pins.remove(pin)
        for node in reversed(pin.nodes):
            self.cache.drop(node)

    def unpin_workflow(self, workflow: int) -> None:
        """All pins of a workflow go, the latest made first."""
        for pin in [pin for pin in reversed(self.pins) if pin.workflow == workflow]:
            self.unpin(pin)

    def expire(self, now: float) -> None:
        """Pins whose time is over go, unless a stage of their workflow waits here."""
        for pin in sorted((pin for pin in self.pins if pin.until == now), key=lambda pin: pin.stage):
            if any(call.workflow == pin.workflow for call in self.waiting):
                pin.until = math.inf
            else:
                self.unpin(pin)

    def _unpin_latest(self, spared: int | None) -> None:
        self.unpin(max(self.pins, key=lambda pin: (pin.workflow != spared, pin.arrival, pin.stage)))

    def set_out(self, stage: int, to: OracleInstance) -> None:
        """The stage shall move, if it decodes here and no other moves."""
        call = next((c for c in self.running if c.stage == stage and c.generated > 0), None)
        if call is not None and self.move is None and to is not self and to.up:
            self.move = _Move(call, to)
            self.touched = True

    def give_up(self) -> None:
        """The move ends; the destination gets its blocks back."""
        assert self.move is not None
        self.move.to.cache.release_anonymous(self.move.reserved)
        self.move.to.reserved -= self.move.reserved
        self.move.to.touched = True
        self.move = None

    def _go_on(self, now: float) -> None:
        """At a step boundary: the next stage of the move, if the present one is over."""
        move = self.move
        assert move is not None
        if now < move.until:
            return
        call, to = move.call, move.to
        more = to._blocks(call.computed) - move.reserved
        if not to.up or more > to.cache.free():
            self.give_up()
            return
        rest = call.computed - move.copied
        to.cache.allocate(more)
        to.reserved += more
        move.reserved += more
        move.copies += 1
        move.copied = call.computed
        if rest > self.config.block_size and move.copies < 3:
            move.until = now + rest * self.link_seconds[to.number]
            return
        self.move = None
        self.running.remove(call)
        self.here.remove(call)
        call.on_host = 0
        self.leaving.append(call)
        self.transit.append((now + (0.025 + rest * self.link_seconds[to.number]), call, self, to, move.reserved))

    def land(self, call: _Call, source: OracleInstance, blocks: int) -> None:
        """A moved call is here: its blocks there are free, those here are its own."""
        source.leaving.remove(call)
        source._release(call)
        self.reserved -= blocks
        call.held = blocks
        call.path = self.cache.path(call.leaf) if self.config.prefix_caching else []
        call.sequence = self._arrived
        self._arrived += 1
        if self.config.scheduling == "fcfs":
            call.priority = 0.0
        elif self.config.redraw_every:
            call.priority = self.random.draw()
        call.migrations += 1
        self.here.append(call)
        self.joining.append(call)
        self.touched = source.touched = True

    def _blocks(self, tokens: int) -> int:
        return math.ceil(tokens / self.config.block_size)

    def _budget(self) -> int:
        return self.config.max_num_batched_tokens - sum(new for _, new in self._scheduled.values())

    @staticmethod
    def _decodes(call: _Call) -> bool:
        return call.generated > 0 and call.computed == call.tokens - 1

    def _schedule_running(self) -> list[int]:
        """Part 1 of a step; the stages preempted."""
        victims: list[int] = []
        visited: set[int] = set()
        while self._budget() > 0:
            call = next((c for c in self.running if c.stage not in visited), None)
            if call is None:
                break
            visited.add(call.stage)
            # Not enlarged when a victim gives its tokens back later: vLLM fixes it before it looks for blocks.
            new = min(call.tokens - call.computed, self._budget())
            grow = self._blocks(call.computed + new) - call.held
            while call in self.running and grow > self.cache.free():
                if self.pins:
                    self._unpin_latest(None)
                    continue
                if self.config.scheduling == "priority":
                    victim = max(self.running, key=lambda c: c.key)
                else:
                    victim = self.running[-1]
                self._preempt(victim)
                victims.append(victim.stage)
            if call not in self.running:
                break
            self._run(call, new, grow)
        return victims

    def _admit_waiting(self, now: float) -> None:
        """Part 2 of a step."""
        cache, block, rule = self.cache, self.config.block_size, self.config.admission
        if rule is not None and self.running and self.since_look < rule.every:
            return
        look: _Look | None = None
        prefill = 0
        admitted = False
        while self.waiting and self._budget() > 0 and len(self.running) + len(self.loading) < self.config.max_num_seqs:
            call = min(self.waiting, key=lambda c: c.key)
            reserved = sum(c.reserved for c in [*self.running, call])
            # Alone on the instance a call is admitted whatever is expected of it.
            if self.config.role == "decode" and self.running and reserved > self.config.blocks:
                break
            if rule is not None:
                if look is None:
                    self.since_look = 0
                    back = [c for c in reversed(self.here) if any(c is x for _, x in self.loading)]
                    look = _Look(self, rule, self.running + back)
                if prefill >= rule.max_prefill or not look.admits(call):
                    break
                prefill += call.tokens - call.on_host
            if call.on_host:
                while self._blocks(call.tokens) > cache.free() and self.pins and not admitted:
                    self._unpin_latest(call.workflow)
                if self._blocks(call.tokens) > cache.free():
                    break
                self.waiting.remove(call)
                admitted = True
                self._come_back(call, now)
                self.unpin_workflow(call.workflow)
                continue
            if call.brought > 0:
                if self._blocks(call.tokens) > cache.free():
                    break
                self.waiting.remove(call)
                call.computed, call.brought = call.brought, 0
                cache.allocate(self._blocks(call.computed))
                call.held = self._blocks(call.computed)
                # What has come along is the call's own: others do not find it.
                call.filling = False
                self.running.append(call)
                new = min(call.tokens - call.computed, self._budget())
                self._run(call, new, self._blocks(call.computed + new) - call.held)
                continue
            found = cache.find(call.path, (call.tokens - 1) // block)
            hits = sum(count for _, count in found)
            there = hits + self._reloaded(call, hits)
            new = min(call.tokens - there * block, self._budget())
            grow = self._blocks(there * block + new) - hits
            whole = self._blocks(call.tokens) - hits
            held = [node for node, _ in found]
            while whole > cache.free() - cache.taken_by_holding(held) and self.pins and not admitted:
                self._unpin_latest(call.workflow)
            # A node leaves the free queue whole, so its blocks beyond the limit are not there to be allocated either.
            if whole > cache.free() - cache.taken_by_holding(held):
                break
            self.waiting.remove(call)
            admitted = True
            self.unpin_workflow(call.workflow)
            call.filling = True
            if found:
                last, count = found[-1]
                if count < cache.size(last):
                    call.filling = count == cache.cached[last] and cache.holders[last] == 0
            for node, _ in found:
                cache.hold(node)
                call.nodes_held.append(node)
            call.in_nodes = call.held = hits
            call.computed = there * block
            if there > hits:
                self.stall += self.config.host.seconds((there - hits) * block, block)
            if call.cached_tokens < 0:
                call.cached_tokens = hits * block
                call.start = now
            self.running.append(call)
            self._run(call, new, grow)

    def _come_back(self, call: _Call, now: float) -> None:
        """Start the copy from host memory."""
        host, block = self.config.host, self.config.block_size
        assert host is not None
        call.computed = call.on_host
        call.filling = False
        if host.overlap:
            call.held = self._blocks(call.tokens)
            self.cache.allocate(call.held)
            self.link_free = max(self.link_free, now) + host.seconds(call.on_host, block)
            self.loading.append((self.link_free, call))
            return
        self.stall += host.seconds(call.on_host, block)
        if not host.reuse:
            call.on_host = 0
        self.running.append(call)
        new = min(call.tokens - call.computed, self._budget())
        self._run(call, new, self._blocks(call.computed + new))

    def copy_done(self, now: float) -> bool:
        """Those whose copies are done by now run from the next step on; whether there are any."""
        host = self.config.host
        assert host is not None
        done = [e for e in self.loading if e[0] <= now]
        for entry in done:
            self.loading.remove(entry)
            if not host.reuse:
                entry[1].on_host = 0
            self.running.append(entry[1])
        return bool(done)

    def _to_host(self, call: _Call) -> None:
        """Copy what host memory lacks, if there is room."""
        host, block = self.config.host, self.config.block_size
        assert host is not None
        new = call.computed - call.on_host
        if new == 0:
            return

        more = self._blocks(call.computed) - self._blocks(call.on_host)
        for other in reversed(self.here):
            if self._on_host() + more > host.blocks and other is not call and other in self.running:
                other.on_host = 0
        if self._on_host() + more > host.blocks:
            return
        call.on_host = call.computed
        seconds = host.seconds(new, block)
        if host.overlap:
            self.link_free = max(self.link_free, self._now) + seconds
        else:
            self.stall += seconds

    def _redraw(self) -> None:
        """New priorities; preempt those that are not resident any more."""
        self.since_redraw = 0
        for call in reversed(self.here):
            if not self.config.redraw_keep or self.random.draw() >= self.config.redraw_keep:
                call.priority = self.random.draw()
        self.running.sort(key=lambda c: c.key)
        back = [c for _, c in self.loading]
        blocks = self.config.blocks - sum(c.held for c in back)
        seats = self.config.max_num_seqs - len(back)
        resident: list[_Call] = []
        for call in sorted(self.running + self.waiting, key=lambda c: c.key):
            blocks -= self._blocks(call.tokens)
            if blocks < 0 or len(resident) == seats:
                break
            resident.append(call)
        for call in self.running[::-1]:
            if call not in resident:
                self._preempt(call)

    def _run(self, call: _Call, new: int, grow: int) -> None:
        """Give a stage its blocks and put it into the step."""
        self.cache.allocate(max(grow, 0))
        call.held += max(grow, 0)
        # Blocks completed by decoding are the output blocks that wait for the stage's end or preemption.
        if not self._decodes(call):
            self.cache.fill(call, (call.computed + new) // self.config.block_size)
        self._scheduled[call.stage] = (call, new)

    def _preempt(self, call: _Call) -> None:
        """Recompute later: release everything but the generated tokens, and wait again."""
        self.running.remove(call)
        self._scheduled.pop(call.stage, None)
        if self.config.host is not None:
            self._to_host(call)
        self._release(call)
        call.computed = 0
        call.preemptions += 1
        if self.config.scheduling == "fcfs":
            self._prepended -= 1
            call.sequence = self._prepended
        elif self.config.preempted_first:
            call.priority = call.arrival - 2e9
        self.waiting.append(call)

    def _release(self, call: _Call) -> None:
        self.cache.fill(call, call.computed // self.config.block_size)
        self.cache.release_anonymous(call.private)
        for node in reversed(call.nodes_held):
            self.cache.drop(node)
        call.nodes_held.clear()
        call.held = call.in_nodes = 0
        call.filling = False

    def _check(self) -> None:
        """Assert what must hold between any two actions."""
        here = [*self.running, *self.joining, *self.leaving, *(c for _, c in self.loading)]
        self.cache.check(here, self.pins, self.reserved)
        assert self._budget() >= 0
        assert len(self.running) + len(self.loading) <= self.config.max_num_seqs
        if self.config.host is not None:
            assert self._on_host() <= self.config.host.blocks
        assert not {c.stage for c in self.running} & {c.stage for c in self.waiting}
        for call in self.running:
            assert 0 <= call.generated < call.output
            new = self._scheduled[call.stage][1] if call.stage in self._scheduled else 0
            assert 0 <= call.computed + new <= call.tokens
            # One that is just back, or has been back and not scheduled since, holds blocks for all of its tokens.
            assert call.held >= self._blocks(call.computed + new)
            assert call.held in (self._blocks(call.computed + new), self._blocks(call.tokens))
        for call in self.waiting:
            assert call.computed == call.held == call.in_nodes == 0 and not call.nodes_held
        assert len({call.key for call in self.running + self.waiting}) == len(self.running) + len(self.waiting)
        scheduled = [call for call, _ in self._scheduled.values()]
        assert all(call in self.running and new >= 1 for call, new in self._scheduled.values())
        assert scheduled == [call for call in self.running if call in scheduled]


class _Look:
    """One look of an admission rule at those that wait."""

    def __init__(self, instance: OracleInstance, rule: OracleRule, batch: list[_Call]) -> None:
        self.instance, self.rule, self.batch = instance, rule, list(batch)
        self.lists: list[list[tuple[int, int]]] = [[]]
        if rule.rule == "past-future" and batch:
            self.lists = [[] for _ in range(min(5, 200 // len(batch) + 1))]
        for call in batch:
            for sample in self.lists:
                sample.append((self._held(call), self._to_come(call)))

    def _held(self, call: _Call) -> int:
        return call.tokens + self.instance.config.block_size - 1

    def _to_come(self, call: _Call) -> int:
        if self.rule.rule != "past-future":
            return call.output - call.generated
        u = self.instance.random.draw()
        longer = sorted(length for length in self.instance.history if length > call.generated)
        points = [call.generated, *longer]
        points.append(max(self.rule.max_new, points[-1]))
        x = u * (len(points) - 1)
        k = int(x)
        return math.floor(points[k] + (points[k + 1] - points[k]) * (x - k) + 0.5) - call.generated

    def admits(self, call: _Call) -> bool:
        """Whether ``call`` may join; it is counted in."""
        rule, config = self.rule, self.instance.config
        alone = not self.batch
        for sample in self.lists:
            b = call.output - call.generated
            if rule.rule == "past-future":
                b = self.instance.history[int(self.instance.random.draw() * len(self.instance.history))]
            sample.append((self._held(call), b))
        self.batch.append(call)
        limit = rule.share * config.blocks * config.block_size
        if rule.rule == "aggressive":
            return alone or sum(map(self._held, self.batch)) <= limit
        if rule.rule == "conservative":
            return alone or sum(self._held(c) + max(rule.max_new - c.generated, 1) for c in self.batch) <= limit
        return alone or max(peak_token_by_token(sample) for sample in self.lists) < limit


def peak_token_by_token(calls: Sequence[tuple[int, int]]) -> int:
    """The most tokens held at once by calls of (held now, to come), each of which goes when it has ended."""
    return max(sum(a + t for a, b in calls if b >= t) for t in {0, *(b for _, b in calls)})


def _lost_on_the_way(
    transit: list[tuple[float, _Call, OracleInstance, OracleInstance, int]], at: OracleInstance
) -> list[int]:
    """Forget the paused calls from or to ``at``, which fails; their numbers."""
    lost = [entry for entry in transit if at in (entry[2], entry[3])]
    for entry in lost:
        transit.remove(entry)
        _, call, source, to, blocks = entry
        at.past[call.stage] = (call.preemptions, call.migrations)
        if to is at:
            source.leaving.remove(call)
            source._release(call)
            source.touched = True
        else:
            to.touched = True
            to.reserved -= blocks
            to.cache.release_anonymous(blocks)
    return [entry[1].stage for entry in lost]


def simulate_oracle(
    configs: Sequence[OracleConfig],
    nodes: Sequence[OracleNode],
    stages: Sequence[OracleStage],
    events: Sequence[OracleEvent] = (),
    moves: Sequence[OracleMove] = (),
    max_steps: int = 1_000_000,
    link_latency: Sequence[Sequence[float]] = (),
    link_seconds: Sequence[Sequence[float]] = (),
) -> tuple[list[OracleOutcome], list[OracleInstance]]:
    """Run all stages on the instances they name; their outcomes in order, and the instances with their steps.

    KV takes ``link_latency[p][d]`` and ``link_seconds[p][d]`` a token from instance p to d.

    Raises
    ------
    OracleStall
        Where the head of a queue fits into no free block and nothing runs, or after ``max_steps`` steps.
    """
    instances = [OracleInstance(config, nodes, number) for number, config in enumerate(configs, 1)]
    moving: list[tuple[float, int, _Call, OracleInstance, OracleInstance]] = []
    transit: list[tuple[float, _Call, OracleInstance, OracleInstance, int]] = []
    for k, instance in enumerate(instances):
        instance.transit, instance.past = transit, instances[0].past
        if link_seconds:
            instance.link_seconds = link_seconds[k]
    busy_until: list[float | None] = [None] * len(instances)
    ready: list[tuple[float, int]] = [
        (stage.arrival + stage.tool_delay, index) for index, stage in enumerate(stages) if not stage.parents
    ]
    finish: dict[int, float] = {}
    total_steps = 0
    coming = sorted(events, key=lambda event: event.when)
    setting_out = sorted(moves, key=lambda move: move.when)
    while len(finish) < len(stages):
        times = [time for time, _ in ready] + [time for time in busy_until if time is not None]
        times += [event.when for event in coming] + [move.when for move in setting_out]
        times += [time for instance in instances for time, _ in instance.loading]
        times += [time for time, *_ in moving]
        times += [entry[0] for entry in transit]
        times += [pin.until for instance in instances for pin in instance.pins if math.isfinite(pin.until)]
        if not times:
            break
        now = min(times)
        # An instance that nothing has happened to does not look again at those that wait.
        stirred: set[int] = set()
        for number, instance in enumerate(instances):
            if busy_until[number] != now:
                continue
            busy_until[number] = None
            stirred.add(number)
            for index in instance.end_step(now):
                assert index not in finish
                finish[index] = now
                ended = stages[index].workflow
                if all(k in finish for k, stage in enumerate(stages) if stage.workflow == ended):
                    for other in instances:
                        other.unpin_workflow(ended)
                        other.forget_kept(ended)
                else:
                    instance.keep_on_host(index)
                    instance.keep(index, now)
                for child, stage in enumerate(stages):
                    if index in stage.parents and all(parent in finish for parent in stage.parents):
                        ready.append((max(stage.arrival, now) + stage.tool_delay, child))
            # In running-list order, each knowing what was promised to those before it.
            for call in [c for c in instance.leaving if c.handed == now]:
                there = _decoder(instances, call, stages[call.stage])
                call.reserved = there.blocks_expected(call, stages[call.stage].expected_output)
                there.promised += call.reserved
                seconds = call.computed * link_seconds[number][there.number]
                arrives = now + (link_latency[number][there.number] + seconds)
                moving.append((arrives, call.stage, call, instance, there))
        for _, index, call, here, there in sorted((m for m in moving if m[0] == now), key=lambda m: m[:2]):
            here.let_go(call)
            there.welcome(call, stages[index].path_leaf)
            stirred |= {here.number, there.number}
        moving = [m for m in moving if m[0] > now]
        for number, instance in enumerate(instances):
            if instance.loading and instance.copy_done(now):
                stirred.add(number)
        for instance in instances:
            instance.expire(now)
        for entry in sorted((x for x in transit if x[0] == now), key=lambda x: x[1].stage):
            transit.remove(entry)
            _, call, source, to, blocks = entry
            to.land(call, source, blocks)
        while coming and coming[0].when == now:
            event = coming.pop(0)
            stirred.add(event.instance)
            at = instances[event.instance]
            again: list[int] = []
            if not event.up and at.up:
                for instance in instances:
                    if instance.move is not None and instance.move.to is at:
                        instance.give_up()
                again = at.fail() + _lost_on_the_way(transit, at)
                at.leaving.clear()
                busy_until[event.instance] = None
            elif event.up and not at.up:
                again = [stage for instance in instances if not instance.up for stage in instance.turn_away()]
                at.up = True
            ready += [(now, index) for index in again]
        while setting_out and setting_out[0].when == now:
            move = setting_out.pop(0)
            for instance in instances:
                instance.set_out(move.stage, instances[move.to])
        for _, index in sorted(entry for entry in ready if entry[0] == now):
            stirred.add(stages[index].instance)
            instances[stages[index].instance].arrive(index, stages[index])
        ready = [entry for entry in ready if entry[0] > now]
        for number, instance in enumerate(instances):
            if busy_until[number] is None and (number in stirred or instance.touched):
                instance.touched = False
                step = instance.start_step(now)
                if step is not None:
                    busy_until[number] = now + step.seconds
                    total_steps += 1
        if total_steps > max_steps:
            raise OracleStall(f"no end after {max_steps} steps")
    assert len(finish) == len(stages), "a stage waits for one that never ends"
    outcomes: dict[int, OracleOutcome] = {}
    for instance in instances:
        outcomes |= instance.outcomes
    return [outcomes[index] for index in range(len(stages))], instances


def _decoder(instances: Sequence[OracleInstance], call: _Call, spec: OracleStage) -> OracleInstance:
    """Where a call decodes that a prefill instance hands over."""
    if spec.decode_at >= 0:
        return instances[spec.decode_at]
    decoders = [i for i in instances if i.config.role == "decode"]
    return min(decoders, key=lambda i: (i.promised + i.blocks_expected(call, spec.expected_output)) / i.config.blocks)
