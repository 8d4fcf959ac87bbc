"""Numbers and names of a plan as people read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

from hexopt.report.shell import finite, number

Document = dict[str, Any]

MONTH = 730.0
"""Hours of a month: a twelfth of a year."""


def money(value: float | None, digits: int = 2) -> str:
    """An amount; a dash where there is none."""
    return f"{value:,.{digits}f}" if value is not None and finite(value) else "–"


def share(value: float | None) -> str:
    """A share as it was asked for: 95%, 99.9%."""
    return f"{100.0 * value:.4g}%" if value is not None and finite(value) else "–"


def measured(verdict: Document, key: str = "interval") -> str:
    """An attainment with its interval."""
    low, high = verdict[key]
    return f"{number(verdict['attainment'], percent=True)} [{number(low, percent=True)}, {number(high, percent=True)}]"


def seconds(value: float | None) -> str:
    """A time; minutes and hours where they are easier to read."""
    if value is None or not finite(value):
        return "–"
    if value < 180.0:
        return f"{value:.3g} s"
    return f"{value / 60.0:.3g} min" if value < 7200.0 else f"{value / 3600.0:.3g} h"


def rate(value: float) -> str:
    """Workflows by the second, or by what leaves a number of people's size."""
    return (
        f"{value:.3g}/s" if value >= 0.1 else f"{60.0 * value:.3g}/min" if value >= 0.002 else f"{3600 * value:.3g}/h"
    )


def fleet(counts: dict[str, int]) -> str:
    """Instances of a fleet in words."""
    return listed([f"{n} × {name}" for name, n in counts.items()]) or "nothing"


def listed(items: Sequence[str]) -> str:
    """Items with commas and an "and"."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def gpus(rows: Sequence[Document]) -> str:
    """GPUs of the document's fleet in words."""
    total = Counter[str]()
    for row in rows:
        total[row["gpu"]] += row["count"] * row["tp"] * row["pp"]
    return listed([f"{n} {gpu} GPU{'s' if n > 1 else ''}" for gpu, n in total.items()])


def plain(name: str) -> str:
    """A name as a figure shows it: Plotly takes some HTML in texts."""
    return escape(name, quote=False)
