"""One emulated instance: the simulator's engine, driven by the clock on the wall.

Simulated time runs ``speed_up`` times as fast. Events are applied at their own simulated times however late the
process gets to them, so a busy machine delays answers but never changes what the instance does.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import typeof

from hexopt.cluster import Cluster, Instance
from hexopt.emulation import tokens
from hexopt.emulation.measures import Ended, Measures
from hexopt.emulation.stepping import accept, catch_up, count_live, count_tokens, emitted, wake, within_jump
from hexopt.simulation.open_board import OpenBoard
from hexopt.simulation.simulator import fleet_of, instance_table

_TICK = 1e-3
"""Shortest sleep, seconds: an event loop's own resolution. Half of it early is as good as half of it late."""


class Call:
    """One request at an emulated instance.

    Parameters
    ----------
    content, text
        The prompt, see :mod:`hexopt.emulation.tokens`, and the answer.
    output
        Tokens of the answer.
    reason
        Why it will end.
    priority
        Lower is earlier.
    on_tokens
        Called whenever more tokens are out; None for a call that is not streamed.
    """

    __slots__ = (
        "cached",
        "content",
        "done",
        "on_tokens",
        "out",
        "output",
        "priority",
        "prompt",
        "reason",
        "stage",
        "text",
    )

    def __init__(
        self,
        content: bytes,
        text: str,
        output: int,
        reason: str = "length",
        priority: float = 0.0,
        on_tokens: Callable[[], None] | None = None,
    ) -> None:
        self.content = content
        self.prompt = tokens.count(content)
        self.output = output
        self.priority = priority
        self.reason = reason
        self.on_tokens = on_tokens
        self.text = text
        self.out = 0
        """Tokens that are out; kept up to date where ``on_tokens`` is given."""
        self.cached = 0
        self.stage = -1
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """True when it has ended, False when it was aborted."""


