"""Whether live traffic bears out what simulation promised, after weights have changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from scipy import stats

LEAST = 40
"""Workflows on either side before anything is concluded."""
MOST = 640
"""Workflows after the change, at which the weights have proved themselves."""
_HEAVIER = 1.25
"""Times the arrival rate before; under more load, more misses are no fault of the weights."""
_DOUBT = 0.005
"""Chance of so many misses if the weights were as good as before, below which they are not. Looks are taken when their
number has doubled, five at most, so that good weights are rolled back in one case of forty at most."""


class Outcome(Enum):
    """What is to be done."""

    WAIT = "wait"
    KEEP = "keep"
    ROLL_BACK = "roll back"


@dataclass(frozen=True, slots=True)
class Ended:
    """A workflow whose deadline has passed, or that has ended before."""

    arrival: float
    met: bool


class Watch:
    """Compares the share in time before and after a change, by Fisher's exact test, at comparable load.

    Parameters
    ----------
    before
        What ended before the change.
    changed
        When that was, unix seconds.
    """

    def __init__(self, before: Sequence[Ended], changed: float) -> None:
        self.changed = changed
        self._met = sum(e.met for e in before)
        self._missed = len(before) - self._met
        since = min((e.arrival for e in before), default=changed)
        self._rate = len(before) / max(changed - since, 1e-9)
        self._next_look = LEAST
        self.found: dict[str, Any] = {"before": _share(self._met, len(before)), "after": None, "workflows": 0}

    def judge(self, after: Sequence[Ended], now: float) -> Outcome:
        """What the workflows that arrived after the change say at ``now``."""
        met, count = sum(e.met for e in after), len(after)
        rate = count / max(now - self.changed, 1e-9)
        self.found |= {"after": _share(met, count), "workflows": count, "load": rate / max(self._rate, 1e-9)}
        if self._met + self._missed < LEAST:
            return Outcome.KEEP  # nothing to compare with
        if count >= self._next_look and rate <= _HEAVIER * self._rate:
            self._next_look = 2 * count
            table = [[met, count - met], [self._met, self._missed]]
            if float(stats.fisher_exact(table, alternative="less").pvalue) < _DOUBT:
                return Outcome.ROLL_BACK
            if count >= MOST:
                return Outcome.KEEP
        return Outcome.WAIT


def _share(met: int, count: int) -> float | None:
    return met / count if count else None
