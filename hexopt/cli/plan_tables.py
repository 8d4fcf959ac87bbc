"""A plan as tables on a terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from hexopt.cli import console

if TYPE_CHECKING:
    from hexopt.planning.buckets import ThroughputPlan
    from hexopt.planning.importers import ThroughputTable

Document = dict[str, Any]


def print_document(document: Document) -> None:
    """Print the document of a plan (:mod:`hexopt.planning.document`)."""
    money = f"{document['currency']}/h"
    _fleet(document, money)
    _summary(document, money)
    _removals(document)
    for key, title, first in (("front", "Other targets", "in time"), ("sweep", "Other rates", "rate")):
        if document[key]:
            _points(document, key, title, first, money)
    if document["one_more"]["options"]:
        _one_more(document, money)
    if document["growth"]:
        _growth(document, money)
    if document["shadow_prices"]:
        _shadow(document, money)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k == 0 else "right")
    return table


def _fleet(document: Document, money: str) -> None:
    target = f"{document['target']:.4g} in time"
    table = _table(
        f"{document['title']}, {target}", "instances", "count", "there", "spot", f"{money} each", "share busy"
    )
    placed = document["placement"]
    busy = dict(zip(placed["options"], placed["busy"], strict=True)) if placed else {}
    for row in document["fleet"]:
        table.add_row(
            row["name"], str(row["count"]), _some(row["there"]), _some(row["spot"]), f"{row['price']:.2f}",
            f"{busy[row['name']]:.0%}" if row["name"] in busy else "",
        )  # fmt: skip
    console.out.print(table)


def _summary(document: Document, money: str) -> None:
    low, high = document["attainment_interval"]
    proof = document["proof"]
    gap = "proven to be the cheapest" if document["gap"] == 0 else f"at most {document['gap']:.1%} above the cheapest"
    lines = [
        f"{document['cost_per_hour']:.2f} {money}, {gap} (bound {document['bound']:.2f})",
        f"{document['attainment']:.2%} in time [{low:.2%}, {high:.2%}] over {proof['seeds']} runs of "
        f"{proof['run_seconds']:,.0f} s under {document['policy']}; P95 {document['p95_s']:.3g} s",
        f"{document['rounds']} fleets tried in {proof['simulations']} simulations and {document['seconds']:.0f} s; "
        f"the model alone would have bought for {document['model']['cost']:.2f} {money}",
    ]
    for line in lines:
        console.out.print(line, highlight=False)
    console.out.print()


def _removals(document: Document) -> None:
    rows = document["proof"]["removals"]
    if not rows:
        return
    table = _table("Less one", "without one", "in time", "")
    for row in rows:
        table.add_row(row["without"], f"{row['attainment']:.1%}", "still enough" if row["passes"] else "too few")
    console.out.print(table)


def _points(document: Document, key: str, title: str, first: str, money: str) -> None:
    table = _table(title, first, money, "gap", "in time", "fleet")
    for point in document[key]:
        head = f"{point['target']:.4g}" if key == "front" else f"{point['rate_factor'] * document['rate']:.3g}/s"
        if point["cost_per_hour"] is None:
            table.add_row(head, "none", "", "", point["why"])
            continue
        table.add_row(
            head, f"{point['cost_per_hour']:.2f}", f"{point['gap']:.1%}", f"{point['attainment']:.1%}",
            _names(point["fleet"]),
        )  # fmt: skip
    table.columns[-1].justify = "left"
    console.out.print(table)


def _one_more(document: Document, money: str) -> None:
    base = document["one_more"]["sustained"] * document["rate"]
    table = _table(
        f"One more (now {base:.3g} workflows/s are sustained)", "of", "sustains", money, "money for 1/s more"
    )
    for row in document["one_more"]["options"]:
        more = row["sustained"] * document["rate"]
        table.add_row(
            row["name"], f"{more:.3g}/s", f"{row['price']:.2f}",
            f"{row['price'] / (more - base):,.0f}" if more > base else "-",
        )  # fmt: skip
    console.out.print(table)


def _growth(document: Document, money: str) -> None:
    growth = document["growth"]
    table = _table("Fleets that only grow with the rate", "when", "rate", money, "alone", "in time", "fleet")
    for period in growth["periods"]:
        table.add_row(
            period["name"], f"{period['rate_factor'] * document['rate']:.3g}/s", f"{period['cost_per_hour']:.2f}",
            f"{period['alone']:.2f}", f"{period['attainment']:.1%}", _names(period["fleet"]),
        )  # fmt: skip
    table.columns[-1].justify = "left"
    console.out.print(table)
    console.out.print(f"in all {growth['total']:.2f}, at least {growth['bound']:.2f}\n", highlight=False)


def _shadow(document: Document, money: str) -> None:
    table = _table("What a looser limit would save, by the relaxed model", "of", money)
    for name, price in document["shadow_prices"].items():
        table.add_row(name, f"{price:.3g}")
    console.out.print(table)


def _names(fleet: dict[str, int]) -> str:
    return ", ".join(f"{n} x {name}" for name, n in fleet.items())


def _some(count: int) -> str:
    return str(count) if count else ""


def print_throughput_plan(plan: ThroughputPlan, table: ThroughputTable, as_json: bool) -> None:
    """Print a plan made from throughputs alone, which nothing has simulated."""
    if as_json:
        fleet = {gpu: count for gpu, count in plan.counts.items() if count}
        document = {
            "cost_per_hour": plan.cost,
            "fleet": fleet,
            "bound": plan.bound,
            "gap": plan.gap,
            "attainment": None,
        }
        print(json.dumps(document))
        return
    shown = _table(f"{table.source}: {table.rate:.3g} calls/s", "instances", "count", "price an hour")
    for gpu, price in zip(table.gpus, table.price, strict=True):
        if plan.counts[gpu]:
            shown.add_row(gpu, str(plan.counts[gpu]), f"{price:.2f}")
    console.out.print(shown)
    console.out.print(f"{plan.cost:.2f} an hour (bound {plan.bound:.2f}); by throughput alone, nothing was simulated")
