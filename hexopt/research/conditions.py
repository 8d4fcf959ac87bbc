"""What else differs between the runs of an experiment: how work arrives, what is believed wrongly, what fails."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hexopt.simulation.events import parse_event
from hexopt.simulation.mistakes import Mistakes
from hexopt.traces.arrivals import gamma

_Error = Annotated[float, Field(ge=0, le=5)]
_USUAL_BURSTINESS = 2.0


class Condition(BaseModel):
    """Arrivals, errors of prediction and events of the runs.

    Errors are those of :class:`hexopt.simulation.mistakes.Mistakes`. ``burstiness`` is the coefficient of variation of
    the gaps of ``gamma`` arrivals, 2 by default. ``events`` happen beside the experiment's own.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str = ""
    arrivals: Literal["poisson", "gamma"] = "poisson"
    burstiness: float | None = Field(default=None, ge=1e-3, le=1e3)
    output_error: _Error = 0.0
    shuffled_lengths: bool = False
    speed_error: _Error = 0.0
    events: list[str] = []

    @field_validator("events")
    @classmethod
    def _readable(cls, value: list[str]) -> list[str]:
        for text in value:
            parse_event(text)
        return value

    @model_validator(mode="after")
    def _of_gamma(self) -> Condition:
        if self.burstiness is not None and self.arrivals != "gamma":
            raise ValueError("burstiness: is of arrivals = 'gamma'")
        return self

    @property
    def label(self) -> str:
        """What tables and figures call it; empty where nothing differs."""
        if self.name:
            return self.name
        parts = []
        if self.arrivals == "gamma":
            parts.append(f"gamma arrivals, burstiness {self.burstiness or _USUAL_BURSTINESS:g}")
        for key in ("output_error", "speed_error"):
            if getattr(self, key):
                parts.append(f"{key.replace('_', ' ')} {getattr(self, key):g}")
        return ", ".join([*parts, *(["shuffled lengths"] if self.shuffled_lengths else []), *self.events])

    def times(self, rate: float, count: int, seed: int) -> NDArray[np.float64] | None:
        """Arrivals at ``rate`` in seconds, shape (count,); None for those that the experiment draws."""
        if self.arrivals == "poisson":
            return None
        return gamma(rate, count, np.random.default_rng((seed, 1)), self.burstiness or _USUAL_BURSTINESS)

    def mistakes(self, seed: int) -> Mistakes | None:
        """What policies believe wrongly in the run of ``seed``; None where nothing."""
        if not (self.output_error or self.shuffled_lengths or self.speed_error):
            return None
        return Mistakes(self.output_error, self.shuffled_lengths, self.speed_error, seed)


USUAL = Condition()
"""Poisson arrivals, and nothing wrong but what predictors have not learned."""
