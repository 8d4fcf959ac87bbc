"""Numbers with units, as people write them on a command line."""

from __future__ import annotations

import math

_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "": 1.0}
_PER_SECOND = {"/s": 1.0, "/min": 1.0 / 60.0, "/h": 1.0 / 3600.0, "/day": 1.0 / 86400.0, "": 1.0}


def seconds(flag: str, text: str) -> float:
    """``200ms``, ``60s``, ``2min`` or a number of seconds.

    Raises
    ------
    ValueError
        Naming the flag.
    """
    return _scaled(flag, text, _SECONDS, "a time such as 20ms, 60s or 2min")


def rate(flag: str, text: str) -> float:
    """``0.5/s``, ``30/min``, ``1800/h`` or a number a second.

    Raises
    ------
    ValueError
        Naming the flag.
    """
    return _scaled(flag, text, _PER_SECOND, "workflows in a time, such as 0.5/s, 30/min or 1800/h")


def share(flag: str, text: str) -> float:
    """``0.99`` or ``99%``.

    Raises
    ------
    ValueError
        Naming the flag.
    """
    number, whole = (text[:-1], 100.0) if text.endswith("%") else (text, 1.0)
    try:
        value = float(number) / whole
    except ValueError:
        value = math.nan
    if not 0.0 < value <= 1.0:
        raise ValueError(f"{flag} is {text!r}, expected a share such as 0.99 or 99%")
    return value


def _scaled(flag: str, text: str, units: dict[str, float], expected: str) -> float:
    unit = next(unit for unit in sorted(units, key=len, reverse=True) if text.endswith(unit))
    try:
        value = units[unit] * float(text.removesuffix(unit))
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise ValueError(f"{flag} is {text!r}, expected {expected}")
    return value
