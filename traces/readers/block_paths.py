"""From lists of prefix-block hashes to a few shared segments."""

from __future__ import annotations

from collections.abc import Sequence

from hexopt.traces.workflow import Prefix


class BlockPaths:
    """Names the runs of prefix blocks that prompts share, as a radix tree that grows with every prompt.

    A prompt of a thousand blocks becomes one ``Prefix`` for every place where some earlier prompt left its
    path, not a thousand. A segment is the list of blocks some prompt first brought; a prompt that goes on
    where a segment ends makes it longer, a prompt that leaves it in the middle starts a segment of its own
    there. Two prompts then share exactly the blocks on which their lists agree from the start: equal segments
    up to the first one that either of them cuts short.

    Parameters
    ----------
    block_tokens
        Tokens a block.
    local
        Whether only one workflow shares the blocks.
    """

    def __init__(self, block_tokens: int, *, local: bool) -> None:
        self.block_tokens = block_tokens
        self.local = local
        self._segments: list[list[int]] = []
        self._branches: dict[tuple[int, int, int], int] = {}

    def prefixes(self, blocks: Sequence[int], prompt_tokens: int) -> tuple[Prefix, ...]:
        """Return the shared segments of a prompt and remember it.

        Parameters
        ----------
        blocks
            Hash ids of the prompt's blocks from position zero.
        prompt_tokens
            Length of the prompt; a last block that it does not fill is left out: servers share full blocks.
        """
        wanted = list(blocks[: prompt_tokens // self.block_tokens])
        path: list[tuple[int, int]] = []
        place, start = (-1, 0), 0
        while start < len(wanted):
            branch = (*place, wanted[start])
            segment = self._branches.get(branch)
            if segment is None:
                segment = self._branches[branch] = len(self._segments)
                self._segments.append(wanted[start:])
            held = self._segments[segment]
            shared = _agreement(held, wanted, start)
            if shared == len(held):
                held.extend(wanted[start + shared :])
                shared = len(wanted) - start
            path.append((segment, shared))
            place, start = (segment, shared), start + shared
        return tuple(Prefix(f"blocks-{segment}", n * self.block_tokens, self.local) for segment, n in path)


def _agreement(held: list[int], wanted: list[int], start: int) -> int:
    """Return how many of ``held`` equal ``wanted[start:]`` from the start, by halving over slice compares."""
    low, high = 0, min(len(held), len(wanted) - start)
    if held[:high] == wanted[start : start + high]:
        return high
    while low + 1 < high:
        middle = (low + high) // 2
        if held[low:middle] == wanted[start + low : start + middle]:
            low = middle
        else:
            high = middle
    return low
