"""Correct kernel times by what real engines took.

A profile is the sum of an iteration's kernels. A real engine adds scheduling, sampling and launch gaps: measured decode
steps are mostly longer, by more the more sequences they hold. For each GPU type with measurements,

``measured = fixed + scale * predicted + per_sequence * B``

is fitted, with no term negative and least squared relative error, to the decode steps of vLLM serving Llama-3.1-70B in
FP8 with 1024 tokens in and 8192 out at concurrency B (``models/profiles/measured_decode.csv``; nearly pure decode, so a
step is the time between two tokens, at the mean context of 1024 + 8192/2). GPU types without measurements get the fit
to all rows together.

In the coefficients of :mod:`hexopt.models.roofline`, ``scale`` multiplies all of them, ``fixed`` is added to that of
``[B>0]`` and ``per_sequence`` to that of ``B``. So a prefill is only scaled: the measured times to first token hold
queueing too, and are not used.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression

from hexopt.models.catalogue import GPUS
from hexopt.models.profiling.frozen import ProfileError, replace_text
from hexopt.models.roofline import FEATURE_NAMES

POOLED = "pooled"
"""Name of the calibration fitted to the rows of all GPU types."""
MEASURED = "measured_decode.csv"
"""File of the measured decode steps, beside the profiles."""
COLUMNS = ("gpu", "tp", "n_decode", "decode_context", "predicted_seconds", "measured_seconds")

_ANY_DECODE = FEATURE_NAMES.index("[B>0]")
_B = FEATURE_NAMES.index("B")


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """One measured decode step.

    Parameters
    ----------
    gpu, tp
        Where it ran.
    n_decode, decode_context
        Sequences, and their context lengths (sum of tokens).
    predicted_seconds
        Its kernel time by the profile's source.
    measured_seconds
        Mean time between two tokens of the real engine.
    """

    gpu: str
    tp: int
    n_decode: int
    decode_context: int
    predicted_seconds: float
    measured_seconds: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Correction of one GPU type's kernel times.

    Parameters
    ----------
    name
        GPU type, or :data:`POOLED`.
    fixed, per_sequence
        Seconds added to a step that decodes, and for each decoding sequence.
    scale
        What kernel times are multiplied by.
    rows
        Measured steps behind it.
    raw_mape, mape, left_out_mape
        Mean absolute relative error of the kernel times, of the calibrated times, and of the calibrated times where
        each tensor parallelism (for the pooled one: each GPU type) is predicted by a fit to the others; None where
        there is only one.
    """

    name: str
    fixed: float
    scale: float
    per_sequence: float
    rows: int
    raw_mape: float
    mape: float
    left_out_mape: float | None

    def apply(self, coef: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated coefficients, shape (``N_FEATURES``,), from those of kernel times."""
        calibrated: NDArray[np.float64] = self.scale * coef
        calibrated[_ANY_DECODE] += self.fixed
        calibrated[_B] += self.per_sequence
        return calibrated


def fit_calibrations(steps: Iterable[MeasuredStep]) -> dict[str, Calibration]:
    """One calibration for each GPU type with measurements, and :data:`POOLED`."""
    rows = list(steps)
    gpus = sorted({step.gpu for step in rows})
    by_gpu = {gpu: [step for step in rows if step.gpu == gpu] for gpu in gpus}
    fitted = {gpu: _calibration(gpu, part, [step.tp for step in part]) for gpu, part in by_gpu.items()}
    fitted[POOLED] = _calibration(POOLED, rows, [gpus.index(step.gpu) for step in rows])
    return fitted


def _calibration(name: str, steps: list[MeasuredStep], groups: list[int]) -> Calibration:
    measured = np.array([step.measured_seconds for step in steps])
    columns = [(1.0, step.predicted_seconds, float(step.n_decode)) for step in steps]
    matrix = np.array(columns) / measured[:, None]
    terms = _fit(matrix)
    group = np.array(groups)
    held_out = [group == value for value in np.unique(group)] if len(set(groups)) > 1 else []
    left_out = [np.abs(matrix[out] @ _fit(matrix[~out]) - 1.0) for out in held_out]
    fixed, scale, per_sequence = terms.tolist()
    return Calibration(
        name,
        fixed,
        scale,
        per_sequence,
        rows=len(steps),
        raw_mape=float(np.abs(matrix[:, 1] - 1.0).mean()),
        mape=float(np.abs(matrix @ terms - 1.0).mean()),
        left_out_mape=float(np.concatenate(left_out).mean()) if left_out else None,
    )


def _fit(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    scale = matrix.max(axis=0)
    model = LinearRegression(positive=True, fit_intercept=False).fit(matrix / scale, np.ones(len(matrix)))
    terms: NDArray[np.float64] = model.coef_ / scale
    return terms


def write_measured(steps: Iterable[MeasuredStep], path: Path) -> None:
    """Write measured steps as a CSV."""
    lines = [",".join(COLUMNS)]
    lines += [
        f"{s.gpu},{s.tp},{s.n_decode},{s.decode_context},{s.predicted_seconds:.6g},{s.measured_seconds:.6g}"
        for s in steps
    ]
    replace_text(path, "\n".join(lines) + "\n")


def read_measured(path: Path) -> list[MeasuredStep]:
    """Read what :func:`write_measured` wrote.

    Raises
    ------
    ProfileError
        Naming the file and line, for anything else.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if tuple(header) != COLUMNS:
            raise ProfileError(f"{path}:1: columns are {','.join(header)!r}, expected {','.join(COLUMNS)}")
        return [_parse(row, f"{path}:{reader.line_num}") for row in reader]


def _parse(row: list[str], where: str) -> MeasuredStep:
    if len(row) != len(COLUMNS):
        raise ProfileError(f"{where}: has {len(row)} fields, expected {len(COLUMNS)}")
    try:
        step = MeasuredStep(row[0], int(row[1]), int(row[2]), int(row[3]), float(row[4]), float(row[5]))
    except ValueError as error:
        raise ProfileError(f"{where}: {error}") from error
    if step.gpu not in GPUS:
        raise ProfileError(f"{where}: gpu is {step.gpu!r}, expected one of {', '.join(GPUS)}")
    if min(step.tp, step.n_decode, step.decode_context, step.predicted_seconds, step.measured_seconds) <= 0:
        raise ProfileError(f"{where}: expected positive numbers, got {','.join(row)!r}")
    return step