class Engine:
    """An emulated vLLM engine.

    Parameters
    ----------
    instance
        What it is: GPU, LLM and vLLM's limits.
    speed_up
        Simulated seconds in a second.
    by_priority
        Whether its queue goes by priority, or first come first served.

    Raises
    ------
    ValueError
        If its swaps overlap with its steps, or it keeps what workflows leave.
    """

    def __init__(self, instance: Instance, speed_up: float = 1.0, by_priority: bool = True) -> None:
        if instance.swap is not None and instance.swap.overlap:
            raise ValueError(f"instance {instance.name!r}: swap.overlap is true, but emulated servers wait for copies")
        if instance.swap is not None and instance.swap.keep:
            raise ValueError(f"instance {instance.name!r}: swap.keep is true, but emulated servers know no workflows")
        self.instance = instance
        self.speed_up = speed_up
        one = Cluster(instance.name, (instance,))
        table = instance_table(one, by_priority)
        self.longest = int(table["max_len"][0])
        """Prompt and output tokens of the longest call."""
        self.board = OpenBoard(table, fleet_of(one).coef, workflows=1, chunk_tokens=instance.block_size)
        self.measures = Measures(speed_up)
        self._workflow = self.board.add_workflow(0.0, math.inf)
        self._calls: dict[int, Call] = {}
        self._streamed: dict[int, Call] = {}
        self._ended = np.zeros(self.board.sim.running.shape[1], dtype=np.int32)
        self._origin = time.monotonic()
        self._reached = 0.0
        self._starting: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf
        self._compile()

    def _compile(self) -> None:
        """Compile what serves requests, so that the first ones do not wait for it."""
        sim, none = self.board.sim, np.zeros(4, dtype=np.int64)
        catch_up(sim, 0.0, self._ended, self.measures.iterations)
        wake(sim, 0.0)
        count_live(sim, int(within_jump(sim, 0.0)[0]), none)
        emitted(sim, 0, 0)
        count_tokens(sim, 0, 0, none)
        compiled: Any = accept
        compiled.compile(tuple(typeof(x) for x in (sim, 0, 0.0)))

    def _now(self, ahead: float = 0.0) -> float:
        """Bring the instance to ``ahead`` seconds after now, and return that in simulated seconds since the start."""
        now = (time.monotonic() - self._origin + ahead) * self.speed_up
        # Nothing happens at an instant that is over: a step may have begun there.
        self._reached = now = max(now, math.nextafter(self._reached, math.inf))
        while count := int(catch_up(self.board.sim, now, self._ended, self.measures.iterations)):
            for r in self._ended[:count].tolist():
                self._end(r, now)
        return now

    def submit(self, call: Call) -> None:
        """Queue ``call``, which must not be longer than ``longest``; its ``done`` tells when it has ended."""
        keys = tokens.chunks(call.content + call.text.encode(), self.board.chunk_tokens)
        now = self._now() if self._starting is None else self._starting
        r = call.stage = self.board.add_stage(self._workflow, 0, call.prompt, call.output, keys)
        sim = self.board.sim
        sim.stage["priority"][r] = call.priority
        sim.stage["ready"][r] = now
        accept(sim, r, now)
        self._calls[r] = call
        if call.on_tokens is not None:
            self._streamed[r] = call
        if sim.instance["busy"][0]:
            self._sleep(now)
        elif self._starting is None:
            # What comes in at one turn of the event loop comes at one instant, and starts together.
            self._starting = now
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        if self._starting is not None:
            wake(self.board.sim, self._starting)
            self._starting = None
        self._sleep(self._now())

    def abort(self, call: Call) -> None:
        """Take ``call`` out, wherever it is; one that has ended stays as it is."""
        if self._starting is not None:
            self._start()
        now = self._now()
        if not call.done.done():
            counted = np.zeros(4, dtype=np.int64)
            count_tokens(self.board.sim, call.stage, int(within_jump(self.board.sim, now)[0]), counted)
            self.measures.aborted(counted)
            self._forget(call.stage, now)
            call.done.set_result(False)
            wake(self.board.sim, now)
        self._sleep(now)

    def _forget(self, r: int, now: float) -> None:
        self.board.sim.clock["now"] = now
        self.board.remove_stage(r)
        del self._calls[r]
        self._streamed.pop(r, None)

    def _end(self, r: int, now: float) -> None:
        call = self._calls[r]
        row: Any = self.board.sim.stage[r]
        call.cached = int(row["cached"])
        self.measures.ended(
            Ended(
                prompt=call.prompt,
                output=call.output,
                cached=call.cached,
                preemptions=int(row["preemptions"]),
                arrival=float(row["ready"]),
                start=float(row["start"]),
                first_token=float(row["first_token"]),
                finish=float(row["finish"]),
                reason=call.reason,
            )
        )
        self._forget(r, now)
        if call.on_tokens is not None:
            call.out = call.output
            call.on_tokens()
        if not call.done.done():
            call.done.set_result(True)

    def _tell_streams(self, now: float) -> float:
        """Hand out the tokens that are out at ``now``; when the next ones will be."""
        sim = self.board.sim
        steps, following = within_jump(sim, now)
        for r, call in self._streamed.items():
            out = int(emitted(sim, r, steps))
            if out > call.out and call.on_tokens is not None:
                call.out = out
                call.on_tokens()
        return float(following)

    def _on_timer(self) -> None:
        self._timer = None
        self._sleep(self._now(_TICK / 2))

    def _sleep(self, now: float) -> None:
        """Set the timer to the next event."""
        following = self._tell_streams(now) if self._streamed else float(self.board.sim.instance["next_event"][0])
        if self._timer is not None:
            if self._due <= following:
                return
            self._timer.cancel()
            self._timer = None
        if following < math.inf:
            self._due = following
            seconds = max((following - now) / self.speed_up, _TICK)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._on_timer)

    def metrics(self, model: str) -> str:
        """Its metrics in Prometheus' text form."""
        now = self._now()
        self._sleep(now)
        sim = self.board.sim
        live = np.zeros(4, dtype=np.int64)
        count_live(sim, int(within_jump(sim, now)[0]), live)
        return self.measures.text(model, self.instance, sim.instance[0], live)
