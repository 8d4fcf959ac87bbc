"""One HTML page about optimality gaps: gap against time, by size, and what a gap costs end to end."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from hexopt.atomic import atomic_write
from hexopt.report.gap_figures import ALL, SEVERAL, by_size, end_to_end, gap_against_time
from hexopt.report.shell import Card, asset, number, page_of, table

Document = dict[str, Any]


def write_gap_page(path: str | Path, document: Document) -> None:
    """Write a self-contained page.

    Parameters
    ----------
    path
        HTML file to write; it appears whole or not at all.
    document
        What :func:`hexopt.research.gap.document.document_of` made.

    Raises
    ------
    OSError
        If ``path`` cannot be written.
    """
    page = gap_page_html(document)
    with atomic_write(path) as stream:
        stream.write(page)


def gap_page_html(document: Document) -> str:
    """Text of the page that :func:`write_gap_page` writes."""
    sections = [
        ("time", "Gap against time", _time_cards(document)),
        ("size", "By size", _size_cards(document)),
        ("cost", "What a gap costs", _cost_cards(document)),
    ]
    shown = [section for section in sections if section[2]]
    content = asset("gap.html").substitute(
        headline=escape(headline(document)),
        facts=escape(facts(document)),
        links="".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in shown),
        sections="".join(
            f'<section class="part" id="{name}" aria-labelledby="{name}-title">'
            f'<h2 id="{name}-title">{escape(title)}</h2>'
            f'<div class="pair">{"".join(card.html for card in cards)}</div></section>'
            for name, title, cards in shown
        ),
    )
    charts = [card for _, _, cards in shown for card in cards if card.figure is not None]
    data = ",".join(f"{json.dumps(f'{card.name}-chart')}:{card.figure.to_json()}" for card in charts if card.figure)
    where = document.get("trace") or document.get("checked") or ""
    return page_of(f"Optimality gap: {where}", content, f"{{{data}}}", "cards")


def headline(document: Document) -> str:
    """The shortest solve within 1% of the best known on epochs with something to plan, in one sentence."""
    rows = rows_of(document, "", SEVERAL) or rows_of(document, "", ALL)
    what = "epochs of two stages or more" if rows and rows[0]["size"] else "epochs"
    near = [row for row in rows if row["above_best"]["mean"] is not None and row["above_best"]["mean"] <= 0.01]
    if not near:
        return f"No solver is within 1% of the best known plans of {what} on average."
    first = min(near, key=lambda row: row["seconds"])
    return (
        f"On {what}, {first['effort']} is {_share(first['above_best']['mean'])} above the best known plans in "
        f"{_ms(first)} ms."
    )


def facts(document: Document) -> str:
    """What was solved."""
    rows = rows_of(document, "", ALL)
    solved = f"{rows[0]['problems']:,} epoch problems solved, which stand for {rows[0]['epochs']:,.0f} epochs"
    if not document["epochs"]:
        return f"{solved}."
    loads = ", ".join(one["load"] for one in document["epochs"])
    return (
        f"{solved} of {document['trace']} on {document['cluster']} at {loads}, deadline {document['deadline']}, "
        f"objective {document['weights']}; {document['seeds']} runs of {document['workflows']:,} workflows each, "
        f"recorded under {document['recorded_under']}."
    )


def rows_of(document: Document, load: str, size: str) -> list[Document]:
    """Rows of one group of the race."""
    return [row for row in document["race"] if row["load"] == load and row["size"] == size]


def _time_cards(document: Document) -> list[Card]:
    cards = []
    for size, title in ((SEVERAL, "Epochs of two stages or more"), (ALL, "All epochs")):
        rows = rows_of(document, "", size)
        if not rows:
            continue
        for key, to, name in (
            ("above_best", "the best known plan", "best"),
            ("above_bound", "the best bound", "bound"),
        ):
            if any(row[key]["mean"] is not None for row in rows):
                cards.append(
                    Card(
                        f"{name}-{'several' if size else 'all'}",
                        f"{title}: gap to {to}",
                        "Mean of (objective - reference) / objective over the epochs against a solve's median time, "
                        "both logarithmic; a gap of 0 lies on the lower edge. Lower and further left is better.",
                        gap_against_time(rows, key),
                        _race_table(f"{title}: gap to {to}", rows) if key == "above_best" else "",
                    )
                )
    return cards


def _size_cards(document: Document) -> list[Card]:
    cards = []
    loads = list(dict.fromkeys(row["load"] for row in document["race"]))
    for k, load in enumerate(loads):
        rows = [row for row in document["race"] if row["load"] == load and row["size"] not in (ALL, SEVERAL)]
        if rows:
            title = f"Gap to the best known plan by stages{f', {load}' if load else ''}"
            text = "The longest limit of each solver, and the efforts that scheduled the whole workload."
            cards.append(Card(f"size-{k}", title, text, by_size(rows), _size_table(title, rows)))
    return cards


def _cost_cards(document: Document) -> list[Card]:
    rows = document["end_to_end"]
    if not rows:
        return []
    cards = [
        Card(
            "ends",
            "P95 against the mean gap",
            "The same workflows at the same times with plans of different quality: P95 over that of "
            f"{document['recorded_under']}, with 95% intervals over the seeds.",
            end_to_end(rows, "p95_s", document["recorded_under"]),
        ),
        Card(
            "attainment",
            "In time against the mean gap",
            "Points more in time than with that effort.",
            end_to_end(rows, "attainment", document["recorded_under"]),
        ),
    ]
    for k, load in enumerate(dict.fromkeys(row["load"] for row in rows)):
        cards.append(Card(f"table-{k}", f"At {load}", _priced(document, load), None, _end_table(load, rows), wide=True))
    return cards


def _race_table(label: str, rows: list[Document]) -> str:
    head = ["solver", "ms", "above best", "±", "worst", "above bound", "best found", "proven", "failed"]
    body = [
        [
            row["effort"], _ms(row), _share(row["above_best"]["mean"]), _share(row["above_best"]["half"]),
            _share(row["worst"]), _share(row["above_bound"]["mean"]), number(row["best"], percent=True),
            number(row["proven"], percent=True), str(row["failed"]),
        ]
        for row in rows
    ]  # fmt: skip
    return table(label, head, body, folded="Numbers")


def _size_table(label: str, rows: list[Document]) -> str:
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    gaps = {(row["effort"], row["size"]): _share(row["above_best"]["mean"]) for row in rows}
    efforts = list(dict.fromkeys(row["effort"] for row in rows))
    body = [[effort, *(gaps.get((effort, size), "–") for size in sizes)] for effort in efforts]
    return table(label, ["solver", *sizes], body, folded="Numbers")


def _end_table(load: str, rows: list[Document]) -> str:
    head = ["plans by", "gap", "gap, 2 or more", "P95 (s)", "P95 ratio", "mean (s)", "in time", "points"]
    body = []
    for row in (row for row in rows if row["load"] == load):
        body.append(
            [
                row["effort"],
                "–" if row["gap"] is None else _share(row["gap"]["mean"]),
                "–" if row["gap_several"] is None else _share(row["gap_several"]["mean"]),
                number(row["p95_s"]["mean"]),
                _between(row["p95_s_versus"], lambda v: f"{1.0 / v:.3f}", turned=True),
                number(row["mean_s"]["mean"]),
                number(row["attainment"]["mean"], percent=True),
                _between(row["attainment_versus"], lambda v: f"{100.0 * v:+.2f}"),
            ]
        )
    return table(f"End to end at {load}", head, body)


def _between(versus: Document | None, shown: Any, turned: bool = False) -> str:
    if versus is None or versus["mean"] is None:
        return "–"
    ends = versus["interval"][::-1] if turned else versus["interval"]
    between = "" if None in ends else f" [{shown(ends[0])}, {shown(ends[1])}]"
    return shown(versus["mean"]) + between


def _priced(document: Document, load: str) -> str:
    words = []
    for price in document["prices"]:
        if price["load"] != load or price["cost"]["mean"] is None:
            continue
        name = {"p95_s": "P95", "mean_s": "mean latency", "attainment": "in time"}[price["metric"]]
        cost = price["cost"]["mean"]
        change = f"{100 * (cost - 1):+.1f}%" if price["by_ratio"] else f"{100 * cost:+.1f} points"
        words.append(f"{name} {change}")
        gap, reach = price["gap"], price["reach"]
    if not words:
        return ""
    return f"A mean gap of {gap:.0%} costs: {', '.join(words)}; gaps up to {reach:.1%} were tried."


def _ms(row: Document) -> str:
    return f"{1e3 * row['seconds']:.3g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.3f}%"
