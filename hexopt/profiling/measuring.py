"""Measure a running server: time to first token and between tokens over prompt lengths, concurrency and prefix hits.

For each point, ``concurrency - 1`` calls of that prompt length are kept decoding; to them come, one after the other,
the calls that are timed. Prompts are random words, so that the prefix cache holds only what it is meant to.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hexopt.profiling.measurements import Measurement
from hexopt.profiling.server import ENDPOINTS, Call, Endpoint, Server, ServerError, ended

BEYOND = 1.5
"""Prompts to test extrapolation on are so many times as long as the longest."""
_OUTPUT = 32
_SETTLE = 4
_LATE = 3.0
"""Seconds that a call may take to begin: on a busy machine the others are far ahead by then."""
# On a busy machine the tokens of a call may all be read at once.
_TRIES = 10
# Words are not all of one token, so prompts come out longer than asked for; others write while one is timed.
_SLACK, _ROOM = 1.1, 512
_WORDS = (
    "all",
    "and",
    "are",
    "but",
    "can",
    "day",
    "for",
    "get",
    "had",
    "has",
    "her",
    "him",
    "how",
    "its",
    "new",
    "not",
)
_WORDS += (
    "now",
    "old",
    "one",
    "our",
    "out",
    "see",
    "she",
    "the",
    "two",
    "use",
    "was",
    "way",
    "who",
    "yes",
    "you",
    "own",
)


@dataclass(frozen=True, slots=True)
class Grid:
    """What is measured: every combination.

    Parameters
    ----------
    prompt_lengths
        About so many tokens.
    concurrency
        Calls at once, at most what the server runs at once.
    hits
        Shares of the prompt that the prefix cache is to hold, at least 0 and below 1.
    endpoints
        Interfaces.
    repeats
        Calls of each, of which the median counts.
    """

    prompt_lengths: tuple[int, ...]
    concurrency: tuple[int, ...]
    hits: tuple[float, ...] = (0.0, 0.5)
    endpoints: tuple[Endpoint, ...] = ENDPOINTS
    repeats: int = 3

    def points(self) -> list[tuple[Endpoint, int, int, bool]]:
        """(Endpoint, prompt length, concurrency, beyond), with prompts :data:`BEYOND` times the longest at the end."""
        longest = round(BEYOND * max(self.prompt_lengths))
        lengths = [(length, False) for length in self.prompt_lengths] + [(longest, True)]
        return [(e, n, c, beyond) for n, beyond in lengths for c in self.concurrency for e in self.endpoints]


class Measuring:
    """A server that is being measured.

    Parameters
    ----------
    server
        It.
    grid
        What of it.
    rng
        Draws the words.
    """

    def __init__(self, server: Server, grid: Grid, rng: np.random.Generator) -> None:
        self._server, self._grid, self._rng = server, grid, rng
        self._words_for: dict[Endpoint, tuple[float, float]] = {}

    async def run(self, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Measurement]:
        """Measure every point; ``progress`` is called with the points done and all of them.

        Raises
        ------
        ServerError
            If the server cannot be measured, or runs fewer calls at once than asked for.
        """
        await self._check()
        rows: list[Measurement] = []
        points = self._grid.points()
        for number, point in enumerate(points):
            progress(number, len(points))
            rows += await self._measure(number, *point)
        progress(len(points), len(points))
        return rows

    async def _check(self) -> None:
        """Whether the server takes the longest prompts and the most calls; learn the tokens of a word."""
        server, grid = self._server, self._grid
        longest = round(_SLACK * BEYOND * max(grid.prompt_lengths)) + _ROOM
        if server.max_model_len is not None and longest > server.max_model_len:
            raise ServerError(
                f"{server.url}: takes {server.max_model_len} tokens, but {BEYOND} times the longest prompt and what "
                f"is written meanwhile are {longest}: measure shorter prompts"
            )
        for endpoint in grid.endpoints:
            few, many = [await server.stream(endpoint, self._text(words), 1) for words in (20, 120)]
            each = (many.prompt_tokens - few.prompt_tokens) / 100
            if each <= 0:
                raise ServerError(f"{server.url}: does not tell prompt tokens in the usage of a streamed call")
            self._words_for[endpoint] = few.prompt_tokens - 20 * each, each
        most = max(grid.concurrency)
        async with _Background(self, grid.endpoints[0], min(grid.prompt_lengths), most) as background:
            await background.settle()

    async def _measure(
        self, number: int, endpoint: Endpoint, length: int, concurrency: int, beyond: bool
    ) -> list[Measurement]:
        rows: list[Measurement] = []
        async with _Background(self, endpoint, length, concurrency - 1) as background:
            earlier = self.prompt(endpoint, length)
            await self._server.stream(endpoint, earlier, 1)
            for share in self._grid.hits:
                timed = [
                    await self._time(background, endpoint, length, earlier if share else "", share)
                    for _ in range(self._grid.repeats)
                ]
                known = [one for one in timed if one is not None]
                if known:
                    rows.append(_median(known, number, endpoint, concurrency, beyond))
        return rows

    async def _time(
        self, background: _Background, endpoint: Endpoint, length: int, earlier: str, share: float
    ) -> tuple[Call, int, int, float | None] | None:
        """A timed call, the others' context at its first token and half-way, their stall; None if hits are unknown."""
        kept = earlier.split(" ")[: round(share * len(earlier.split(" ")))]
        for _ in range(_TRIES):
            text = " ".join(kept + self.prompt(endpoint, length).split(" ")[len(kept) :])
            await background.settle()
            before = await self._server.prefix_hits()
            call = await self._server.stream(endpoint, text, _OUTPUT)
            if call.pace is not None:
                break
        else:
            raise ServerError(f"{self._server.url}: its tokens come all at once, expected it to stream them")
        if call.cached_tokens is None:
            after = await self._server.prefix_hits()
            if before is not None and after is not None:
                call.cached_tokens = after - before
            elif not earlier:
                call.cached_tokens = 0
            else:
                return None
        first, last = call.arrivals[0][0], call.arrivals[-1][0]
        # No step with a prefill is shorter than those without: what seems so was read late before.
        least = call.pace / 2 if call.pace is not None else 0.0
        gaps = [gap for other in background.calls if (gap := other.gap_at(first)) is not None and gap >= least]
        contexts = [background.context(moment) for moment in (first, (first + last) / 2)]
        return call, contexts[0], contexts[1], statistics.median(gaps) if gaps else None

    def prompt(self, endpoint: Endpoint, tokens: int) -> str:
        """Random words of about so many tokens, by what the server counted before."""
        fixed, each = self._words_for[endpoint]
        return self._text(max(round((tokens - fixed) / each), 1))

    def _text(self, words: int) -> str:
        return " ".join(self._rng.choice(_WORDS, words).tolist())

    @property
    def server(self) -> Server:
        """What is measured."""
        return self._server


