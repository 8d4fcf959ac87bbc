"""A mixture of the other families, workflow by workflow.

Equal weights by default, as the mixed traces of HexAGenT (arXiv 2605.16637) sample their parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from hexopt.traces.synthesis import chat, coding_agent, map_reduce, text_to_sql, tool_agent, tree_search
from hexopt.traces.synthesis.family import Family, is_number
from hexopt.traces.workflow import TraceError, Workflow

NAME = "mix"

PARTS: Mapping[str, Family[Any]] = MappingProxyType(
    {module.NAME: module.FAMILY for module in (text_to_sql, tool_agent, coding_agent, tree_search, chat, map_reduce)}
)
"""The families that have a shape of their own, by name."""


@dataclass(frozen=True, slots=True)
class MixParameters:
    """Parameters of ``mix``.

    Parameters
    ----------
    weights
        Weight of each family to draw from, >= 0, not all 0; equal weights for all where left out.
    parameters
        Parameters of the parts, by family name, where the defaults will not do.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 1.0))
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parts: tuple[tuple[Family[Any], Any, float], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for field_name in ("weights", "parameters"):
            if not isinstance(value := getattr(self, field_name), Mapping):
                raise TraceError(f"{field_name} is {value!r}, expected a mapping by family name")
        for name in (*self.weights, *self.parameters):
            if name not in PARTS:
                raise TraceError(f"{name!r} is no family to mix, expected one of {', '.join(PARTS)}")
        for name, weight in self.weights.items():
            if not is_number(weight) or weight < 0:
                raise TraceError(f"weights[{name!r}] is {weight!r}, expected a number >= 0")
        total = sum(self.weights.values())
        if not total > 0:
            raise TraceError("weights are all 0, expected one above 0")
        parts = tuple(
            (PARTS[name], PARTS[name].configured(self.parameters.get(name, {})), weight / total)
            for name, weight in self.weights.items()
        )
        object.__setattr__(self, "parts", parts)


def draw(id: str, rng: np.random.Generator, parameters: MixParameters) -> Workflow:
    """Draw a family, and a workflow of it."""
    place = int(rng.choice(len(parameters.parts), p=[share for _, _, share in parameters.parts]))
    family, own, _ = parameters.parts[place]
    return family.draw(id, rng, own)


FAMILY = Family(NAME, "weighted mixture of the other families", MixParameters, draw)
