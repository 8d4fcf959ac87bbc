"""``experiment.toml``: what is compared, as a file says it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hexopt.bundled_experiments import EXPERIMENTS
from hexopt.research.conditions import USUAL, Condition
from hexopt.research.metrics import LEAST_FOR_REQ99, METRICS
from hexopt.simulation.events import parse_event
from hexopt.toml_file import place_of

FIRST_TUNING_SEED = 1000
"""Where the seeds that parameters are chosen on start, if only their number is given."""


class DefinitionError(ValueError):
    """An experiment that cannot be; the message names the file and the field."""


_DEADLINES = {"slo_factors": "slo_factor", "slo_scales": "slo_scale", "slos": "slo"}
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Seeds = Annotated[int, Field(ge=1, le=500)] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TraceSource(_Strict):
    """Where workflows come from: a file, folder or bundled sample; and what predictors learn from beforehand.

    Or a family of :mod:`hexopt.traces.synthesis`: then ``drawn`` workflows are drawn with ``parameters`` and ``seed``,
    and as many with the next seed to learn from.
    """

    source: str
    name: str = ""
    training: str | None = None
    format: str | None = None
    parameters: dict[str, Any] = {}
    drawn: int = Field(default=300, ge=20, le=100_000)
    seed: int = Field(default=0, ge=0)

    @property
    def label(self) -> str:
        """What tables and figures call it."""
        return self.name or Path(self.source).stem


class Tuned(_Strict):
    """A policy of which one parameter is chosen in each cell, on seeds of its own."""

    policy: str
    parameter: str
    values: list[float] = Field(min_length=2)
    metric: str = "p95_s"

    @field_validator("metric")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in METRICS:
            raise ValueError(f"expected one of {', '.join(METRICS)}")
        return value

    @property
    def label(self) -> str:
        """What tables and figures call it."""
        return f"{self.policy} ({self.parameter} tuned)"

    def at(self, value: float) -> str:
        """The policy with that value, as :func:`hexopt.policies.registry.make_policy` reads it."""
        return f"{self.policy}{',' if ':' in self.policy else ':'}{self.parameter}={value:g}"


class Sustained(_Strict):
    """The highest rate at which ``share`` of the workflows are in time, in runs of ``workflows`` at least.

    In time is what meets its deadline, or ``scale`` times its own stand-alone latency if that is given.
    """

    share: float = Field(default=0.95, gt=0, lt=1)
    scale: _Positive | None = None
    workflows: int = Field(default=600, ge=10, le=1_000_000)


class GanttOf(_Strict):
    """A run to be drawn: of the policy, at the first seed and the heaviest load that fits unless they are given."""

    policy: str
    seed: int | None = Field(default=None, ge=0)
    load: _Positive | None = None
    rate: _Positive | None = None
    seconds: _Positive | None = None


class Definition(_Strict):
    """An experiment, as its file says it.

    ``rates`` are workflows a second, ``loads`` shares of the measured capacity; ``slo_factors`` multiples of the
    family's mean stand-alone latency, ``slo_scales`` of each workflow's own, ``slos`` seconds. ``sustained`` asks for
    the highest rate that every policy sustains at each deadline. ``workflows`` are measured in each run; before and
    after them as many more arrive as do in ``warm_up`` and ``drain`` times the longest deadline. ``events`` happen in
    every run, seconds counted from its start, see :func:`hexopt.simulation.events.parse_event`; ``conditions`` are
    what every trace and cluster is tried under, ``gantt`` the runs that are drawn. ``policy_files`` are Python files
    whose subclasses of Policy may be named, too; ``files`` are the traces in a folder that is given beside.
    """

    title: str
    traces: list[TraceSource] = Field(min_length=1)
    files: list[TraceSource] = []
    clusters: list[str] = Field(min_length=1)
    rates: list[_Positive] = []
    loads: list[_Positive] = []
    slo_factors: list[_Positive] = []
    slo_scales: list[_Positive] = []
    slos: list[_Positive] = []
    policies: list[str] = []
    policy_files: list[str] = []
    tuned: list[Tuned] = []
    baseline: str
    workflows: int = Field(ge=10, le=1_000_000)
    seeds: _Seeds
    tuning_seeds: _Seeds = 3
    warm_up: float = Field(default=2.0, ge=0, le=100)
    drain: float = Field(default=1.0, ge=0, le=100)
    drop_long: bool = False
    events: list[str] = []
    gantt: list[GanttOf] = []
    sustained: Sustained | None = None
    conditions: list[Condition] = Field(default=[USUAL], min_length=1)

    @field_validator("events")
    @classmethod
    def _readable(cls, value: list[str]) -> list[str]:
        for text in value:
            parse_event(text)
        return value

    @field_validator("traces", "files", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return [{"source": v} if isinstance(v, str) else v for v in value] if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_of_each(self) -> Definition:
        if bool(self.rates) == bool(self.loads):
            raise ValueError("rates and loads: expected one of the two")
        if sum(bool(getattr(self, name)) for name in _DEADLINES) != 1:
            raise ValueError(f"{', '.join(_DEADLINES)}: expected one of them")
        if not self.policies and not self.tuned:
            raise ValueError("policies: expected at least one, or one that is tuned")
        for name in ("clusters", "rates", "loads", *_DEADLINES, "policies"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name}: one is there twice")
        for name in ("traces", "files", "tuned", "conditions"):
            labels = [entry.label for entry in getattr(self, name)]
            if len(set(labels)) < len(labels):
                raise ValueError(f"{name}: two are called {next(x for x in labels if labels.count(x) > 1)!r}")
        stems = [Path(name).stem for name in self.clusters]
        if len(set(stems)) < len(stems):
            raise ValueError(f"clusters: two are called {next(x for x in stems if stems.count(x) > 1)!r}")
        if self.workflows < LEAST_FOR_REQ99 and any(t.metric == "req99" for t in self.tuned):
            raise ValueError(f"tuned: metric req99 takes {LEAST_FOR_REQ99} workflows a run, here are {self.workflows}")
        if self.sustained and (self.events or self.conditions != [USUAL]):
            raise ValueError("sustained: rates are sought where nothing is unusual; expected no events, no conditions")
        both = set(self.seed_list) & set(self.tuning_seed_list)
        if self.tuned and both:
            raise ValueError(f"tuning_seeds: {min(both)} is among the seeds that are reported; expected others")
        for name in ("seeds", "tuning_seeds"):
            listed = getattr(self, name)
            if isinstance(listed, list) and len(set(listed)) < len(listed):
                raise ValueError(f"{name}: one is there twice")
        return self

    @property
    def deadline_name(self) -> str:
        """What deadlines are: a parameter of :meth:`hexopt.simulation.experiment.Experiment.of`."""
        return next(singular for name, singular in _DEADLINES.items() if getattr(self, name))

    @property
    def deadline_values(self) -> list[float]:
        """Multiples, or seconds."""
        return next(list(getattr(self, name)) for name in _DEADLINES if getattr(self, name))

    @property
    def seed_list(self) -> list[int]:
        """Seeds of the runs that are reported."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)

    @property
    def tuning_seed_list(self) -> list[int]:
        """Seeds of the runs that parameters are chosen by."""
        if isinstance(self.tuning_seeds, int):
            return list(range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.tuning_seeds))
        return list(self.tuning_seeds)


def load_definition(source: str) -> tuple[Definition, str, Path]:
    """Read an experiment file, or the bundled one of that name.

    Returns
    -------
    definition, text, path
        What it says, its text, and where it is: its other files are relative to there.

    Raises
    ------
    DefinitionError
        Naming the file and the field, and what was expected.
    """
    path = EXPERIMENTS.get(source) or Path(source)
    shown = source if source in EXPERIMENTS else str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DefinitionError(f"{shown}: no such file, and no bundled experiment ({', '.join(EXPERIMENTS)})") from None
    except OSError as error:
        raise DefinitionError(f"{shown}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{shown}: is not a TOML file: {error}") from error
    try:
        return Definition.model_validate(tomllib.loads(text)), text, path
    except tomllib.TOMLDecodeError as error:
        raise DefinitionError(f"{shown}: is not a TOML file: {error}") from error
    except ValidationError as error:
        raise DefinitionError(f"{shown}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    # Branches of a union add the names of types to the place; a file has no such names.
    parts = [p for p in first["loc"] if isinstance(p, int) or re.fullmatch(r"[a-z_]+", p)]
    parts = [p for p in parts if p not in ("int", "list")]
    place = place_of(parts)
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
