"""Solvers by name: what every front door checks before it hands a problem on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Found = TypeVar("Found")


def solve_by_name(
    solvers: Mapping[str, Callable[..., Found]], problem: Any, *, solver: str, time_limit: float, **options: Any
) -> Found:
    """What the solver called ``solver`` finds for ``problem``.

    Raises
    ------
    ValueError
        If there is no such solver, or the limit (seconds) is not positive.
    """
    if solver not in solvers:
        raise ValueError(f"solver {solver!r}: expected one of {', '.join(solvers)}")
    if not time_limit > 0.0:
        raise ValueError(f"time_limit is {time_limit}, expected more than 0 seconds")
    return solvers[solver](problem, time_limit=time_limit, **options)
