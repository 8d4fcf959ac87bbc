"""Room on the instances: what they could admit at their next step, less what is kept for expected stages."""

# mypy: ignore-errors
from __future__ import annotations

from typing import Any

import numpy as np

from hexopt.models.kernel import kernel
from hexopt.simulation.state import NONE, Simulation


class Room:
    """Seats and blocks of each instance that are free once its waiting calls are admitted.

    Parameters
    ----------
    expected
        Rank, instance and prompt tokens of the expected stages that those of higher rank leave room for.
    """

    def __init__(self, board: Simulation, expected: list[tuple[int, int, float]]) -> None:
        instance: Any = board.instance
        self._seats = (instance["max_seqs"] - instance["running"] - instance["waiting"]).astype(np.int64)
        self._blocks = instance["free"].astype(np.int64)
        self._size = instance["block_size"]
        self._idle = instance["running"] + instance["waiting"] == 0
        self._expected = expected[::-1]
        _less_waiting(board, self._blocks)

    def take(self, i: int, rank: int, new: float) -> bool:
        """Take room for a stage of ``rank`` on instance ``i``; False if there is none.

        On an idle instance there always is, but for what is expected there.
        """
        while self._expected and self._expected[-1][0] < rank:
            _, there, tokens = self._expected.pop()
            self._reduce(there, tokens)
        if not self._idle[i] and (self._seats[i] < 1 or self._blocks[i] < self._needed(i, new)):
            # Nothing passes it: a smaller one behind would keep it waiting for ever.
            self._seats[i] = 0
            return False
        self._reduce(i, new)
        return True

    def _needed(self, i: int, new: float) -> int:
        return -(-int(new) // int(self._size[i])) + 1

    def _reduce(self, i: int, new: float) -> None:
        self._idle[i] = False
        self._seats[i] -= 1
        self._blocks[i] -= self._needed(i, new)


@kernel
def _less_waiting(sim, blocks):
    """Subtract what the calls that wait at each instance will take."""
    for i in range(blocks.shape[0]):
        inst = sim.instance[i]
        if inst.waiting == 0:
            continue
        other = inst.first_here
        while other != NONE:
            there = sim.stage[other]
            if there.held == 0:
                blocks[i] -= int(there.expected_new) // inst.block_size + 1
            other = there.next_here
