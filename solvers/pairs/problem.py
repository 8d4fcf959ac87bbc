"""The pair problem: which waiting calls prefill where, decode where, in what order. ``docs/formulation.md``, "Pairs".

Times are seconds from now. Calls are numbered 0 .. n-1, prefill instances 0 .. p-1, decode instances 0 .. d-1,
workflows 0 .. q-1.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hexopt.solvers.problem import (
    ObjectiveWeights,
    ProblemError,
    Valid,
    at_least,
    at_least_0_or_infinite,
    checked,
    finite,
    index,
    positive_or_infinite,
    whole,
)


@dataclass(frozen=True, eq=False, kw_only=True)
class PairProblem:
    """One epoch on a cluster whose instances either prefill or decode. Everything from ``prefill_free`` on is optional.

    Parameters
    ----------
    prefill
        Seconds that the prompt takes, prefix cache counted; infinite where it cannot run. Shape (n, p).
    decode
        Seconds from admission to the last token at the company that the instance has; infinite where it cannot run.
        Shape (n, d).
    transfer
        Seconds from the end of the prefill until the KV cache is at the decode instance; infinite without a link.
        Shape (n, p, d).
    tail
        Seconds from the call's end to its workflow's end, shape (n,).
    workflow
        Which workflow it is of, shape (n,).
    due, weight
        Seconds until the workflow is due, negative if it is late already; its weight. Shape (q,).
    kv
        KV tokens that the call reserves while it decodes: its prompt and its expected output. Shape (n,).
    kv_capacity
        KV tokens of the decode instances, shape (d,).
    prefill_free
        Seconds until the instance is done with the prompts that it has, shape (p,).
    busy_instance, busy_until, busy_kv
        Calls decoding now: where, until when, reserving what. Shape (b,).
    seats
        Calls that a decode instance runs together; unlimited if left out. Shape (d,).
    release
        Seconds before which the prefill cannot start, shape (n,).
    kv_ready
        Seconds until the KV cache of a call whose prefill is settled is at each decode instance; infinite where it must
        not go. A call without a finite number is yet to be prefilled. Shape (n, d).
    bound
        Decode instance that the call is bound to, -1 for none. Shape (n,).
    hold
        Seconds until it would end if it were held now, infinite where it must not be. Shape (n,).
    imposed
        Weighted seconds by which it delays the calls that decode there already, shape (n, d).
    weights
        What the terms cost: ``tardiness``, ``late``, ``completion`` and ``imposed``; there is nothing for the others to
        weigh.

    Raises
    ------
    ProblemError
        Naming the array and the first bad place; also if a call that must not be held has no pair.
    """

    prefill: NDArray[np.float64]
    decode: NDArray[np.float64]
    transfer: NDArray[np.float64]
    tail: NDArray[np.float64]
    workflow: NDArray[np.int64]
    due: NDArray[np.float64]
    weight: NDArray[np.float64]
    kv: NDArray[np.int64]
    kv_capacity: NDArray[np.int64]
    prefill_free: ArrayLike | None = None
    busy_instance: ArrayLike = ()
    busy_until: ArrayLike = ()
    busy_kv: ArrayLike = ()
    seats: ArrayLike | None = None
    release: ArrayLike | None = None
    kv_ready: ArrayLike | None = None
    bound: ArrayLike | None = None
    hold: ArrayLike | None = None
    imposed: ArrayLike | None = None
    weights: ObjectiveWeights = field(default_factory=ObjectiveWeights)

    def __post_init__(self) -> None:
        n, p = _shape("prefill", self.prefill)
        d = _shape("decode", self.decode)[1]
        q, b = np.size(self.due), np.size(self.busy_instance)
        at_least_0, tokens = at_least(0.0), whole(0.0)
        self._set("prefill", (n, p), np.float64, positive_or_infinite)
        self._set("decode", (n, d), np.float64, positive_or_infinite)
        self._set("transfer", (n, p, d), np.float64, at_least_0_or_infinite)
        self._set("tail", (n,), np.float64, at_least_0)
        self._set("workflow", (n,), np.int64, index(q))
        self._set("due", (q,), np.float64, finite)
        self._set("weight", (q,), np.float64, at_least_0)
        self._set("kv", (n,), np.int64, tokens)
        self._set("kv_capacity", (d,), np.int64, tokens)
        self._set("prefill_free", (p,), np.float64, at_least_0, 0.0)
        self._set("busy_instance", (b,), np.int64, index(d))
        self._set("busy_until", (b,), np.float64, at_least_0)
        self._set("busy_kv", (b,), np.int64, tokens)
        self._set("seats", (d,), np.int64, whole(1.0), max(1, n + b))
        self._set("release", (n,), np.float64, at_least_0, 0.0)
        self._set("kv_ready", (n, d), np.float64, at_least_0_or_infinite, np.inf)
        self._set("bound", (n,), np.int64, index(d, -1), -1)
        self._set("hold", (n,), np.float64, positive_or_infinite, np.inf)
        self._set("imposed", (n, d), np.float64, at_least_0, 0.0)
        lost = ~self.possible.any(axis=(1, 2)) & np.isinf(np.asarray(self.hold))
        if lost.any():
            r = int(np.argmax(lost))
            raise ProblemError(f"call {r}: no pair has finite prefill, transfer, decode and enough kv_capacity, nor is "
                               f"hold[{r}] finite")  # fmt: skip

    def _set(self, name: str, shape: tuple[int, ...], dtype: type, valid: Valid, default: float | None = None) -> None:
        object.__setattr__(self, name, checked(name, getattr(self, name), shape, dtype, valid, default))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # Pickling thaws arrays, and kernels would be compiled anew for arrays that can be written.
        for each in fields(self):
            value = state[each.name]
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    @property
    def calls(self) -> int:
        """n."""
        return int(self.prefill.shape[0])

    @property
    def prefills(self) -> int:
        """p."""
        return int(self.prefill.shape[1])

    @property
    def decodes(self) -> int:
        """d."""
        return int(self.decode.shape[1])

    @cached_property
    def settled(self) -> NDArray[np.bool_]:
        """Calls whose prefill is settled: only where they decode is open. Shape (n,)."""
        result: NDArray[np.bool_] = np.isfinite(np.asarray(self.kv_ready)).any(axis=1)
        return result

    @cached_property
    def arrival(self) -> NDArray[np.float64]:
        """Seconds from the start of the prefill to the KV cache's arrival, infinite where a pair cannot be.

        For a settled call, ``kv_ready`` in the first prefill instance's place, infinite in the others'. Shape
        (n, p, d).
        """
        given: Any = self
        decodes = (
            np.isfinite(given.decode)
            & (given.kv[:, None] <= given.kv_capacity)
            & ((given.bound[:, None] == -1) | (given.bound[:, None] == np.arange(self.decodes)))
        )
        result: NDArray[np.float64] = given.prefill[:, :, None] + given.transfer
        result[self.settled] = np.inf
        result[self.settled, 0] = given.kv_ready[self.settled]
        result[np.broadcast_to(~decodes[:, None], result.shape)] = np.inf
        return result

    @cached_property
    def possible(self) -> NDArray[np.bool_]:
        """Which pairs each call may take; a settled call's in the first prefill instance's place. Shape (n, p, d)."""
        result: NDArray[np.bool_] = np.isfinite(self.arrival)
        return result


def _shape(name: str, array: Any) -> tuple[int, int]:
    shape = np.shape(array)
    if len(shape) != 2 or shape[1] == 0:
        raise ProblemError(f"{name} has shape {shape}, expected (calls, instances) with an instance")
    return int(shape[0]), int(shape[1])
