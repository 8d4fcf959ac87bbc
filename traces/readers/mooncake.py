"""Single calls with prefix-block hashes: the Mooncake traces (FAST'25, kvcache-ai/Mooncake)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hexopt.traces.readers.block_paths import BlockPaths
from hexopt.traces.readers.fields import field, mapping, number, sequence, shown, tokens
from hexopt.traces.readers.source import Source, parse_json
from hexopt.traces.workflow import Stage, TraceError, Workflow

BLOCK_TOKENS = 512
"""Tokens a hashed block, as the Mooncake paper and repository state."""

TEMPLATE_CONTINUATIONS = 3
"""A prompt that goes on in at least this many different ways is a template, not a conversation."""


@dataclass(frozen=True, slots=True)
class _Call:
    line: int
    time: float
    prompt: int
    output: int
    blocks: list[int]

    @property
    def full_blocks(self) -> list[int]:
        """Hashes of the blocks that the prompt fills."""
        return self.blocks[: self.prompt // BLOCK_TOKENS]

    @property
    def last_block(self) -> int | None:
        """Hash of the last block that the prompt fills, which stands for the whole prompt up to there."""
        full = self.full_blocks
        return full[-1] if full else None


def read(source: Source) -> Iterator[Workflow]:
    """Yield the calls of ``{"timestamp", "input_length", "output_length", "hash_ids"}`` lines.

    ``timestamp`` is in milliseconds. A hash id stands for its block of 512 tokens and everything before it,
    so equal ids are equal prompts from position zero; prefixes are global.

    With ``source.chain_sessions`` a call becomes the successor of an earlier one, in one workflow, where all
    of these hold:

    * the full blocks of the earlier prompt are the start of the later one, and the later prompt is longer;
    * of all such earlier prompts it has the most full blocks, and of these it is the latest;
    * that start goes on in fewer than ``TEMPLATE_CONTINUATIONS`` different ways over the whole file. A system
      prompt that everybody shares goes on in as many ways as it has conversations, so it joins nobody.

    The trace does not say when a call ended. The delay of a successor is the difference of the two timestamps
    where it is positive, which includes the earlier call's unknown service time: replayed conversations are
    slower than the recorded ones by that much. Calls without prompt or output tokens are skipped and counted.
    """
    if source.chain_sessions:
        yield from _sessions(list(_calls(source)))
        return
    paths = BlockPaths(BLOCK_TOKENS, local=False)
    for call in _calls(source):
        yield Workflow(f"call-{call.line}", (_stage(call, paths, "0"),), call.time, family="chat")


def _calls(source: Source) -> Iterator[_Call]:
    start: float | None = None
    for line, content in source.lines():
        with source.at(f"line {line}"):
            record = mapping(parse_json(content), "the record")
            time = number(record, "timestamp") / 1e3
            prompt, output = tokens(record, "input_length"), tokens(record, "output_length")
            blocks = _blocks(field(record, "hash_ids"))
            start = time if start is None else start
            if time < start:
                raise TraceError(f"timestamp is before that of the first record, {start * 1e3:g}")
            if prompt and output:
                yield _Call(line, time - start, prompt, output, blocks)
            else:
                source.tally("skipped {n} calls without prompt or output tokens")


def _blocks(value: Any) -> list[int]:
    blocks = sequence(value, "hash_ids")
    if not all(type(block) is int for block in blocks):
        wrong = next(block for block in blocks if type(block) is not int)
        raise TraceError(f"hash_ids holds {shown(wrong)}, expected whole numbers")
    return blocks


def _stage(call: _Call, paths: BlockPaths, id_: str, parent: str = "", delay: float = 0.0) -> Stage:
    return Stage(
        id=id_,
        kind="chat",
        prompt_tokens=call.prompt,
        output_tokens=call.output,
        parents=(parent,) if parent else (),
        prefixes=paths.prefixes(call.blocks, call.prompt),
        tool_delay=delay,
    )


def _sessions(calls: list[_Call]) -> Iterator[Workflow]:
    templates = _templates(calls)
    paths = BlockPaths(BLOCK_TOKENS, local=False)
    ending: dict[int, list[int]] = {}
    sessions: list[tuple[_Call, list[Stage]]] = []
    homes: list[tuple[list[Stage], str]] = []
    for index, call in enumerate(calls):
        before = _predecessor(call, calls, ending, templates)
        if before is None:
            stages: list[Stage] = [_stage(call, paths, "0")]
            sessions.append((call, stages))
        else:
            stages, parent = homes[before]
            delay = max(0.0, call.time - calls[before].time)
            stages.append(_stage(call, paths, f"{len(stages)}", parent, delay))
        homes.append((stages, stages[-1].id))
        if call.last_block is not None:
            ending.setdefault(call.last_block, []).append(index)
    for call, stages in sessions:
        yield Workflow(f"call-{call.line}", tuple(stages), call.time, family="chat")


def _predecessor(call: _Call, calls: list[_Call], ending: dict[int, list[int]], templates: set[int]) -> int | None:
    for block in reversed(call.full_blocks):
        if block in templates:
            continue
        for index in reversed(ending.get(block, ())):
            if calls[index].prompt < call.prompt:
                return index
    return None


def _templates(calls: list[_Call]) -> set[int]:
    continuations: dict[int, set[int]] = {}
    for call in calls:
        for block, following in pairwise(call.full_blocks):
            continuations.setdefault(block, set()).add(following)
    return {block for block, after in continuations.items() if len(after) >= TEMPLATE_CONTINUATIONS}
