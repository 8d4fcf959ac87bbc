"""``workload.toml``: several applications with their rates and promises, read into a demand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hexopt.planning.demand import Arrivals, Demand, DemandError, Service, own_rate
from hexopt.toml_file import place_of, read_toml
from hexopt.traces import FAMILIES, Workflow, synthesize


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = None
    trace: str | None = None
    family: str | None = None
    workflows: int = Field(default=300, ge=1, le=1_000_000)
    seed: int = Field(default=0, ge=0)
    rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    slo: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    arrivals: Arrivals = "poisson"
    burstiness: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    workload: list[_Row] = Field(min_length=1)


def load_demand(path: Path, read: Callable[[str], list[Workflow]], slo: float | None = None) -> Demand:
    """Read a workload file.

    Each ``[[workload]]`` has a ``trace`` (a file relative to this one, or a bundled sample) or a ``family`` to draw
    ``workflows`` of with a ``seed``; a ``rate`` in workflows a second (by default the trace's own) and an ``slo`` in
    seconds (by default ``slo``, or the trace's own deadlines).

    Parameters
    ----------
    read
        Reads a trace.
    slo
        For rows without one.

    Raises
    ------
    DemandError
        Naming the file and the field.
    """
    try:
        parsed = _File.model_validate(read_toml(path, DemandError))
    except ValidationError as error:
        first = error.errors()[0]
        raise DemandError(f"{path}: {place_of(first['loc'])}: {first['msg']}") from error
    services = []
    for number, row in enumerate(parsed.workload):
        where = f"{path}: workload[{number}]"
        if (row.trace is None) == (row.family is None):
            raise DemandError(f"{where}: expected either a trace or a family")
        name = row.name or row.family or Path(row.trace or "").stem
        workflows = _workflows(row, path, read, where)
        rate = row.rate if row.rate is not None else own_rate(workflows, name)
        services.append(Service(name, tuple(workflows), rate, row.slo if row.slo is not None else slo))
    return Demand(tuple(services), parsed.arrivals, parsed.burstiness)


def _workflows(row: Any, path: Path, read: Callable[[str], list[Workflow]], where: str) -> list[Workflow]:
    if row.family is not None:
        if row.family not in FAMILIES:
            raise DemandError(f"{where}.family: {row.family!r} is unknown, expected one of {', '.join(FAMILIES)}")
        return synthesize(row.family, row.workflows, np.random.default_rng(row.seed))
    beside = path.parent / row.trace
    return read(str(beside) if beside.exists() else row.trace)
