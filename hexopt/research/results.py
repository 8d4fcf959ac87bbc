"""What an experiment leaves behind: one row a run, one row a measured workflow, in Parquet."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.atomic import atomic_write

NEEDS_PYARROW = "results are written as Parquet, which needs pyarrow: pip install 'hexopt[parquet]'"
REPORTED, TUNING = "reported", "tuning"
"""Phases: runs that are reported, and those that parameters were chosen by."""


@dataclass(frozen=True)
class Cell:
    """What the policies are compared at: the setting and deadline by number, their names, and the rate.

    ``load`` is the rate's share of the capacity, None where rates were given; ``before`` and ``after`` are the
    workflows of warm-up and drain; ``condition`` is empty where nothing is out of the ordinary.
    """

    setting: int
    place: int
    trace: str
    cluster: str
    rate: float
    load: float | None
    deadline: str
    before: int
    after: int
    condition: str = ""

    @property
    def place_label(self) -> str:
        """Trace, cluster and condition, for people."""
        return f"{self.trace} on {self.cluster}{f', {self.condition}' if self.condition else ''}"

    @property
    def rate_label(self) -> str:
        """The load, or the rate, for people."""
        return f"{self.rate:.3g}/s" if self.load is None else f"{self.load:.0%} of capacity ({self.rate:.3g}/s)"

    @property
    def title(self) -> str:
        """The whole, for people."""
        return f"{self.place_label} at {self.rate_label}, deadline {self.deadline}"

    @property
    def place_slug(self) -> str:
        """Trace, cluster and condition in a file's name."""
        condition = re.sub(r"[^a-z0-9.]+", "-", self.condition.lower()).strip("-")
        return "-".join(filter(None, (self.trace, self.cluster, condition)))

    @property
    def slug(self) -> str:
        """The whole in a file's name."""
        rate = f"{self.rate:.4g}" if self.load is None else f"load{self.load:g}"
        return f"{self.place_slug}-{rate}-{self.deadline.replace(' ', '')}"

    def keys(self) -> dict[str, Any]:
        """Columns that name the cell in tables."""
        return {
            "trace": self.trace, "cluster": self.cluster, "rate": self.rate, "load": self.load,
            "deadline": self.deadline, "condition": self.condition,
        }  # fmt: skip


@dataclass(frozen=True)
class SustainedRates:
    """What every policy sustains at one deadline: the highest rate at which ``share`` of the workflows are in time.

    In time is within the deadline, or within ``scale`` times the workflow's own stand-alone latency if that is given.
    ``ran`` has each policy with its parameters, ``rates`` workflows a second, shape (seeds,), both by label; 0 where
    too few are in time at any rate, infinite where enough are at every one.
    """

    setting: int
    place: int
    trace: str
    cluster: str
    deadline: str
    share: float
    scale: float | None
    seeds: list[int]
    ran: dict[str, str]
    rates: dict[str, NDArray[np.float64]]

    @property
    def title(self) -> str:
        """The whole, for people."""
        return f"{self.trace} on {self.cluster}: {self.what}, deadline {self.deadline}"

    @property
    def what(self) -> str:
        """What the rates are, for people."""
        within = "in time" if self.scale is None else f"within {self.scale:g}x their own stand-alone latency"
        return f"highest rate with {self.share:.0%} {within}"

    @property
    def slug(self) -> str:
        """The whole in a file's name."""
        return f"{self.trace}-{self.cluster}-sustained-{self.deadline.replace(' ', '')}"

    def keys(self) -> dict[str, Any]:
        """As a cell's, without a rate."""
        return {
            "trace": self.trace, "cluster": self.cluster, "rate": None, "load": None, "deadline": self.deadline,
            "condition": "",
        }  # fmt: skip


