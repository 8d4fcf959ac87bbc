"""The engine in real time against the step-by-step oracle, given the times at which its calls arrived."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest
from oracle_engine import OracleConfig, OracleNode, OracleStage, simulate_oracle
from random_workload import small_cluster

from hexopt.emulation import tokens
from hexopt.emulation.engine import Call, Engine
from hexopt.emulation.measures import Ended
from hexopt.emulation.stepping import emitted, wake, within_jump
from hexopt.memory_rules import Swap
from hexopt.models.roofline import decode_run_seconds

SPEED_UP = 50.0


def engine(by_priority: bool = False, speed_up: float = SPEED_UP) -> tuple[Engine, list[Ended]]:
    """An engine with little memory, and the calls that have ended there."""
    made = Engine(small_cluster(kv_tokens=1200).instances[1], speed_up, by_priority)
    ended: list[Ended] = []
    keep = made.measures.ended
    made.measures.ended = lambda call: (ended.append(call), keep(call))[0]  # type: ignore[method-assign]
    return made, ended


def call(content: bytes, output: int, **more) -> Call:
    return Call(content, tokens.answer(content, output), output, **more)


@pytest.mark.parametrize(("switch", "says"), [("overlap", "wait for copies"), ("keep", "know no workflows")])
def test_refuses_what_it_cannot_do(switch: str, says: str) -> None:
    instance = replace(small_cluster().instances[1], swap=Swap(gb=1.0, **{switch: True}))
    with pytest.raises(ValueError, match=f"swap.{switch} is true, but emulated servers {says}"):
        Engine(instance)


def random_prompt(rng: np.random.Generator) -> bytes:
    """One that may begin like others, at block boundaries and elsewhere."""
    shared = [b"A" * 64 * 5, b"A" * 64 * 5 + b"B" * 150, b"C" * 640, b""][int(rng.integers(0, 4))]
    return shared + rng.bytes(int(rng.integers(1, 900)))


def oracle_of(one: Engine, calls: list[Call], arrivals: list[float], by_priority: bool):
    """The oracle's outcome of the same calls."""
    size = one.board.chunk_tokens
    numbers: dict[tuple[bytes, ...], int] = {}
    nodes: list[OracleNode] = []
    stages = []
    for made, arrival in zip(calls, arrivals, strict=True):
        path: tuple[bytes, ...] = ()
        leaf = -1
        for chunk in tokens.chunks(made.content + made.text.encode(), size):
            path = (*path, chunk)
            if path not in numbers:
                nodes.append(OracleNode(leaf, size * len(path)))
                numbers[path] = len(nodes) - 1
            leaf = numbers[path]
        priority = made.priority if by_priority else 0.0
        stages.append(OracleStage(made.prompt, made.output, leaf, priority, arrival=arrival))
    config = OracleConfig(
        one.instance.coef,
        blocks=one.instance.kv_tokens // size,
        block_size=size,
        max_num_seqs=one.instance.max_num_seqs,
        max_num_batched_tokens=one.instance.max_num_batched_tokens,
        scheduling="priority" if by_priority else "fcfs",
    )
    return simulate_oracle([config], nodes, stages)[0]


