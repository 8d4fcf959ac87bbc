"""Each policy of a cell against the baseline and against the best other one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.research.metrics import Metric
from hexopt.research.results import Cell, Results
from hexopt.research.statistics import Interval, bootstrap_mean, holm, rank_biserial, wilcoxon


@dataclass(frozen=True)
class Versus:
    """A policy against another, over the seeds.

    ``estimate`` is how many times better the policy's value is (geometric mean of the ratios) or the policy's minus the
    other's (mean), whichever the metric is compared by; ``p`` is corrected by Holm over the policies of the cell;
    ``effect`` is the rank-biserial correlation, positive where the policy is better.
    """

    other: str
    estimate: Interval
    p: float
    effect: float


@dataclass(frozen=True)
class Judgement:
    """What a cell says of a policy's metric; None where there is nothing to compare it with."""

    policy: str
    metric: Metric
    value: Interval
    baseline: Versus | None
    best_other: Versus | None


def judge(results: Results, cell: Cell, metric: Metric, baseline: str) -> list[Judgement]:
    """Every policy of the cell."""
    return judge_values({p: results.values(cell, p, metric.key) for p in results.policies}, metric, baseline)


def judge_values(values: dict[str, NDArray[np.float64]], metric: Metric, baseline: str) -> list[Judgement]:
    """Every policy by its values over the same seeds, each of shape (seeds,)."""
    means = {policy: _mean(x, metric) for policy, x in values.items()}
    others = {policy: _best(means, metric, policy) for policy in values}
    against_base = _versus(values, {p: baseline for p in values if p != baseline}, metric)
    against_best = _versus(values, {p: other for p, other in others.items() if other is not None}, metric)
    return [
        Judgement(policy, metric, bootstrap_mean(x), against_base.get(policy), against_best.get(policy))
        for policy, x in values.items()
    ]


def _mean(values: NDArray[np.float64], metric: Metric) -> float:
    worst = np.inf if metric.smaller_is_better else -np.inf
    return float(values.mean()) if values.size and np.isfinite(values).all() else worst


def _best(means: dict[str, float], metric: Metric, but: str) -> str | None:
    best: str | None = None
    for policy, mean in means.items():
        if policy != but and (best is None or metric.better(mean, means[best])):
            best = policy
    return best


def _versus(values: dict[str, NDArray[np.float64]], pairs: dict[str, str], metric: Metric) -> dict[str, Versus]:
    found: dict[str, tuple[str, NDArray[np.float64]]] = {}
    for policy, other in pairs.items():
        mine, theirs = values[policy], values[other]
        if metric.by_ratio:
            usable = bool(np.all(np.isfinite(mine) & np.isfinite(theirs) & (mine > 0) & (theirs > 0)))
            better = (theirs, mine) if metric.smaller_is_better else (mine, theirs)
            gain = np.log(better[0] / better[1]) if usable else None
        else:
            usable = bool(np.all(np.isfinite(mine) & np.isfinite(theirs)))
            gain = mine - theirs if usable else None
        if gain is not None:
            found[policy] = other, gain
    corrected = holm([wilcoxon(gain) for _, gain in found.values()])
    result = {}
    for (policy, (other, gain)), p in zip(found.items(), corrected, strict=True):
        estimate = bootstrap_mean(gain)
        sign = 1.0 if metric.by_ratio or not metric.smaller_is_better else -1.0
        if metric.by_ratio:
            estimate = Interval(*(float(np.exp(x)) for x in (estimate.mean, estimate.low, estimate.high)))
        result[policy] = Versus(other, estimate, p, sign * rank_biserial(gain))
    return result


def as_rows(keys: dict[str, Any], judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    """One flat row a policy, for a table; ``keys`` are the columns that say where."""
    rows = []
    for j in judgements:
        row: dict[str, Any] = {**keys, "policy": j.policy, "metric": j.metric.key, **asdict(j.value)}
        for name, versus in (("baseline", j.baseline), ("best_other", j.best_other)):
            figures: tuple[Any, ...] = (None,) * 6
            if versus is not None:
                e = versus.estimate
                figures = (versus.other, e.mean, e.low, e.high, versus.p, versus.effect)
            row |= dict(
                zip(
                    (f"{name}{s}" for s in ("", "_estimate", "_low", "_high", "_p_holm", "_effect")),
                    figures,
                    strict=True,
                )
            )
        rows.append(row)
    return rows
