"""Why a plan may be believed, and how far: what was simulated, what was ruled out, and by what."""

from __future__ import annotations

from html import escape

from hexopt.report import plan_figures as figures
from hexopt.report.plan_words import Document, fleet, measured, money, seconds, share
from hexopt.report.shell import Card, number, table

FOLDED = "The numbers"


def prose(document: Document) -> str:
    """What the proof consists of, and what it rests on, as paragraphs."""
    return "".join(f'<p class="prose">{escape(text)}</p>' for text in (_runs(document), _rests_on(document)))


def cards(document: Document) -> list[Card]:
    """What was tried, the fleet less one of each, and what limits cost."""
    proof, currency = document["proof"], document["currency"]
    found = []
    if proof["rounds"]:
        found.append(
            Card(
                "rounds",
                "Every fleet that was simulated",
                "Right of the dotted bound and above the promise is what can be had; the star is the cheapest of it "
                "that was found.",
                figures.rounds(document),
                table(
                    "Fleets in the order in which they were simulated",
                    ["No.", f"{currency} an hour", "In time", "", "Because", "Fleet"],
                    [
                        [
                            str(k + 1), money(r["cost"]), number(r["attainment"], percent=True),
                            "enough" if r["passed"] else "too few", r["why"], fleet(r["fleet"]),
                        ]
                        for k, r in enumerate(proof["rounds"])
                    ],
                    words=(4, 5),
                    folded=FOLDED,
                ),
                wide=True,
            )
        )  # fmt: skip
    if proof["removals"]:
        rows = [
            [row["without"], number(row["attainment"], percent=True), _removed(document, row["passes"])]
            for row in proof["removals"]
        ]
        found.append(
            Card(
                "removals",
                "One less of each",
                f"No instance is spare: without it fewer than {share(document['target'])} are in time."
                if not any(row["passes"] for row in proof["removals"])
                else "What becomes of the promise without one instance.",
                None,
                table("The fleet without one instance", ["Without one", "In time", ""], rows, words=(2,)),
            )
        )
    if document["shadow_prices"]:
        rows = [[name, money(price)] for name, price in document["shadow_prices"].items()]
        found.append(
            Card(
                "shadow",
                "What the limits cost",
                "What the model would save if a limit were looser and parts of instances could be rented: a direction, "
                "not a price.",
                None,
                table("Shadow prices", ["With", f"{currency} an hour less"], rows),
            )
        )
    return found


def _removed(document: Document, passes: bool) -> str:
    if not passes:
        return "too few"
    return "still enough, but not after a loss" if document["survives"] else "still enough"


def _runs(document: Document) -> str:
    proof, model = document["proof"], document["model"]
    tried = len(proof["rounds"])
    verdict = {"attainment": document["attainment"], "interval": document["attainment_interval"]}
    first = {row["name"]: row["count"] for row in model["fleet"]}
    text = (
        f"The chosen fleet was simulated with {proof['seeds']} seeds, {seconds(proof['run_seconds'])} each, under "
        f"{document['policy']}; workflows that arrived between {seconds(proof['measured_from_s'])} and "
        f"{seconds(proof['measured_to_s'])} count: {measured(verdict)} of them were in time. On the way to it {tried} "
        f"fleet{'s were' if tried != 1 else ' was'} tried in {proof['simulations']} simulations, which took "
        f"{seconds(document['seconds'])}. "
    )
    if not first:
        return text
    here = next((r for r in proof["rounds"] if r["fleet"] == first), None)
    came = (
        "" if here is None else f", of which {number(here['attainment'], percent=True)} in time came in the simulation"
    )
    return text + (
        f"The model by itself ({model['columns']:,} columns, {model['rows']:,} rows, solved in "
        f"{seconds(model['solve_seconds'])}) would have rented {fleet(first)} for {money(model['cost'])} "
        f"{document['currency']} an hour{came}."
    )


def _rests_on(document: Document) -> str:
    bound = f"{money(document['bound'])} {document['currency']} an hour"
    return (
        f"What the bound rests on: that no fleet below {bound} keeps the promise is the optimum of a fleet model in "
        "which calls cost what they cost at best: nothing waits, batches are perfect, caches forget nothing. These "
        "costs are scaled by what one instance of each option really took when it was flooded with this workload, less "
        "5%; a schedule that does better than that would undo the bound. Fleets that the model allows are then ruled "
        "out, by a simulation in which too few workflows were in time, or because each of their instances is no better "
        "than one of a fleet that failed. A simulation is a sample: a fleet right at the promise may pass or fail by "
        "chance. And fleet and bound are as good as the latency models that the simulator has learned."
    )