class _Background:
    """Calls that are kept decoding while others are timed."""

    def __init__(self, measuring: Measuring, endpoint: Endpoint, length: int, number: int) -> None:
        self._measuring, self._endpoint, self._length = measuring, endpoint, length
        self._tasks: list[asyncio.Task[Call] | None] = [None] * number
        self.calls = [Call(0.0) for _ in range(number)]

    async def __aenter__(self) -> _Background:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(ended(task) for task in self._tasks if task is not None))

    def context(self, moment: float) -> int:
        """Tokens of all of them, prompt and output, at that moment."""
        return sum(call.prompt_tokens + call.tokens_at(moment) for call in self.calls)

    async def settle(self) -> None:
        """Start those that are not running, or end soon, and wait until all decode.

        Raises
        ------
        ServerError
            If some wait for a place while the others go on.
        """
        longest = self._measuring.server.max_model_len or self._length + 8 * _ROOM
        room = longest - round(_SLACK * self._length)
        for k, task in enumerate(self._tasks):
            if task is not None and not task.done() and self.calls[k].tokens < room - _ROOM // 2:
                continue
            if task is not None:
                await ended(task)
            self.calls[k] = call = Call(time.perf_counter())
            text = self._measuring.prompt(self._endpoint, self._length)
            streamed = self._measuring.server.stream(self._endpoint, text, room, call)
            self._tasks[k] = asyncio.create_task(streamed)
        wanted = [call.tokens + _SETTLE for call in self.calls]
        # While prompts are computed, a token is written a step, of which each may take several.
        patience = 64 + len(self.calls) * (4 + self._length // 256)
        started = time.perf_counter()
        while any(call.tokens < least for call, least in zip(self.calls, wanted, strict=True)):
            for task in self._tasks:
                if task is not None and task.done():
                    task.result()
            running = sum(call.tokens > 0 for call in self.calls)
            late = time.perf_counter() - started > _LATE
            if late and running < len(self.calls) and any(call.tokens > patience for call in self.calls):
                raise ServerError(
                    f"{self._measuring.server.url}: runs {running} of {len(self.calls)} calls of {self._length} tokens "
                    "at once: expected a concurrency of at most its --max-num-seqs, and prompts that fit its KV cache"
                )
            await asyncio.sleep(0.002)


def _median(
    timed: Sequence[tuple[Call, int, int, float | None]],
    number: int,
    endpoint: Endpoint,
    concurrency: int,
    beyond: bool,
) -> Measurement:
    stalls = [stall for *_, stall in timed if stall is not None]
    calls = [call for call, *_ in timed]
    prompt = round(statistics.median(call.prompt_tokens for call in calls))
    return Measurement(
        point=number,
        endpoint=endpoint,
        prompt_tokens=prompt,
        cached_tokens=round(statistics.median(call.cached_tokens or 0 for call in calls)),
        concurrency=concurrency,
        others_context=round(statistics.median(first for _, first, _, _ in timed)),
        ttft_s=statistics.median(call.arrivals[0][0] - call.sent for call in calls),
        stall_s=statistics.median(stalls) if stalls else None,
        inter_token_s=statistics.median(call.pace for call in calls if call.pace is not None),
        decode_context=round(statistics.median(middle for _, _, middle, _ in timed)) + prompt + _OUTPUT // 2,
        beyond=beyond,
        repeats=len(timed),
    )
