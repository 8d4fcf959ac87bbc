"""One HTML page about a plan: what to rent, what it costs, what else was asked, and why to believe it."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from hexopt.atomic import atomic_write
from hexopt.report import plan_proof, plan_sections
from hexopt.report.plan_words import MONTH, Document, fleet, gpus, listed, money, rate, seconds, share
from hexopt.report.shell import Card, asset, number, page_of


def write_plan_page(path: str | Path, document: Document) -> None:
    """Write a self-contained page about a plan.

    Parameters
    ----------
    path
        HTML file to write; it appears whole or not at all.
    document
        What :func:`hexopt.planning.document.document_of` made of the plan and its answers.

    Raises
    ------
    OSError
        If ``path`` cannot be written.
    """
    page = plan_page_html(document)
    with atomic_write(path) as stream:
        stream.write(page)


def plan_page_html(document: Document) -> str:
    """Text of the page that :func:`write_plan_page` writes."""
    sections = [
        ("fleet", "The fleet", "", plan_sections.fleet_cards(document)),
        ("prices", "Other promises and rates", "", plan_sections.price_cards(document)),
        ("room", "Room to spare", "", plan_sections.room_cards(document)),
        ("time", "Over time", "", plan_sections.time_cards(document)),
        ("work", "Which work runs where", "", plan_sections.work_cards(document)),
        ("proof", "Why to believe it", plan_proof.prose(document), plan_proof.cards(document)),
    ]
    shown = [section for section in sections if section[3]]
    content = asset("plan.html").substitute(
        headline=escape(headline(document)),
        facts=escape(facts(document)),
        tiles="".join(
            f'<div><dt>{escape(name)}</dt><dd class="value">{escape(value)}</dd><dd>{escape(text)}</dd></div>'
            for name, value, text in tiles(document)
        ),
        links="".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _, _ in shown),
        sections="".join(_section(*section) for section in shown),
    )
    charts = [card for _, _, _, cards in shown for card in cards if card.figure is not None]
    data = ",".join(f"{json.dumps(f'{card.name}-chart')}:{card.figure.to_json()}" for card in charts if card.figure)
    return page_of(f"Fleet plan: {document['title']}", content, f"{{{data}}}", "cards")


def headline(document: Document) -> str:
    """What to rent for how much, in one sentence."""
    counts = {row["name"]: row["count"] for row in document["fleet"]}
    price = f"{money(document['cost_per_hour'])} {document['currency']} an hour"
    return f"{fleet(counts)} for {price}: {number(document['attainment'], percent=True)} of the workflows in time."


def facts(document: Document) -> str:
    """What was planned for."""
    demand = listed(
        [
            f"{one['name']} ({one['workflows']:,} workflows in the trace), {rate(one['rate'])}, each within "
            f"{seconds(one['slo_s'])}"
            for one in document["workloads"]
        ]
    )
    survives = f", also without any one {document['survives']}" if document["survives"] else ""
    each = " of each" if len(document["workloads"]) > 1 else ""
    return (
        f"Planned for {demand}; {share(document['target'])}{each} must be in time{survives}. "
        f"Scheduled by {document['policy']} on {gpus(document['fleet'])}."
    )


def tiles(document: Document) -> list[tuple[str, str, str]]:
    """The figures that a page begins with: name, value, and what to know of it."""
    cost, currency = document["cost_per_hour"], document["currency"]
    low, high = document["attainment_interval"]
    doubt = ", so it may miss the promise" if low < document["target"] else ""
    ended = 3600.0 * document["rate"] * document["attainment"]
    proven = ("proven", "every cheaper fleet is ruled out")
    if document["gap"] >= 0.0005:
        proven = (
            f"within {document['gap']:.1%}",
            f"no fleet below {money(document['bound'])} {currency} keeps the promise; the search ended there",
        )
    return [
        ("Cost an hour", f"{money(cost)} {currency}", f"{money(1000.0 * cost / ended)} per 1,000 workflows in time"),
        ("Cost a month", f"{money(MONTH * cost, 0)} {currency}", f"{MONTH:.0f} hours"),
        (
            f"In time (promised {share(document['target'])})",
            number(document["attainment"], percent=True),
            f"95% interval {number(low, percent=True)} to {number(high, percent=True)}{doubt}",
        ),
        ("Cheapest?", *proven),
        ("P95 of a workflow", seconds(document["p95_s"]), "95% of the workflows took no longer"),
    ]


def _section(name: str, title: str, lead: str, cards: list[Card]) -> str:
    return (
        f'<section class="part" id="{name}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{escape(title)}</h2>{lead}'
        f'<div class="pair">{"".join(card.html for card in cards)}</div></section>'
    )
