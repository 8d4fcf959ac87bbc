"""The epoch problem: which ready stages go where, in what order, which are held. ``docs/formulation.md`` derives it.

Times are seconds from now. Stages are numbered 0 .. n-1, instances 0 .. m-1, workflows 0 .. q-1, tenants 0 .. k-1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class ProblemError(ValueError):
    """A problem that cannot be; the message names the array and the place."""


@dataclass(frozen=True, slots=True)
class ObjectiveWeights:
    """What a unit of each term costs; every one may be zero, none negative.

    Parameters
    ----------
    tardiness
        A weighted second that a workflow is late.
    late
        A weighted workflow being late at all.
    completion
        A weighted second until a stage ends.
    imposed
        A weighted second of delay of the calls that run already.
    congestion
        A unit of an instance's overload.
    move
        A unit of moving cost.
    price
        A unit of money.
    fairness
        A weighted second of tardiness per share of the tenant who is worst off.
    """

    tardiness: float = 1.0
    late: float = 0.0
    completion: float = 0.05
    imposed: float = 1.0
    congestion: float = 1.0
    move: float = 1.0
    price: float = 0.0
    fairness: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (np.isfinite(value) and value >= 0.0):
                raise ProblemError(f"weight {field.name} is {value}, expected a number of at least 0")


@dataclass(frozen=True, eq=False, kw_only=True)
class EpochProblem:
    """One epoch, as arrays. Everything from ``queued`` on may be left out.

    Parameters
    ----------
    service
        Seconds from start to last token at the company that the instance has, prefix cache counted; infinite where the
        stage cannot run. Shape (n, m).
    tail
        Seconds from the stage's end to its workflow's end, shape (n,).
    workflow
        Which workflow it is of, shape (n,).
    due, weight
        Seconds until the workflow is due, negative if it is late already; its weight. Shape (q,).
    seats, kv_capacity
        Calls that may run together, KV tokens. Shape (m,).
    kv
        KV tokens that the stage holds from start to end, shape (n,).
    busy_instance, busy_until, busy_kv
        Calls running now: where, until when, holding what. Shape (b,).
    queued, move_cost
        Instance where the stage queues now, -1 for none; cost of placing it on another one. Shape (n,).
    release
        Seconds before which it cannot start wherever it is placed, 0 for a ready stage. Shape (n,).
    hold
        Seconds until it would end if it were held now, infinite where it must not be. Shape (n,).
    imposed
        Weighted seconds by which it delays the calls that run already, shape (n, m).
    load, backlog
        What it adds to an instance's load, shape (n, m); what is there already, shape (m,).
    knots, slopes
        Overload of an instance: ``sum_j slopes[i, j] * max(0, load_i - knots[i, j])``, convex since no slope is
        negative. Shape (m, j).
    price
        Money a second, shape (m,).
    tenant, share
        Tenant of each workflow, shape (q,); his share, shape (k,).
    weights
        What the terms cost.

    Raises
    ------
    ProblemError
        Naming the array and the first bad place.
    """

    service: NDArray[np.float64]
    tail: NDArray[np.float64]
    workflow: NDArray[np.int64]
    due: NDArray[np.float64]
    weight: NDArray[np.float64]
    seats: NDArray[np.int64]
    kv_capacity: NDArray[np.float64]
    kv: NDArray[np.float64]
    busy_instance: ArrayLike = ()
    busy_until: ArrayLike = ()
    busy_kv: ArrayLike = ()
    queued: ArrayLike | None = None
    move_cost: ArrayLike | None = None
    release: ArrayLike | None = None
    hold: ArrayLike | None = None
    imposed: ArrayLike | None = None
    load: ArrayLike | None = None
    backlog: ArrayLike | None = None
    knots: ArrayLike | None = None
    slopes: ArrayLike | None = None
    price: ArrayLike | None = None
    tenant: ArrayLike | None = None
    share: ArrayLike | None = None
    weights: ObjectiveWeights = ObjectiveWeights()

    def __post_init__(self) -> None:
        service = np.asarray(self.service)
        if service.ndim != 2 or service.shape[1] == 0:
            raise ProblemError(f"service has shape {service.shape}, expected (stages, instances) with an instance")
        n, m = service.shape
        q, b = np.size(self.due), np.size(self.busy_instance)
        k = 1 if self.share is None else np.size(self.share)
        j = 0 if self.knots is None else np.shape(self.knots)[-1]
        at_least_0 = at_least(0.0)
        self._set("service", (n, m), np.float64, positive_or_infinite)
        self._set("tail", (n,), np.float64, at_least_0)
        self._set("workflow", (n,), np.int64, index(q))
        self._set("due", (q,), np.float64, finite)
        self._set("weight", (q,), np.float64, at_least_0)
        self._set("seats", (m,), np.int64, at_least(1))
        self._set("kv_capacity", (m,), np.float64, at_least_0)
        self._set("kv", (n,), np.float64, at_least_0)
        self._set("busy_instance", (b,), np.int64, index(m))
        self._set("busy_until", (b,), np.float64, at_least_0)
        self._set("busy_kv", (b,), np.float64, at_least_0)
        self._set("queued", (n,), np.int64, index(m, -1), -1)
        self._set("move_cost", (n,), np.float64, at_least_0, 0.0)
        self._set("release", (n,), np.float64, at_least_0, 0.0)
        self._set("hold", (n,), np.float64, positive_or_infinite, np.inf)
        self._set("imposed", (n, m), np.float64, at_least_0, 0.0)
        self._set("load", (n, m), np.float64, at_least_0, 0.0)
        self._set("backlog", (m,), np.float64, at_least_0, 0.0)
        self._set("knots", (m, j), np.float64, at_least_0, 0.0)
        self._set("slopes", (m, j), np.float64, at_least_0, 0.0)
        self._set("price", (m,), np.float64, at_least_0, 0.0)
        self._set("tenant", (q,), np.int64, index(k), 0)
        self._set("share", (k,), np.float64, at_least(1e-12), 1.0)

    def _set(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: type,
        valid: Valid,
        default: float | None = None,
    ) -> None:
        """Check one array, and freeze a copy of it."""
        array = checked(name, getattr(self, name), shape, dtype, valid, default)
        object.__setattr__(self, name, array)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # Pickling thaws arrays, and kernels would be compiled anew for arrays that can be written.
        for field in fields(self):
            value = state[field.name]
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    @property
    def stages(self) -> int:
        """n."""
        return int(self.service.shape[0])

    @property
    def instances(self) -> int:
        """m."""
        return int(self.service.shape[1])

    @cached_property
    def feasible(self) -> NDArray[np.bool_]:
        """Where each stage can run at all: finite service and KV that an empty instance has. Shape (n, m)."""
        result: NDArray[np.bool_] = np.isfinite(self.service) & (self.kv[:, None] <= self.kv_capacity[None])
        return result

    @cached_property
    def homeless(self) -> NDArray[np.int64]:
        """Stages that fit nowhere and must not be held; a plan leaves them out."""
        return np.flatnonzero(~self.feasible.any(axis=1) & np.isinf(np.asarray(self.hold)))


Valid = Callable[[NDArray[np.float64]], tuple[NDArray[np.bool_], str]]
"""Which numbers of an array are valid, and what was expected."""


def checked(
    name: str, given: ArrayLike | None, shape: tuple[int, ...], dtype: type, valid: Valid, default: float | None = None
) -> NDArray[Any]:
    """A copy of ``given`` that cannot be written, filled with ``default`` if there is none.

    Raises
    ------
    ProblemError
        Naming the array and its first bad place.
    """
    try:
        raw = np.full(shape, default) if given is None else np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ProblemError(f"{name}: expected numbers") from error
    if raw.shape != shape:
        raise ProblemError(f"{name} has shape {raw.shape}, expected {shape}")
    good, expected = valid(raw)
    if dtype is np.int64:
        good = good & (raw == np.floor(raw))
    if not good.all():
        place = np.unravel_index(int(np.argmin(good)), raw.shape)
        at = ", ".join(str(int(p)) for p in place)
        raise ProblemError(f"{name}[{at}] is {raw[place]:g}, expected {expected}")
    array: NDArray[Any] = np.array(raw, dtype=dtype, order="C")
    array.flags.writeable = False
    return array


def finite(raw: NDArray[np.float64]) -> tuple[NDArray[np.bool_], str]:
    """Any number."""
    return np.isfinite(raw), "a finite number"


def at_least(lowest: float) -> Valid:
    """Numbers from ``lowest`` on."""
    return lambda raw: (np.isfinite(raw) & (raw >= lowest), f"a finite number of at least {lowest:g}")


def whole(lowest: float) -> Valid:
    """Whole numbers from ``lowest`` on."""
    return lambda raw: (
        np.isfinite(raw) & (raw >= lowest) & (raw == np.floor(raw)),
        f"a whole number of at least {lowest:g}",
    )


def at_least_0_or_infinite(raw: NDArray[np.float64]) -> tuple[NDArray[np.bool_], str]:
    """At least 0, where infinite says that something cannot be."""
    return raw >= 0.0, "at least 0 (infinite: not possible)"


def positive_or_infinite(raw: NDArray[np.float64]) -> tuple[NDArray[np.bool_], str]:
    """More than 0, where infinite says that something cannot be."""
    return raw > 0.0, "more than 0 (infinite: not possible)"


def index(size: int, lowest: int = 0) -> Valid:
    """Whole numbers from ``lowest`` to ``size - 1``."""
    return lambda raw: ((raw >= lowest) & (raw < size), f"a whole number from {lowest} to {size - 1}")
