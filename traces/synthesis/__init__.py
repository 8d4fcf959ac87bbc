"""Draws workflows of well-known shapes from published length distributions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from hexopt.traces.synthesis import mix
from hexopt.traces.synthesis.family import Family
from hexopt.traces.workflow import TraceError, Workflow

__all__ = ["FAMILIES", "Family", "synthesize"]

FAMILIES: Mapping[str, Family[Any]] = MappingProxyType({**mix.PARTS, mix.NAME: mix.FAMILY})
"""The families that ``synthesize`` draws from, by name."""


def synthesize(family: str, n: int, rng: np.random.Generator, **parameters: Any) -> list[Workflow]:
    """Draw ``n`` workflows, all of which arrive at 0; ``hexopt.traces.arrivals`` spreads them.

    The first workflows do not depend on how many follow.

    Parameters
    ----------
    family
        One of ``FAMILIES``.
    n
        Workflows to draw, at least 0; they are named ``text-to-sql-000000`` and so on.
    rng
        Source of randomness; the same seed gives the same workflows.
    **parameters
        Fields of ``FAMILIES[family].parameters``, where their defaults will not do.

    Raises
    ------
    TraceError
        On an unknown family or parameter, naming the choices, and on a value out of range.
    """
    if family not in FAMILIES:
        raise TraceError(f"family is {family!r}, expected one of {', '.join(FAMILIES)}")
    if n < 0:
        raise TraceError(f"n is {n}, expected at least 0")
    chosen = FAMILIES[family]
    own = chosen.configured(parameters)
    return [chosen.draw(f"{family}-{number:06d}", rng, own) for number in range(n)]
