"""Replay a trace against a server: every call when its parents have ended, with prompts that share what the trace says.

For servers whose tokens are the emulator's (:mod:`hexopt.emulation.tokens`).
"""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from hexopt.emulation import tokens
from hexopt.emulation.requests import OUTPUT_FIELD
from hexopt.traces import Stage, Workflow


class ReplayError(ValueError):
    """A call that the server refused."""


@dataclass(frozen=True)
class Answered:
    """One call; times in trace seconds since the replay's start.

    Parameters
    ----------
    workflow, stage
        Position of the workflow in the replay, and of the stage in it.
    ready, finish
        When it could be sent, and when its answer was there.
    cached
        Prompt tokens that the server found in its prefix cache.
    """

    workflow: int
    stage: int
    ready: float
    finish: float
    cached: int


async def replay(
    url: str, model: str, workflows: Sequence[Workflow], arrivals: Sequence[float], speed_up: float = 1.0
) -> list[Answered]:
    """Send ``workflows`` at ``arrivals`` (trace seconds); ``speed_up`` of these are a second on the wall.

    Raises
    ------
    ReplayError
        With the server's words.
    """
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        client = _Client(session, url, model, speed_up)
        pairs = enumerate(zip(workflows, arrivals, strict=True))
        done = await asyncio.gather(*(client.run(w, workflow, at) for w, (workflow, at) in pairs))
    return [answered for one in done for answered in one]


class _Client:
    def __init__(self, session: aiohttp.ClientSession, url: str, model: str, speed_up: float) -> None:
        self._session, self._url, self._model, self._speed_up = session, url, model, speed_up
        self._origin = time.monotonic()

    @property
    def _now(self) -> float:
        return (time.monotonic() - self._origin) * self._speed_up

    async def _until(self, when: float) -> None:
        await asyncio.sleep(max(when - self._now, 0.0) / self._speed_up)

    async def run(self, w: int, workflow: Workflow, arrival: float) -> list[Answered]:
        """All calls of one workflow."""
        said: dict[str, str] = {}
        running: dict[str, asyncio.Task[Answered]] = {}

        async def call(k: int, stage: Stage) -> Answered:
            parents = [await running[p] for p in stage.parents]
            ready = max((p.finish for p in parents), default=arrival) + stage.tool_delay
            await self._until(ready)
            text, cached = await self._ask(stage, prompt_text(w, stage, said))
            if stage.output_segment is not None:
                said[stage.output_segment] = text
            return Answered(w, k, ready, self._now, cached)

        async with asyncio.TaskGroup() as group:
            for k, stage in enumerate(workflow.stages):
                running[stage.id] = group.create_task(call(k, stage))
        return [task.result() for task in running.values()]

    async def _ask(self, stage: Stage, prompt: str) -> tuple[str, int]:
        body = {"model": self._model, "prompt": prompt, "max_tokens": stage.output_tokens}
        body |= {OUTPUT_FIELD: stage.output_tokens}
        async with self._session.post(f"{self._url}/v1/completions", json=body) as response:
            if response.status != 200:
                raise ReplayError(f"{self._url}: {response.status}: {await response.text()}")
            answer = json.loads(await response.read())
        return answer["choices"][0]["text"], answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def prompt_text(w: int, stage: Stage, said: dict[str, str]) -> str:
    """A prompt of the stage's length that begins with its shared segments."""
    parts = []
    for prefix in stage.prefixes:
        size = prefix.tokens * tokens.TOKEN_BYTES
        name = f"{w}/{prefix.segment}" if prefix.local else prefix.segment
        parts.append(said[prefix.segment][:size] if prefix.segment in said else _words(name, prefix.tokens))
    left = stage.prompt_tokens - sum(prefix.tokens for prefix in stage.prefixes)
    return "".join(parts) + _words(f"{w}/{stage.id}", left)


def _words(name: str, count: int) -> str:
    """``count`` tokens that begin unlike those of any other name."""
    head = f"{zlib.crc32(name.encode()):08x}{zlib.adler32(name.encode()):08x}"
    return (head + tokens.answer(name.encode(), count))[: count * tokens.TOKEN_BYTES]
