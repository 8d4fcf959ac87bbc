"""How fast each (GPU type, LLM, parallelism) is, and how many tokens its KV cache holds: the bundled latency models.

``latency.json`` holds, for each cell, the coefficients of :mod:`hexopt.models.roofline`. ``scripts/make-latency``
writes it from the frozen profiles; ``docs/latency.md`` tells where those come from and how good they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
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


@cache
def _bundled() -> tuple[dict[Cell, LatencyCell], dict[Cell, _Refused]]:
    text = resources.files("hexopt.models").joinpath("latency.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    if document["features"] != list(FEATURE_NAMES):
        raise LatencyError("latency.json was written for other features: run scripts/make-latency")
    cells = {}
    for row in document["cells"]:
        cell = Cell(row["gpu"], row["llm"], row["tp"], row["pp"])
        coef, raw = (np.array(row[key], dtype=np.float64) for key in ("coef", "raw_coef"))
        coef.flags.writeable = raw.flags.writeable = False
        cells[cell] = LatencyCell(cell, coef, raw, row["kv_tokens"], row["estimated"], row["provenance"])
    refused = {
        Cell(row["gpu"], row["llm"], row["tp"], row["pp"]): _Refused(row["fits"], row["reason"])
        for row in document["refused"]
    }
    return cells, refused


def load_cells() -> dict[Cell, LatencyCell]:
    """All bundled latency models (read once; the dictionary is yours to change)."""
    return dict(_bundled()[0])


def latency(gpu: str, llm: str, tp: int | None = None, pp: int | None = None) -> LatencyCell:
    """Latency model of ``llm`` on ``gpu``.

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
    if gpu not in GPUS:
        raise UnknownGpuError(f"unknown GPU {gpu!r}, expected one of {', '.join(GPUS)}")
    if llm not in LLMS:
        raise UnknownLlmError(f"unknown LLM {llm!r}, expected one of {', '.join(LLMS)}")
    default_tp, default_pp = default_parallelism(gpu, llm)
    if tp is not None or pp is not None:
        default_tp = default_pp = 1
    wanted = Cell(gpu, llm, default_tp if tp is None else tp, default_pp if pp is None else pp)
    cells, refused = _bundled()
    if wanted in cells:
        return cells[wanted]
    there = [cell for cell in cells if cell.gpu == gpu and cell.llm == llm]
    if not there:
        served = sorted({cell.llm for cell in cells if cell.gpu == gpu})
        raise UnknownLlmError(f"{llm} cannot be served on {gpu}, which serves {', '.join(served)}")
    profiled = "profiled are " + "; ".join(f"tp={cell.tp} pp={cell.pp}" for cell in sorted(there))
    why = refused.get(wanted)
    if why is None:
        raise UnknownParallelismError(f"no latency model of {wanted}, {profiled}")
    if why.fits:
        raise UnknownParallelismError(f"{wanted}: {why.reason}; {profiled}")
    raise DoesNotFitError(f"{wanted} does not fit in memory: {why.reason}; {profiled}")