@dataclass
class Results:
    """Runs and their measured workflows.

    Parameters
    ----------
    cells
        In the order of the definition.
    capacities
        Of each setting, workflows a second; NaN where none was measured.
    rows
        One a run: the cell's keys, ``phase``, ``policy`` (label), ``ran`` (with parameters), ``seed``, the workflows
        of ``warm_up`` and ``drain``, and the fields of :class:`hexopt.simulation.metrics.Summary`.
    workflows
        Columns of the measured workflows of each reported run, in the order of those rows.
    sustained
        One a setting and deadline, where they were asked for.
    """

    cells: list[Cell]
    capacities: list[float]
    rows: list[dict[str, Any]] = field(default_factory=list)
    workflows: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    sustained: list[SustainedRates] = field(default_factory=list)
    _reported_rows: list[dict[str, Any]] = field(default_factory=list, init=False, repr=False)
    _places: dict[tuple[Cell, str], list[int]] = field(default_factory=dict, init=False, repr=False)

    def add(
        self, cell: Cell, label: str, ran: str, seed: int, row: dict[str, Any], workflows: dict[str, NDArray[Any]]
    ) -> None:
        """A reported run."""
        self._places.setdefault((cell, label), []).append(len(self.workflows))
        self.rows.append(_row(cell, REPORTED, label, ran, seed, row))
        self._reported_rows.append(self.rows[-1])
        self.workflows.append(workflows)

    def add_tuning(self, cell: Cell, label: str, ran: str, seed: int, row: dict[str, Any]) -> None:
        """A run that a parameter was chosen by."""
        self.rows.append(_row(cell, TUNING, label, ran, seed, row))

    @property
    def reported(self) -> list[dict[str, Any]]:
        """Rows of the reported runs."""
        return self._reported_rows

    @property
    def policies(self) -> list[str]:
        """Labels, in order."""
        return list(dict.fromkeys(policy for _, policy in self._places))

    def of(self, cell: Cell, policy: str) -> list[dict[str, Any]]:
        """Reported rows of a policy in a cell, by seed."""
        return [self._reported_rows[place] for place in self._places.get((cell, policy), ())]

    def values(self, cell: Cell, policy: str, metric: str) -> NDArray[np.float64]:
        """A figure of a policy in a cell, shape (seeds,); NaN where there is none."""
        found = [row[metric] for row in self.of(cell, policy)]
        return np.array([np.nan if value is None else value for value in found], dtype=np.float64)

    def pooled(self, cell: Cell, policy: str, column: str) -> NDArray[np.float64]:
        """A column of the measured workflows of a policy in a cell, over all seeds."""
        found = [self.workflows[place][column] for place in self._places.get((cell, policy), ())]
        return np.concatenate(found) if found else np.zeros(0)


def _row(cell: Cell, phase: str, label: str, ran: str, seed: int, row: dict[str, Any]) -> dict[str, Any]:
    figures = {key: value for key, value in row.items() if key != "policy"}
    return {
        **cell.keys(), "phase": phase, "policy": label, "ran": ran, "seed": seed, "warm_up": cell.before,
        "drain": cell.after, **figures,
    }  # fmt: skip


def pyarrow_or_refuse() -> None:
    """Refuse to begin where results could not be written.

    Raises
    ------
    ValueError
        In one line, with what to install.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ValueError(NEEDS_PYARROW) from error


def write_results(results: Results, folder: Path) -> list[Path]:
    """Write ``runs.parquet``, ``workflows.parquet`` with the run's cell, policy and seed in each row, and, where rates
    were sought, ``sustained.parquet``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    runs = pa.Table.from_pylist(results.rows)
    keys = ("trace", "cluster", "rate", "load", "deadline", "condition", "policy", "seed")
    columns: dict[str, Any] = {}
    lengths = [w["latency_s"].size for w in results.workflows]
    reported = results.reported
    repeated = np.repeat(np.arange(len(reported)), lengths)
    for key in keys:
        values = pa.array([row[key] for row in reported])
        columns[key] = values.take(pa.array(repeated))
    for name in results.workflows[0] if results.workflows else ():
        columns[name] = np.concatenate([w[name] for w in results.workflows])
    paths = []
    tables = {"runs.parquet": runs, "workflows.parquet": pa.table(columns)}
    if results.sustained:
        tables["sustained.parquet"] = pa.Table.from_pylist(
            [
                {
                    "trace": s.trace, "cluster": s.cluster, "deadline": s.deadline, "share": s.share, "scale": s.scale,
                    "policy": policy, "ran": s.ran[policy], "seed": seed, "rate": rate,
                }
                for s in results.sustained
                for policy, rates in s.rates.items()
                for seed, rate in zip(s.seeds, rates.tolist(), strict=True)
            ]
        )  # fmt: skip
    for name, table in tables.items():
        with atomic_write(folder / name, "wb") as stream:
            pq.write_table(table, stream, compression="zstd")
        paths.append(folder / name)
    return paths
