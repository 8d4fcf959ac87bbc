"""vLLM V1's prefix cache block by block: hash chains, reference counts, one free queue.

After ``vllm/v1/core/block_pool.py`` and ``kv_cache_manager.py``, in the versions where every freed block goes to the
back of the queue; newer ones put a freed block without a hash (a request's last, partly filled one) at the front.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(eq=False)
class Block:
    """A KV block; ``chain`` is the hash of its content and all before it, None while it is not full."""

    number: int
    chain: Hashable = None
    references: int = 0


class BlockLevelCache:
    """The block pool of one engine."""

    def __init__(self, blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.pool = [Block(number) for number in range(blocks)]
        self.free_queue = list(self.pool)
        # More than one block may hold the same content; the oldest entry is the one found.
        self.by_chain: dict[Hashable, list[Block]] = {}

    def chains(self, tokens: Sequence[Hashable]) -> list[int]:
        """Hash of every full block: of its own tokens and of the block before."""
        chains: list[int] = []
        previous = 0
        for end in range(self.block_size, len(tokens) + 1, self.block_size):
            previous = hash((previous, tuple(tokens[end - self.block_size : end])))
            chains.append(previous)
        return chains

    def find(self, tokens: Sequence[Hashable]) -> list[Block]:
        """Cached blocks of the longest known prefix that leaves at least one token to compute."""
        found: list[Block] = []
        for chain in self.chains(tokens)[: (len(tokens) - 1) // self.block_size]:
            if chain not in self.by_chain:
                break
            found.append(self.by_chain[chain][0])
        return found

    def touch(self, blocks: Sequence[Block]) -> None:
        """One reference more on each."""
        for block in blocks:
            if block.references == 0:
                self.free_queue.remove(block)
            block.references += 1

    def grow(self, table: list[Block], tokens: Sequence[Hashable]) -> None:
        """Lengthen a request's block table so that it covers ``tokens``, and hash what is full."""
        for _ in range(math.ceil(len(tokens) / self.block_size) - len(table)):
            block = self.free_queue.pop(0)
            assert block.references == 0
            if block.chain is not None:
                self.by_chain[block.chain].remove(block)
                if not self.by_chain[block.chain]:
                    del self.by_chain[block.chain]
                block.chain = None
            block.references = 1
            table.append(block)
        for block, chain in zip(table, self.chains(tokens), strict=False):
            if block.chain is None:
                block.chain = chain
                self.by_chain.setdefault(chain, []).append(block)
            assert block.chain == chain

    def release(self, table: Sequence[Block]) -> None:
        """One reference less on each, last block first."""
        for block in reversed(table):
            block.references -= 1
            if block.references == 0:
                self.free_queue.append(block)

    def check(self) -> None:
        """Assert that every block is either free or referenced, and that the index knows just the hashed ones."""
        free = sorted(block.number for block in self.free_queue)
        assert free == [block.number for block in self.pool if block.references == 0]
        indexed = [block for blocks in self.by_chain.values() for block in blocks]
        assert sorted(b.number for b in indexed) == [b.number for b in self.pool if b.chain is not None]
