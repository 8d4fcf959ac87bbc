"""What a family of synthetic workflows is made of, and the draws that all of them share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np

from hexopt.traces.workflow import TraceError, Workflow

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Family(Generic[P]):
    """A kind of application that workflows can be drawn from.

    Parameters
    ----------
    name
        Becomes ``Workflow.family`` and the start of every workflow's id.
    summary
        One line for people who choose.
    parameters
        Frozen dataclass, all fields with defaults; refuses values out of range with ``TraceError``.
    draw
        Draws one workflow, given its id, the source of randomness and the parameters.
    """

    name: str
    summary: str
    parameters: type[P]
    draw: Callable[[str, np.random.Generator, P], Workflow]

    def configured(self, given: Mapping[str, Any]) -> P:
        """Return the parameters with the values of ``given`` in place of the defaults.

        Raises
        ------
        TraceError
            On a parameter that the family does not have, or a value out of range.
        """
        known = [field.name for field in fields(self.parameters) if field.init]  # type: ignore[arg-type]
        for name in given:
            if name not in known:
                raise TraceError(f"{self.name} has no parameter {name!r}, expected one of {', '.join(known)}")
        try:
            return self.parameters(**given)
        except TraceError as error:
            raise TraceError(f"{self.name}: {error}") from None


def is_number(value: object) -> bool:
    """Tell whether ``value`` is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_number(parameters: object, name: str, low: float, high: float = math.inf) -> None:
    """Refuse a field of ``parameters`` that is no finite number from ``low`` to ``high``."""
    value = getattr(parameters, name)
    if not is_number(value) or not low <= value <= high:
        limit = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise TraceError(f"{name} is {value!r}, expected a number {limit}")


def check_whole(parameters: object, name: str, low: int, high: float = math.inf) -> None:
    """Refuse a field of ``parameters`` that is no whole number from ``low`` to ``high``."""
    check_number(parameters, name, low, high)
    if not isinstance(value := getattr(parameters, name), int):
        raise TraceError(f"{name} is {value!r}, expected a whole number")


def lognormal_seconds(rng: np.random.Generator, median: float, sigma: float, longest: float) -> float:
    """Draw a log-normal delay, cut at ``longest``; whole milliseconds, as traces have them."""
    return round(min(median * math.exp(sigma * rng.standard_normal()), longest), 3)


def lognormal_tokens(rng: np.random.Generator, median: float, sigma: float, low: int, high: int) -> int:
    """Draw a log-normal length in tokens, cut to the range from ``low`` to ``high``."""
    return min(max(round(median * math.exp(sigma * rng.standard_normal())), low), high)
