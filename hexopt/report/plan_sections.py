"""Cards of a plan's page: the fleet, and the answers beside it; each only where the document has data."""

from __future__ import annotations

from hexopt.report import plan_figures as figures
from hexopt.report.plan_words import MONTH, Document, fleet, measured, money, rate, seconds, share
from hexopt.report.shell import Card, number, table

FOLDED = "The numbers"


def fleet_cards(document: Document) -> list[Card]:
    """The fleet as a table, and as bars where it is mixed."""
    rows, currency = document["fleet"], document["currency"]
    placed = document["placement"]
    busy = dict(zip(placed["options"], placed["busy"], strict=True)) if placed else {}
    head = ["Instances", "Count", "GPUs", "LLM", "There already", "Spot", "Each an hour", "Cost an hour", "Busy"]
    body = [
        [
            row["name"], str(row["count"]), str(row["count"] * row["tp"] * row["pp"]), row["llm"],
            _some(row["there"]), _some(row["spot"]), money(row["price"]), money(figures.row_cost(row)),
            number(busy.get(row["name"]), percent=True),
        ]
        for row in rows
    ]  # fmt: skip
    unused = document["cost_per_hour"] - sum(figures.row_cost(row) for row in rows)
    if document["whole_nodes"] and abs(unused) >= 0.005:
        nodes = fleet({f"{gpu} node": count for gpu, count in document["whole_nodes"].items()})
        body.append([f"rented whole: {nodes}", *[""] * 6, money(unused), ""])
    total = sum(row["count"] for row in rows), sum(row["count"] * row["tp"] * row["pp"] for row in rows)
    body.append(["All", *map(str, total), "", "", "", "", money(document["cost_per_hour"]), ""])
    shown = [k for k in range(len(head)) if k < 4 or any(line[k] not in ("", "–") for line in body)]
    numbers = table(
        "Instances of the fleet", [head[k] for k in shown], [[line[k] for k in shown] for line in body], words=(3,)
    )
    text = f"What to rent, with prices in {currency}. tp2 is one instance on two GPUs that share every layer"
    text += "; pp2, on two that share out the layers." if any(row["pp"] > 1 for row in rows) else "."
    text += " Busy is the share of the time in which any call ran." if busy else ""
    cards = [Card("fleet", "What to rent", text, None, numbers, wide=True)]
    if len(rows) > 1:
        figure = figures.fleet_bars(document)
        cards.append(Card("bill", "What it is paid for", "Cost of each kind of instance.", figure, wide=True))
    return cards


def price_cards(document: Document) -> list[Card]:
    """The Pareto front of cost and attainment, and the cost against the rate."""
    cards = []
    if document["front"]:
        cards.append(
            Card(
                "front",
                "Cost against the promise",
                "The cheapest fleet for other shares of workflows in time; the axis is spaced by what may be late.",
                figures.front(document) if _found(document["front"]) else None,
                _points(document, "front", "Promise"),
            )
        )
    if document["sweep"]:
        cards.append(
            Card(
                "sweep",
                "Cost against the rate",
                "The cheapest fleet at other rates; down to the dotted line, more searching could still save.",
                figures.sweep(document) if _found(document["sweep"]) else None,
                _points(document, "sweep", "Rate"),
            )
        )
    return cards


def room_cards(document: Document) -> list[Card]:
    """What the fleet does at other rates, on other GPUs, and with one more of each."""
    cards = []
    if document["curve"]:
        cards.append(
            Card(
                "curve",
                "If more or fewer workflows come",
                "Share of this fleet's workflows in time at other rates, with its 95% interval.",
                figures.curve(document),
                table(
                    "Attainment by rate",
                    ["Rate", "In time", "P95"],
                    [[rate(p["rate"]), measured(p), seconds(p["p95_s"])] for p in document["curve"]],
                    folded=FOLDED,
                ),
            )
        )
    if document["sensitivity"]:
        cards.append(
            Card(
                "sensitivity",
                "If GPUs are slower or faster than learned",
                "The latency models are learned; this is what becomes of the promise if they are wrong.",
                figures.sensitivity(document),
                table(
                    "Attainment by GPU speed",
                    ["GPUs", "Speed", "In time", "P95"],
                    [
                        [p["gpu"], f"{p['speed']:.0%}", measured(p), seconds(p["p95_s"])]
                        for p in document["sensitivity"]
                    ],
                    folded=FOLDED,
                ),
            )
        )
    if document["one_more"]["options"]:
        cards.append(_one_more(document))
    return cards


