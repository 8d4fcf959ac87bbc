"""How much of every prompt an infinite prefix cache would already hold."""

from __future__ import annotations

from collections.abc import Iterator

from hexopt.traces.workflow import Stage, Workflow


class _Run:
    """Tokens of one segment at one place, as far as any prompt went, and what came next where one stopped."""

    __slots__ = ("branches", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.branches: _Branches = {}


_Branches = dict[tuple[int, str, bool], _Run]


class InfiniteCache:
    """Remembers all prompts and all outputs that later prompts quote.

    Two prompts share the longest run of equal tokens from position zero: equal segments, and the first one
    that either cuts short as far as both have it. A segment directly after itself goes on. Local segments,
    and all after them, are shared within one workflow only.
    """

    def __init__(self) -> None:
        self._start: _Branches = {}

    def add(self, workflow: Workflow) -> list[int]:
        """Remember a workflow's calls in order, and return how many prompt tokens of each were there before.

        Returns
        -------
        list of int
            One a stage, in the order of ``workflow.stages``; tokens, not rounded down to cache blocks.
        """
        own: list[tuple[_Branches, tuple[int, str, bool]]] = []
        found = [self._add(stage, own) for stage in workflow.stages]
        for branches, key in own:
            del branches[key]
        return found

    def _add(self, stage: Stage, own: list[tuple[_Branches, tuple[int, str, bool]]]) -> int:
        branches, stopped, found = self._start, 0, 0
        reached = 0
        inside = False
        for segment, local, tokens in _path(stage):
            key = (stopped, segment, local)
            run = branches.get(key)
            if run is None:
                run = branches[key] = _Run()
                if local and not inside:
                    own.append((branches, key))
            found += max(0, min(tokens, run.tokens, stage.prompt_tokens - reached))
            run.tokens = max(run.tokens, tokens)
            branches, stopped, inside = run.branches, tokens, local
            reached += tokens
        return found


def _path(stage: Stage) -> Iterator[tuple[str, bool, int]]:
    """Yield (segment, local, tokens) of prompt and quoted output, a segment after itself joined to it."""
    pieces = [(prefix.segment, prefix.local, prefix.tokens) for prefix in stage.prefixes]
    if stage.output_segment is not None:
        pieces.append((stage.output_segment, True, stage.output_tokens))
    last: tuple[str, bool, int] | None = None
    for segment, local, tokens in pieces:
        if last is not None:
            local = local or last[1]
            if last[:2] == (segment, local):
                last = (segment, local, last[2] + tokens)
                continue
            yield last
        last = (segment, local, tokens)
    if last is not None:
        yield last
