"""Latency models: how fast each (GPU type, LLM, parallelism) is, and how many tokens its KV cache holds.

``latency.json`` holds, for each cell, the coefficients of :mod:`hexopt.models.roofline`. ``scripts/make-latency``
writes it from the frozen profiles; ``docs/latency.md`` tells where those come from and how good they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexopt.models.catalogue import GPUS, LLMS, default_parallelism
from hexopt.models.roofline import FEATURE_NAMES


class LatencyError(ValueError):
    """No latency model for what was asked; the message is one line and says what exists."""


class UnknownGpuError(LatencyError):
    """A GPU type that is not in the catalogue."""


class UnknownLlmError(LatencyError):
    """An LLM that is not in the catalogue, or that this GPU type cannot serve."""


class UnknownParallelismError(LatencyError):
    """A (tp, pp) that was not profiled."""


class DoesNotFitError(LatencyError):
    """Weights and activations leave no memory for a KV cache."""


@dataclass(frozen=True, order=True, slots=True)
class Cell:
    """One GPU type serving one LLM, tensor parallel over ``tp`` and pipeline parallel over ``pp``: ``tp * pp`` GPUs."""

    gpu: str
    llm: str
    tp: int
    pp: int = 1

    @property
    def gpus(self) -> int:
        """GPUs of one instance."""
        return self.tp * self.pp

    def __str__(self) -> str:
        return f"{self.llm} on {self.gpu} at tp={self.tp}, pp={self.pp}"


@dataclass(frozen=True, slots=True, eq=False)
class LatencyCell:
    """Learned latency of one cell.

    Parameters
    ----------
    cell
        What it is of.
    coef
        Coefficients of :func:`hexopt.models.roofline.step_seconds` (seconds), shape (``N_FEATURES``,), none negative,
        corrected by the calibration against measured engines.
    raw_coef
        The same before that correction: kernel times alone.
    kv_tokens
        Tokens its KV cache holds.
    estimated
        Whether the profile was scaled from another GPU type's rather than measured on silicon.
    provenance
        One line: where the profile and its calibration come from.
    """

    cell: Cell
    coef: NDArray[np.float64] = field(repr=False)
    raw_coef: NDArray[np.float64] = field(repr=False)
    kv_tokens: int
    estimated: bool
    provenance: str


class _Refused(NamedTuple):
    fits: bool
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class LatencyModels:
    """Latency models of many cells, as one file holds them.

    Parameters
    ----------
    cells
        The models.
    refused
        Cells that could not be profiled, and why.
    """

    cells: Mapping[Cell, LatencyCell]
    refused: Mapping[Cell, _Refused]

    def of(self, gpu: str, llm: str, tp: int | None = None, pp: int | None = None) -> LatencyCell:
        """Latency model of ``llm`` on ``gpu``; see :func:`latency`."""
        gpus = dict.fromkeys([*GPUS, *(cell.gpu for cell in self.cells)])
        llms = dict.fromkeys([*LLMS, *(cell.llm for cell in self.cells)])
        if gpu not in gpus:
            raise UnknownGpuError(f"unknown GPU {gpu!r}, expected one of {', '.join(gpus)}")
        if llm not in llms:
            raise UnknownLlmError(f"unknown LLM {llm!r}, expected one of {', '.join(llms)}")
        there = [cell for cell in self.cells if cell.gpu == gpu and cell.llm == llm]
        if tp is not None or pp is not None:
            wanted = Cell(gpu, llm, 1 if tp is None else tp, 1 if pp is None else pp)
        elif gpu in GPUS and llm in LLMS:
            wanted = Cell(gpu, llm, *default_parallelism(gpu, llm))
        else:
            # Names of one's own have no default: the fewest GPUs that were profiled.
            wanted = min(there, default=Cell(gpu, llm, 1), key=lambda cell: (cell.gpus, cell))
        if wanted in self.cells:
            return self.cells[wanted]
        if not there:
            served = sorted({cell.llm for cell in self.cells if cell.gpu == gpu})
            raise UnknownLlmError(f"{llm} cannot be served on {gpu}, which serves {', '.join(served) or 'nothing'}")
        profiled = "profiled are " + "; ".join(f"tp={cell.tp} pp={cell.pp}" for cell in sorted(there))
        why = self.refused.get(wanted)
        if why is None:
            raise UnknownParallelismError(f"no latency model of {wanted}, {profiled}")
        if why.fits:
            raise UnknownParallelismError(f"{wanted}: {why.reason}; {profiled}")
        raise DoesNotFitError(f"{wanted} does not fit in memory: {why.reason}; {profiled}")


def read_latency(path: Path) -> LatencyModels:
    """Read latency models from a file like the bundled ``latency.json``, which ``hexopt train`` writes.

    Raises
    ------
    LatencyError
        Naming the file and what is wrong with it.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LatencyError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise LatencyError(f"{path}: is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("features") != list(FEATURE_NAMES):
        raise LatencyError(f"{path}: features are not those of this version: train anew with hexopt train")
    try:
        cells = {model.cell: model for model in map(_model, document["cells"])}
        refused = {_cell(row): _Refused(row["fits"], row["reason"]) for row in document["refused"]}
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise LatencyError(f"{path}: {what}") from error
    return LatencyModels(MappingProxyType(cells), MappingProxyType(refused))


def _cell(row: dict[str, Any]) -> Cell:
    return Cell(row["gpu"], row["llm"], int(row["tp"]), int(row["pp"]))


def _model(row: dict[str, Any]) -> LatencyCell:
    cell = _cell(row)
    coef, raw = (np.array(row[key], dtype=np.float64) for key in ("coef", "raw_coef"))
    for name, values in (("coef", coef), ("raw_coef", raw)):
        if values.shape != (len(FEATURE_NAMES),) or not (np.isfinite(values) & (values >= 0.0)).all():
            raise ValueError(f"{name} of {cell}: expected {len(FEATURE_NAMES)} numbers, none negative")
        values.flags.writeable = False
    if not int(row["kv_tokens"]) > 0:
        raise ValueError(f"kv_tokens of {cell} is {row['kv_tokens']}, expected at least 1")
    return LatencyCell(cell, coef, raw, int(row["kv_tokens"]), bool(row["estimated"]), str(row["provenance"]))


@cache
def bundled_latency() -> LatencyModels:
    """The latency models that come with HexOpt (read once)."""
    return read_latency(Path(str(resources.files("hexopt.models").joinpath("latency.json"))))


def load_cells() -> dict[Cell, LatencyCell]:
    """All bundled latency models (the dictionary is yours to change)."""
    return dict(bundled_latency().cells)


def latency(gpu: str, llm: str, tp: int | None = None, pp: int | None = None) -> LatencyCell:
    """Bundled latency model of ``llm`` on ``gpu``.

    Parameters
    ----------
    gpu, llm
        Canonical names (:mod:`hexopt.models.catalogue`).
    tp, pp
        Tensor and pipeline parallelism. The cell's default where both are None; 1 where only one is given.

    Raises
    ------
    UnknownGpuError, UnknownLlmError, UnknownParallelismError, DoesNotFitError
        All of them :class:`LatencyError` and ``ValueError``, with a one-line message that lists what exists.
    """
    return bundled_latency().of(gpu, llm, tp, pp)
