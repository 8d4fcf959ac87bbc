"""Gaps as tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from hexopt.cli import console
from hexopt.research.gap.table import SEVERAL

Document = dict[str, Any]


def print_gaps(document: Document) -> None:
    """Print the document that :func:`hexopt.research.gap.document.document_of` made."""
    for one in document["epochs"]:
        sizes = ", ".join(f"{s['epochs']:,} of {s['stages']}" for s in one["sizes"])
        console.out.print(
            f"{one['load']}: {one['epochs']:,} epochs, by stages: {sizes}; "
            f"{sum(s['solved'] for s in one['sizes']):,} solved",
            highlight=False,
        )
    rows = [row for row in document["race"] if not row["load"]]
    for size, title in (("", "All epochs"), (SEVERAL, "Epochs of two stages or more")):
        own = [row for row in rows if row["size"] == size]
        if own:
            _race(title, own)
    for load in dict.fromkeys(row["load"] for row in document["end_to_end"]):
        _ends(load, [row for row in document["end_to_end"] if row["load"] == load])
    for price in document["prices"]:
        console.out.print(_price(price), highlight=False)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for k, column in enumerate(columns):
        table.add_column(column, justify="right" if k else "left", no_wrap=True)
    return table


def _race(title: str, rows: list[Document]) -> None:
    title = f"{title}: {rows[0]['problems']:,} solved, standing for {rows[0]['epochs']:,.0f}"
    table = _table(title, "solver", "ms", "above best %", "worst %", "above bound %", "best found", "proven")
    for row in rows:
        failed = f" ({row['failed']} failed)" if row["failed"] else ""
        table.add_row(
            row["effort"] + failed, f"{1e3 * row['seconds']:.3g}", _percent(row["above_best"]),
            f"{100 * row['worst']:.1f}", _percent(row["above_bound"]), f"{row['best']:.1%}", f"{row['proven']:.1%}",
        )  # fmt: skip
    console.out.print(table)


def _ends(load: str, rows: list[Document]) -> None:
    table = _table(
        f"End to end at {load}", "plans by", "gap %", "gap % of 2 or more", "P95 s", "P95 ratio", "in time %", "points"
    )
    for row in rows:
        table.add_row(
            row["effort"], _percent(row["gap"]), _percent(row["gap_several"]), f"{row['p95_s']['mean']:.1f}",
            ratio(row["p95_s_versus"]), f"{100 * row['attainment']['mean']:.1f}", points(row["attainment_versus"]),
        )  # fmt: skip
    console.out.print(table)


def _percent(estimate: Document | None) -> str:
    if estimate is None or estimate["mean"] is None:
        return "–"
    half = "" if not estimate["half"] else f" ± {100 * estimate['half']:.3f}"
    return f"{100 * estimate['mean']:.3f}{half}"


def ratio(versus: Document | None) -> str:
    """How many times the baseline's, with the interval; the document has the baseline over the effort."""
    if versus is None:
        return "–"
    values = [versus["mean"], *reversed(versus["interval"])]
    mean, *ends = [None if value is None else 1.0 / value for value in values]
    return f"{mean:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if None not in ends else "")


def points(versus: Document | None) -> str:
    """Percentage points more than the baseline, with the interval."""
    if versus is None:
        return "–"
    low, high = versus["interval"]
    between = "" if low is None or high is None else f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"{100 * versus['mean']:+.2f}{between}"


def _price(price: Document) -> str:
    name = {"p95_s": "P95", "mean_s": "mean latency", "attainment": "share in time"}[price["metric"]]
    cost = price["cost"]
    text = f"{price['load']}: a mean gap of {price['gap']:.0%} costs "
    values = [cost["mean"], *cost["interval"]]
    if price["by_ratio"]:
        shown = [None if v is None else f"{100 * (v - 1):+.1f}%" for v in values]
        text += f"{name} {shown[0]}"
    else:
        shown = [None if v is None else f"{100 * v:+.1f}" for v in values]
        text += f"{name} {shown[0]} points"
    text += f" [{shown[1]}, {shown[2]}]" if None not in shown else ""
    return text + f" (gaps up to {price['reach']:.1%} were tried)"
