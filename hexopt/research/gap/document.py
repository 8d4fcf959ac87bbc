"""Everything that ``hexopt gap`` found, as plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hexopt.research.gap.outcome import SHOWN, Outcome, Price
from hexopt.research.gap.sizes import Estimate
from hexopt.research.gap.table import GapRow
from hexopt.research.statistics import Interval

Document = dict[str, Any]


def document_of(
    about: Document, rows: Sequence[GapRow], found: Sequence[Outcome] = (), costs: Sequence[Price] = ()
) -> Document:
    """The document: ``about``, ``race`` (a row a group and effort), ``end_to_end`` and ``prices``.

    Gaps and shares are numbers from 0 to 1, null where there is none; intervals are ``[low, high]``.
    """
    document: Document = _plain(
        {
            **about,
            "race": [
                {
                    **{k: v for k, v in asdict(row).items() if not k.startswith("above")},
                    "above_best": _estimate(row.above_best),
                    "above_bound": _estimate(row.above_bound),
                }
                for row in rows
            ],
            "end_to_end": [_outcome(one) for one in found],
            "prices": [
                {
                    "load": price.load,
                    "metric": price.metric.key,
                    "by_ratio": price.metric.by_ratio,
                    "gap": price.gap,
                    "reach": price.reach,
                    "cost": _interval(price.cost),
                }
                for price in costs
            ],
        }
    )
    return document


def _outcome(one: Outcome) -> Document:
    row: Document = {
        "load": one.load,
        "effort": one.effort,
        "gap": None if one.gap is None else _estimate(one.gap),
        "gap_several": None if one.gap_several is None else _estimate(one.gap_several),
    }
    for key in SHOWN:
        judged = one.judgements[key]
        versus = judged.baseline
        row[key] = _interval(judged.value)
        row[f"{key}_versus"] = None
        if versus is not None:
            row[f"{key}_versus"] = {**_interval(versus.estimate), "baseline": versus.other, "p_holm": versus.p}
    return row


def _estimate(estimate: Estimate) -> Document:
    return {"mean": estimate.mean, "half": estimate.half}


def _interval(interval: Interval) -> Document:
    return {"mean": interval.mean, "interval": [interval.low, interval.high]}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
