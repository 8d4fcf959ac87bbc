"""What deadline-aware policies believe of a call, in plain Python: its output tokens, its tail, its service time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from random_workload import Oracle

from hexopt.policies.knowledge import alone_seconds
from hexopt.simulation.state import NONE

K = 8.0


class BelievingOracle(Oracle):
    """Starts from the training, learns from every call and workflow that has ended, and from nothing else."""

    def beliefs(self, board: Any, r: int) -> tuple[float, float]:
        """Expected output tokens and tail of call ``r``: means, shrunk toward the kind's and that toward all."""
        call = board.stage[r]
        ended = board.stage[~np.isnan(board.stage["finish"])]
        lengths = [(int(s["kind"]), bucket_of(s), float(s["output"])) for s in ended]
        tails = []
        for w in np.flatnonzero(~np.isnan(board.workflow["finish"])):
            first, count = (int(board.workflow[name][w]) for name in ("first_stage", "stages"))
            for r in range(first, first + count):
                nth = min(int(board.stage["occurrence"][r]), 15)
                tails.append((int(board.stage["kind"][r]), nth, self.tail_of(board, r)))
        kind = int(call["kind"])
        output = shrunk(self.training.lengths, lengths, kind, bucket_of(call), prior=128.0)
        return output, shrunk(self.training.tails, tails, kind, min(int(call["occurrence"]), 15))

    def tail_of(self, board: Any, r: int) -> float:
        """Seconds from the end of call ``r`` to its workflow's, had each call then run alone on the mean instance."""
        call, tail = board.stage[r], 0.0
        for c in board.child[call["first_child"] : call["first_child"] + call["children"]]:
            child = board.stage[c]
            took = self.mean_seconds(board, child["prompt"], child["output"], child["cached"])
            tail = max(tail, child["tool_delay"] + took + self.tail_of(board, c))
        return tail

    def mean_seconds(self, board: Any, prompt: float, output: float, cached: float = 0) -> float:
        return alone_seconds(self.fleet.coef.mean(axis=0), prompt, cached, output, board.instance["max_batched"][0])

    def here(self, board: Any, i: int) -> list[int]:
        """Calls that run or wait at instance ``i``."""
        stage = board.stage
        return np.flatnonzero((stage["instance"] == i) & np.isnan(stage["finish"])).tolist()

    def least_loaded(self, board: Any) -> int:
        """Fewest calls, this one included, for the speed on the mean calls of the training."""
        training, fleet = self.training, self.fleet
        calls = list(zip(training.prompt, training.output, training.calls, strict=True))

        def load(i: int) -> float:
            seconds = sum(n * alone_seconds(fleet.coef[i], p, 0.0, o, float(fleet.max_batched[i])) for p, o, n in calls)
            return (len(self.here(board, i)) + 1) * seconds

        return min(range(len(board.instance)), key=load)


def bucket_of(call: Any) -> int:
    return int(math.log2(call["prompt"]))


def shrunk(before: Any, seen: list[tuple[int, int, float]], kind: int, key: int, prior: float | None = None) -> float:
    """Mean of (kind, key) over the training's and the ``seen`` values; ``prior`` counts as one value more."""

    def sums(row: int, column: int, values: list[float]) -> tuple[float, float]:
        return float(before.total[row, column]) + sum(values), float(before.seen[row, column]) + len(values)

    total, count = sums(NONE, NONE, [v for _, _, v in seen])
    overall = (total + prior) / (count + 1) if prior is not None else total / max(count, 1)
    total, count = sums(kind, NONE, [v for k, _, v in seen if k == kind])
    of_kind = (total + K * overall) / (count + K)
    total, count = sums(kind, key, [v for k, b, v in seen if (k, b) == (kind, key)])
    return (total + K * of_kind) / (count + K)
