"""FastSwitch (A. Shen, Z. Li and M. Gao, arXiv 2411.18424): preemption for fairness, by cheap swaps.

It changes how calls are swapped, not which: priorities are drawn anew every so many steps, the calls of highest
priority that fit are resident, all others are swapped to host memory. Against vLLM's swapping it copies groups of
blocks (``grouped``), lets the engine go on meanwhile (``overlap``) and copies only what the host does not have yet
(``reuse``). With the three off it is vLLM's swapping under the same priorities. Seconds of a copy, either way::

    calls * max(t_call, chunk bytes / bandwidth)

a chunk being a block, or all of the tokens, of one layer's keys or values.

The rule runs in the simulated instance (:mod:`hexopt.simulation.fairness`, :mod:`hexopt.simulation.hostmemory`), which
this policy switches on; calls go to the instance with the fewest.

Source: the abstract, and readers' notes on the paper: 60 GB of host memory a GPU, PCIe 4.0 x16; priority-update
frequency 0.04 for LLaMA-8B and 0.02 for Qwen-32B, read as a draw every 25 and 50 steps; patterns Random and Markov.

Assumed: 10 us for a copy at least, 32 GB/s; a group is all of a call's blocks; Random draws every call's priority from
a uniform distribution, Markov keeps it with probability 0.9 (``stay``) and draws it otherwise.

Deviations: priorities are drawn as the run goes, not beforehand; copies are not kept from one turn of a conversation
to the next; blocks are used again before their copy to the host is done; swap-in always overlaps, where FastSwitch
chooses.
"""

# mypy: ignore-errors
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hexopt.memory_rules import Swap
from hexopt.policies import compiled
from hexopt.policies.linked import Labelled, check_positive
from hexopt.simulation.mechanisms import switch_redraw, switch_swap


@dataclass(frozen=True)
class FastSwitch(Labelled):
    """Priorities that are drawn anew, and swaps.

    Parameters
    ----------
    every
        Steps between two draws.
    pattern
        ``random`` or ``markov``.
    stay
        Probability that ``markov`` keeps a priority.
    grouped, overlap, reuse
        The three mechanisms.
    host_gb
        GB of host memory for each GPU; 0: recompute.
    """

    every: float = 25.0
    pattern: str = "random"
    stay: float = 0.9
    grouped: bool = True
    overlap: bool = True
    reuse: bool = True
    host_gb: float = 60.0

    name: ClassVar[str] = "fastswitch-style"
    code: ClassVar[int] = compiled.LEAST_LOADED
    live: ClassVar[bool] = False

    def __post_init__(self) -> None:
        from hexopt.policies.registry import PolicyError

        if self.pattern not in ("random", "markov"):
            raise PolicyError(f"policy {self.name!r}: pattern is {self.pattern!r}, expected random or markov")
        if not 0.0 <= self.stay < 1.0:
            raise PolicyError(f"policy {self.name!r}: stay is {self.stay:g}, expected 0 to less than 1")
        check_positive(self, "every")

    def configure(self, instance: NDArray[np.void]) -> None:
        swap = None
        if self.host_gb > 0.0:
            granularity = "group" if self.grouped else "block"
            swap = Swap(gb=self.host_gb, granularity=granularity, overlap=self.overlap, reuse=self.reuse)
        for row in instance:
            switch_swap(row, swap)
            switch_redraw(row, max(int(self.every), 1), self.stay if self.pattern == "markov" else 0.0)
