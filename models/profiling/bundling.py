"""Turn a folder of frozen profiles into ``latency.json``, the file that :mod:`hexopt.models.cells` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hexopt.models.catalogue import GPUS, LLMS
from hexopt.models.cells import Cell
from hexopt.models.profiling.calibration import MEASURED, POOLED, Calibration, fit_calibrations, read_measured
from hexopt.models.profiling.fitting import fit_error, fit_profile
from hexopt.models.profiling.frozen import REFUSED, SPLITS, FrozenProfile, ProfileError, read_profile, replace_text
from hexopt.models.roofline import FEATURE_NAMES

_DIGITS = 12


def bundle(folder: Path, path: Path) -> dict[str, Any]:
    """Fit and calibrate every profile of ``folder``, write ``path`` and return what was written.

    The same profiles give the same bytes.

    Raises
    ------
    ProfileError
        For a damaged profile; nothing is written then.
    """
    document = latency_document(
        read_profiles(folder),
        fit_calibrations(read_measured(folder / MEASURED)),
        json.loads((folder / REFUSED).read_text(encoding="utf-8")),
    )
    write_document(document, path)
    return document


def read_profiles(folder: Path) -> list[FrozenProfile]:
    """Read every profile of ``folder``, in the catalogue's order, then by name.

    Raises
    ------
    ProfileError
        If there is none, or one is damaged.
    """
    found = [read_profile(csv) for csv in sorted(folder.glob("*.csv")) if csv.name != MEASURED]
    if not found:
        raise ProfileError(f"{folder}: holds no profile (a CSV and a JSON file for each cell)")
    return sorted(found, key=_order)


def latency_document(
    profiles: Iterable[FrozenProfile], calibrations: dict[str, Calibration], refused: list[dict[str, Any]]
) -> dict[str, Any]:
    """What ``latency.json`` holds: the calibrations, the fitted cells, and the cells that were refused."""
    return {
        "features": list(FEATURE_NAMES),
        "calibrations": [_calibration_row(calibration) for calibration in calibrations.values()],
        "cells": [_cell_row(profile, calibrations) for profile in profiles],
        "refused": refused,
    }


def write_document(document: dict[str, Any], path: Path) -> None:
    """Write JSON with one line for each entry, so that a change of one cell is a change of one line."""
    parts = []
    for key, value in document.items():
        rows = ",\n".join(json.dumps(row) for row in value)
        parts.append(f'"{key}": [\n{rows}\n]')
    replace_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def _order(profile: FrozenProfile) -> tuple[int, str, int, str, int, int]:
    cell: Cell = profile.cell
    gpus, llms = list(GPUS), list(LLMS)
    gpu = gpus.index(cell.gpu) if cell.gpu in GPUS else len(gpus)
    llm = llms.index(cell.llm) if cell.llm in LLMS else len(llms)
    return gpu, cell.gpu, llm, cell.llm, cell.tp, cell.pp


def _cell_row(profile: FrozenProfile, calibrations: dict[str, Calibration]) -> dict[str, Any]:
    cell, source = profile.cell, profile.provenance
    raw = fit_profile(profile)
    # What is measured on a running engine has its overhead already.
    calibration = None if source.running_engine else calibrations.get(cell.gpu, calibrations[POOLED])
    name = "none" if calibration is None else calibration.name
    kind = "estimated from" if source.estimated else "running on" if source.running_engine else "silicon"
    return {
        "gpu": cell.gpu,
        "llm": cell.llm,
        "tp": cell.tp,
        "pp": cell.pp,
        "kv_tokens": source.kv_tokens,
        "estimated": source.estimated,
        "provenance": f"{source.package} {source.package_version}, {source.engine}, {kind} {source.system}, "
        f"sampled {source.date}, calibration {name}",
        "calibration": name,
        "error": {split: _rounded((e.mape, e.p95), 4) for split in SPLITS for e in (fit_error(raw, profile, split),)},
        "coef": _rounded((raw if calibration is None else calibration.apply(raw)).tolist()),
        "raw_coef": _rounded(raw.tolist()),
    }


def _calibration_row(calibration: Calibration) -> dict[str, Any]:
    left_out = calibration.left_out_mape
    return {
        "name": calibration.name,
        "rows": calibration.rows,
        "fixed": _rounded([calibration.fixed])[0],
        "scale": _rounded([calibration.scale])[0],
        "per_sequence": _rounded([calibration.per_sequence])[0],
        "mape": {
            "raw": round(calibration.raw_mape, 4),
            "calibrated": round(calibration.mape, 4),
            "left_out": None if left_out is None else round(left_out, 4),
        },
    }


def _rounded(values: list[float] | tuple[float, ...], digits: int = _DIGITS) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in values]