@pytest.mark.parametrize("by_priority", [False, True])
def test_what_happens_in_real_time_is_what_the_oracle_says(by_priority):
    rng = np.random.default_rng(int(by_priority))
    calls: list[Call] = []
    arrivals: dict[int, float] = {}

    async def main() -> list[Ended]:
        one, ended = engine(by_priority)
        for _ in range(30):
            made = call(random_prompt(rng), int(rng.integers(1, 300)), priority=float(rng.integers(0, 3)))
            calls.append(made)
            one.submit(made)
            arrivals[len(calls) - 1] = float(one.board.sim.stage["ready"][made.stage])
            if rng.random() < 0.3:
                await asyncio.sleep(float(rng.exponential(0.01)))
        assert all(await asyncio.gather(*(made.done for made in calls)))
        outcomes = oracle_of(one, calls, [arrivals[k] for k in range(len(calls))], by_priority)
        wanted = sorted(
            (arrivals[k], one.prompt, one.output, outcome.finish, outcome)
            for k, (one, outcome) in enumerate(zip(calls, outcomes, strict=True))
        )
        ended.sort(key=lambda one: (one.arrival, one.prompt, one.output, one.finish))
        assert len(ended) == len(wanted)
        for got, (arrival, _, _, _, outcome) in zip(ended, wanted, strict=True):
            assert got.arrival == arrival
            for name in ("start", "first_token", "finish"):
                assert math.isclose(getattr(got, name), getattr(outcome, name), rel_tol=1e-9), name
            assert (got.cached, got.preemptions) == (outcome.cached_tokens, outcome.preemptions)
        return ended

    ended = asyncio.run(main())
    assert sum(one.cached for one in ended) > 0 and sum(one.preemptions for one in ended) > 0


def test_calls_end_on_the_wall_when_they_end_in_simulation():
    async def main() -> None:
        one, ended = engine(speed_up=1.0)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        made = call(b"abcd" * 30, 60)
        one.submit(made)
        await made.done
        lasted = loop.time() - begin
        assert ended[0].finish - ended[0].arrival - 0.002 <= lasted

    asyncio.run(main())


def test_streams_tell_their_tokens_one_after_the_other():
    async def main() -> None:
        one, _ = engine(speed_up=2.0)
        seen: list[int] = []
        made = call(b"abcd" * 10, 40, on_tokens=lambda: seen.append(made.out))
        one.submit(made)
        await made.done
        assert seen == sorted(set(seen)) and seen[-1] == 40 and len(seen) > 10

    asyncio.run(main())


def test_an_aborted_call_leaves_room_and_is_counted():
    async def main() -> None:
        one, ended = engine(speed_up=5.0)
        calls = [call(bytes([65 + k]) * 400, 100) for k in range(12)]
        for made in calls:
            one.submit(made)
        await asyncio.sleep(0.02)
        sim = one.board.sim
        assert sim.instance["running"][0] > 0 and sim.instance["waiting"][0] > 0
        for made in calls:
            one.abort(made)
        one.abort(calls[0])
        assert [made.done.result() for made in calls] == [False] * 12 and not ended
        assert sim.instance["running"][0] == sim.instance["waiting"][0] == one.board.stages == 0
        assert sim.instance["free"][0] == sim.instance["blocks"][0]
        after = call(b"z" * 100, 5)
        one.submit(after)
        assert await after.done
        assert 'finished_reason="abort"} 12' in one.metrics("m")

    asyncio.run(main())


def test_steps_within_a_jump_are_those_whose_time_is_over():
    async def main() -> None:
        one, _ = engine(speed_up=1e-6)
        made = call(b"abcd" * 20, 200)
        one.submit(made)
        await asyncio.sleep(0)
        sim = one.board.sim
        assert within_jump(sim, 0.0)[0] == 0 and emitted(sim, made.stage, 0) == 0
        now = one._reached = float(sim.instance["next_event"][0])
        one._now()
        inst = sim.instance[0]
        steps = int(inst["jump"])
        assert steps == 199 and inst["step_start"] == now
        ends = [
            decode_run_seconds(sim.coef[0], float(inst["decodes"]), float(inst["decode_context"]), float(k))
            for k in range(1, steps + 1)
        ]
        for at in np.linspace(0.0, ends[-1] * 0.999, 300):
            over, following = within_jump(sim, now + at)
            assert over == sum(end <= at + 1e-9 for end in ends)
            assert math.isclose(following, now + ends[over])
            assert emitted(sim, made.stage, over) == 1 + over
        wake(sim, now)
        assert inst["jump"] == steps
        one.abort(made)

    asyncio.run(main())
