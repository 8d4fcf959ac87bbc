"""How an instance deals with KV memory that is short, beyond vLLM V1: swap to host memory, and admission by a rule."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

RULES = ("fits", "aggressive", "conservative", "past-future", "true")
"""Admission rules, by their numbers in :mod:`hexopt.simulation.state`."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Swap(_Strict):
    """Host memory that KV goes to on preemption, and after a call where that is asked for, instead of being lost.

    ``call_us`` and ``gb_per_s`` are assumptions: what a copy costs at least (10 us) and PCIe 4.0 x16 (32 GB/s).

    Parameters
    ----------
    gb
        GB (10^9 bytes) of it for each GPU of the instance.
    granularity
        Whether a block of one layer's keys or values is a copy of its own, or all of a call's blocks are (``group``).
    overlap
        Whether the engine goes on while it copies, or its step waits.
    reuse
        Whether a copy stays when its call goes back to the GPU, so that only what is new need be copied again.
    keep
        Whether what a call has left stays there, too, for the next calls of its workflow.
    call_us, gb_per_s
        Least microseconds of a copy; bandwidth of the link, GB a second.
    """

    gb: float = Field(gt=0, le=1e6, allow_inf_nan=False)
    granularity: Literal["block", "group"] = "block"
    overlap: bool = False
    reuse: bool = False
    keep: bool = False
    call_us: float = Field(default=10.0, ge=0, le=1e6, allow_inf_nan=False)
    gb_per_s: float = Field(default=32.0, gt=0, le=1e6, allow_inf_nan=False)


class Admission(_Strict):
    """A rule by which an instance admits calls, instead of whether they fit now.

    Parameters
    ----------
    rule
        One of ``RULES``, see docs/simulated-instance.md.
    share
        Share of the memory that the rule may fill; None: 0.97 for ``past-future``, 0.95 for ``aggressive``, else 1.
    every
        Steps between two looks at those that wait.
    max_prefill
        Tokens of prompts admitted at a look after which it ends.
    max_new
        Output tokens that any call may ask for.
    window
        Output lengths that ``past-future`` remembers; at first half as many of 512 tokens.
    """

    rule: Literal["fits", "aggressive", "conservative", "past-future", "true"]
    share: float | None = Field(default=None, gt=0, le=1)
    every: int = Field(default=10, ge=1, le=1 << 20)
    max_prefill: int = Field(default=32768, ge=1, le=1 << 30)
    max_new: int = Field(default=4096, ge=1, le=1 << 20)
    window: int = Field(default=1000, ge=2, le=1 << 20)

    @property
    def filled(self) -> float:
        """``share``, or the rule's own."""
        return self.share if self.share is not None else {"past-future": 0.97, "aggressive": 0.95}.get(self.rule, 1.0)