def _one_more(document: Document) -> Card:
    base = document["one_more"]["sustained"] * document["rate"]
    rows = []
    for row in document["one_more"]["options"]:
        more = row["sustained"] * document["rate"]
        dear = money(row["price"] / (more - base), 0) if more > base else "–"
        rows.append([row["name"], rate(more), money(row["price"]), dear])
    return Card(
        "more",
        "One more of each",
        f"The fleet keeps the promise up to {rate(base)}. What one more instance adds to that, to about 3%.",
        figures.one_more(document),
        table(
            "Rate sustained with one more instance",
            ["One more", "Sustains", f"{document['currency']} an hour", "For 1/s more"],
            rows,
            folded=FOLDED,
        ),
        wide=True,
    )


def time_cards(document: Document) -> list[Card]:
    """Fleets for periods."""
    growth = document["growth"]
    if not growth:
        return []
    periods, currency = growth["periods"], document["currency"]
    length = sum(period["weight"] for period in periods)
    mean, least = growth["total"] / length, growth["bound"] / length
    largest = max(period["cost_per_hour"] for period in periods)
    saved = f", {1.0 - mean / largest:.1%} less than the largest fleet all the time" if mean < largest else ""
    rows = [
        [
            p["name"], rate(p["rate_factor"] * document["rate"]), money(p["cost_per_hour"]), money(p["alone"]),
            number(p["attainment"], percent=True), fleet(p["fleet"]),
        ]
        for p in periods
    ]  # fmt: skip
    return [
        Card(
            "growth",
            "A fleet that only grows with the rate",
            f"Each period keeps what those of lower rates have. On average {money(mean)} {currency} an hour{saved}; "
            f"periods planned each by itself came to {money(least)}.",
            figures.growth(document),
            table(
                "Fleets by period",
                ["When", "Rate", f"{currency} an hour", "By itself", "In time", "Fleet"],
                rows,
                words=(5,),
                folded=FOLDED,
            ),
            wide=True,
        )
    ]


def work_cards(document: Document) -> list[Card]:
    """Where calls ran, and how the model splits the deadline."""
    cards = []
    placed = document["placement"]
    if placed:
        rows = [
            [
                row["kind"],
                *(
                    f"{share:.1%}, {seconds(took)}, {seconds(wait)} waiting" if share else "–"
                    for share, took, wait in zip(row["share"], row["seconds"], row["wait"], strict=True)
                ),
            ]
            for row in placed["kinds"]
        ]
        rows.append(["share of the time busy", *(number(busy, percent=True) for busy in placed["busy"])])
        cards.append(
            Card(
                "placement",
                "Where the scheduler ran each kind of call",
                "Share of a kind's calls on each kind of instance, in one simulated run.",
                figures.placement(document),
                table(
                    "Share, seconds and waiting of each kind of call on each kind of instance",
                    ["Call", *placed["options"]],
                    rows,
                    folded=FOLDED,
                ),
            )
        )
    classes = figures.shown_classes(document)
    if classes:
        some = f" Shown: {figures.CLASSES} of {len(classes)} classes." if len(classes) > figures.CLASSES else ""
        cards.append(
            Card(
                "split",
                "How the model splits the deadline",
                "Seconds that the fleet model gives one call of each class of work, those with most calls under way "
                f"first. The scheduler makes its own split while it runs.{some}",
                figures.split(document),
                table(
                    "Calls a second and seconds of each class",
                    ["Class", "Calls", "Seconds each"],
                    [[c["name"], rate(c["calls_per_second"]), number(c["seconds"])] for c in classes],
                    folded=FOLDED,
                ),
            )
        )
    return cards


def _found(points: list[Document]) -> bool:
    return any(point["cost_per_hour"] is not None for point in points)


def _points(document: Document, key: str, first: str) -> str:
    """Plans for other targets or rates as a table; a plan that was not found says why."""
    rows = []
    for point in document[key]:
        at = document["rate"] * point["rate_factor"]
        head = share(point["target"]) if key == "front" else rate(at)
        cost = point["cost_per_hour"]
        if cost is None:
            rows.append([head, "none", "", "", "", "", point["why"]])
            continue
        rows.append(
            [
                head, money(cost), money(MONTH * cost, 0), money(1000.0 * cost / (3600.0 * at)), measured(point),
                f"{point['gap']:.1%}", fleet(point["fleet"]),
            ]
        )  # fmt: skip
    titles = [first, f"{document['currency']} an hour", "A month", "Per 1,000", "In time", "Gap", "Fleet"]
    return table(f"Cheapest fleets by {first.lower()}", titles, rows, words=(6,), folded=FOLDED)


def _some(count: int) -> str:
    return str(count) if count else ""
