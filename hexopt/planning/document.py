"""A plan and the answers beside it as one document of plain values: what ``--json`` prints and the report shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hexopt.planning.fleet import Fleet, Limits, Option, bill_of
from hexopt.planning.placement import Placement
from hexopt.planning.proof import Setting, Verdict
from hexopt.planning.questions import Growth, OneMore, Point, Sensitivity
from hexopt.planning.search import Plan, Question, Round
from hexopt.planning.work import Work

Document = dict[str, Any]
"""Strings, numbers, lists and dictionaries; ``None`` for what is not finite."""


@dataclass(frozen=True)
class Answers:
    """What was asked beside the plan; empty where it was not.

    Parameters
    ----------
    front, sweep
        Plans for other targets and other rates.
    shadow
        Money an hour that a unit more of each limit saves in the relaxed model.
    sustained, more
        Factor on the rate that the fleet sustains, and with one more of each option.
    sensitivity
        Attainment at other GPU speeds.
    growth, growth_labels
        Fleets for periods, and what those are called.
    placement
        Where the calls ran in one run of the fleet.
    curve
        Attainment of the fleet at factors on the rate.
    """

    front: Sequence[Point] = ()
    sweep: Sequence[Point] = ()
    shadow: dict[str, float] = field(default_factory=dict)
    sustained: float = math.nan
    more: Sequence[OneMore] = ()
    sensitivity: Sequence[Sensitivity] = ()
    growth: Growth | None = None
    growth_labels: Sequence[str] = ()
    placement: Placement | None = None
    curve: Sequence[tuple[float, Verdict]] = ()


def document_of(
    plan: Plan,
    setting: Setting,
    limits: Limits,
    question: Question,
    work: Work,
    currency: str,
    answers: Answers,
    title: str,
) -> Document:
    """The document of ``plan``."""
    options = setting.options
    write = _Writer(options, limits)
    bill = bill_of(options, plan.fleet, limits)
    demand = setting.demand
    document: Document = {
        "title": title,
        "currency": currency,
        "cost_per_hour": plan.cost,
        "fleet": write.fleet(plan.fleet),
        "whole_nodes": bill.nodes,
        "attainment": plan.verdict.attainment,
        "attainment_interval": [plan.verdict.low, plan.verdict.high],
        "bound": plan.bound,
        "gap": plan.gap,
        "rounds": len(plan.rounds),
        "target": question.target,
        "survives": question.survive or None,
        "policy": setting.policy.label,
        "workloads": [
            {"name": s.name, "rate": s.rate, "slo_s": float(s.deadlines.max()), "workflows": len(s.workflows)}
            for s in demand.services
        ],
        "rate": demand.rate,
        "p95_s": plan.verdict.p95,
        "utilisation": plan.verdict.utilisation,
        "proof": {
            "seeds": plan.verdict.runs,
            "run_seconds": setting.seconds,
            "measured_from_s": setting.window[0],
            "measured_to_s": setting.window[1],
            "simulations": plan.simulations,
            "rounds": [write.round(r) for r in plan.rounds],
            "removals": [
                {"without": options[r.option].name, **write.verdict(r.verdict), "passes": _passes(r.verdict, question)}
                for r in plan.removals
            ],
        },
        "model": {
            "cost": plan.first.cost,
            "bound": plan.first.bound,
            "status": plan.first.status,
            "columns": plan.first.columns,
            "rows": plan.first.rows,
            "build_seconds": plan.first.build_seconds,
            "solve_seconds": plan.first.solve_seconds,
            "fleet": write.fleet(plan.first.fleet),
            "classes": [
                {"name": name, "calls_per_second": float(rate), "seconds": float(split)}
                for name, rate, split in zip(work.names, work.rate, plan.first.split, strict=True)
            ],
        },
        "seconds": plan.seconds,
        "shadow_prices": {_limit(name, work): price for name, price in answers.shadow.items() if price >= 0.005},
        "front": [write.point(p) for p in answers.front],
        "sweep": [write.point(p) for p in answers.sweep],
        "one_more": {
            "sustained": answers.sustained,
            "options": [
                {"name": options[m.option].name, "price": m.price, "sustained": m.sustained} for m in answers.more
            ],
        },
        "sensitivity": [
            {"gpu": s.gpu or "all", "speed": s.factor, **write.verdict(s.verdict)} for s in answers.sensitivity
        ],
        "curve": [{"rate": factor * demand.rate, **write.verdict(verdict)} for factor, verdict in answers.curve],
        "growth": write.growth(answers.growth, answers.growth_labels),
        "placement": write.placement(answers.placement),
    }
    return finite(document)


def _limit(row: str, work: Work) -> str:
    """What a row of the model limits, in words."""
    kind, _, which = row.rpartition("_")
    if kind == "deadline":
        return f"a second more for {work.groups[int(which)]} workflows"
    if kind in ("inventory", "nodes_of"):
        return f"one more {which}"
    return "one more of the budget"


def _passes(verdict: Verdict, question: Question) -> bool:
    return verdict.attainment >= question.target


@dataclass(frozen=True)
class _Writer:
    options: tuple[Option, ...]
    limits: Limits

    def fleet(self, fleet: Fleet) -> list[Document]:
        spot = bill_of(self.options, fleet, self.limits).spot if fleet else ()
        return [
            {
                "name": option.name,
                "gpu": option.gpu,
                "llm": option.instance.cell.cell.llm,
                "tp": option.instance.cell.cell.tp,
                "pp": option.instance.cell.cell.pp,
                "count": count,
                "there": option.owned,
                "spot": spot[j],
                "price": option.price,
                "spot_price": option.spot_price,
            }
            for j, (option, count) in enumerate(zip(self.options, fleet, strict=bool(fleet)))
            if count
        ]

    def names(self, fleet: Fleet) -> dict[str, int]:
        return {o.name: n for o, n in zip(self.options, fleet, strict=True) if n}

    def verdict(self, verdict: Verdict) -> Document:
        return {"attainment": verdict.attainment, "interval": [verdict.low, verdict.high], "p95_s": verdict.p95}

    def round(self, r: Round) -> Document:
        return {
            "why": r.why,
            "fleet": self.names(r.fleet),
            "cost": r.cost,
            "attainment": r.attainment,
            "passed": r.passed,
        }

    def point(self, point: Point) -> Document:
        plan = point.plan
        if plan is None:
            return {"target": point.target, "rate_factor": point.factor, "cost_per_hour": None, "why": point.why}
        return {
            "target": point.target,
            "rate_factor": point.factor,
            "cost_per_hour": plan.cost,
            "bound": plan.bound,
            "gap": plan.gap,
            "fleet": self.names(plan.fleet),
            **self.verdict(plan.verdict),
        }

    def growth(self, growth: Growth | None, labels: Sequence[str]) -> Document | None:
        if growth is None:
            return None
        return {
            "total": growth.total,
            "bound": growth.bound,
            "periods": [
                {
                    "name": label,
                    "rate_factor": factor,
                    "weight": weight,
                    "fleet": self.names(fleet),
                    "cost_per_hour": cost,
                    "alone": alone,
                    "attainment": verdict.attainment,
                }
                for label, factor, weight, fleet, cost, alone, verdict in zip(
                    labels, growth.factors, growth.weights, growth.fleets, growth.costs, growth.alone, growth.verdicts,
                    strict=True,
                )
            ],
        }  # fmt: skip

    def placement(self, placement: Placement | None) -> Document | None:
        if placement is None:
            return None
        return {
            "options": [self.options[j].name for j in placement.options],
            "busy": placement.busy.tolist(),
            "kinds": [
                {"kind": kind, "share": share.tolist(), "seconds": seconds.tolist(), "wait": wait.tolist()}
                for kind, share, seconds, wait in zip(
                    placement.kinds, placement.share, placement.seconds, placement.wait, strict=True
                )
            ],
        }


def finite(value: Any) -> Any:
    """``value`` with what is not finite as ``None``, and NumPy's numbers as Python's, so that it is valid JSON."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
