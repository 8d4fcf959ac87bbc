"""Checked access to the fields of a record; every refusal names the field and what was expected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hexopt.traces.workflow import TraceError

MAX_TOKENS = 2**31 - 1
"""Largest token count taken for real; anything above is a damaged record."""

_SHOWN = 60


def shown(value: object) -> str:
    """Return ``value`` for an error message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """Return ``value`` where it is a JSON object."""
    if not isinstance(value, dict):
        raise TraceError(f"{where} is {shown(value)}, expected an object")
    return value


def sequence(value: Any, where: str) -> list[Any]:
    """Return ``value`` where it is a JSON array."""
    if not isinstance(value, list):
        raise TraceError(f"{where} is {shown(value)}, expected an array")
    return value


def field(record: Mapping[str, Any], name: str, where: str = "") -> Any:
    """Return the field ``name``, which has to be there."""
    try:
        return record[name]
    except KeyError:
        raise TraceError(f"{where}{name} is missing") from None


def text(record: Mapping[str, Any], name: str, where: str = "") -> str:
    """Return the field ``name``, a string that is not empty."""
    value = field(record, name, where)
    if not isinstance(value, str) or not value:
        raise TraceError(f"{where}{name} is {shown(value)}, expected a string that is not empty")
    return value


def tokens(record: Mapping[str, Any], name: str, where: str = "", *, least: int = 0) -> int:
    """Return the field ``name``, a whole number from ``least`` to ``MAX_TOKENS``."""
    value = field(record, name, where)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_TOKENS:
        raise TraceError(f"{where}{name} is {shown(value)}, expected a whole number >= {least}")
    return value


def number(record: Mapping[str, Any], name: str, where: str = "") -> float:
    """Return the field ``name``, a finite number >= 0."""
    value = field(record, name, where)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        if math.isfinite(value) and value >= 0:
            return value
    raise TraceError(f"{where}{name} is {shown(value)}, expected a number >= 0")


def optional_number(record: Mapping[str, Any], name: str, where: str = "") -> float | None:
    """Return the field ``name`` as ``number`` does, or ``None`` where it is absent or null."""
    return None if record.get(name) is None else number(record, name, where)


def cell_tokens(cell: str, name: str, *, least: int = 0) -> int:
    """Return the CSV cell ``cell`` as a whole number from ``least`` to ``MAX_TOKENS``."""
    try:
        value = int(cell)
    except ValueError:
        value = -1
    if not least <= value <= MAX_TOKENS:
        raise TraceError(f"{name} is {shown(cell)}, expected a whole number >= {least}")
    return value


def cell_number(cell: str, name: str) -> float:
    """Return the CSV cell ``cell`` as a finite number >= 0."""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise TraceError(f"{name} is {shown(cell)}, expected a number >= 0")
    return value


def optional_cell_number(cell: str, name: str) -> float | None:
    """Return the CSV cell ``cell`` as ``cell_number`` does, or ``None`` where it is blank."""
    return cell_number(cell, name) if cell else None
