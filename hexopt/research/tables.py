"""Tables for papers and spreadsheets: LaTeX and CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hexopt.atomic import atomic_write
from hexopt.research.comparison import Judgement
from hexopt.research.statistics import Interval

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def shown(value: float, percent: bool = False) -> str:
    """A figure for people."""
    if not math.isfinite(value):
        return "–"
    if percent:
        return f"{100 * value:.1f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def with_range(interval: Interval, percent: bool = False) -> str:
    """A figure with its interval."""
    if not math.isfinite(interval.low):
        return shown(interval.mean, percent)
    low, high = shown(interval.low, percent), shown(interval.high, percent)
    return f"{shown(interval.mean, percent)} [{low}, {high}]"


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write flat rows, all with the same keys; empty where there is no number."""
    with atomic_write(path) as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: "" if v is None or (isinstance(v, float) and not math.isfinite(v)) else v for k, v in row.items()}
            )


def rows_of(by_metric: Sequence[Sequence[Judgement]]) -> Iterator[tuple[str, list[tuple[Judgement, bool]]]]:
    """Each policy with what is judged of it, metric by metric, and whether that is the best of its column."""
    best = [best_of(judged) for judged in by_metric]
    for row in zip(*by_metric, strict=True):
        yield row[0].policy, [(j, j.policy == winner) for j, winner in zip(row, best, strict=True)]


def _is_sure(judgement: Judgement) -> bool:
    """Whether the difference to the baseline is significant at 5% after Holm's correction."""
    return judgement.baseline is not None and judgement.baseline.p < 0.05


def markdown(title: str, by_metric: Sequence[Sequence[Judgement]], baseline: str) -> str:
    """A section with a table: means with intervals, the best of a column bold.

    A star says that the difference to the baseline is significant at 5% after Holm's correction.
    """
    lines = [f"## {title}", "", " | ".join(["| policy", *(judged[0].metric.heading for judged in by_metric)]) + " |"]
    lines.append("|---" * (len(by_metric) + 1) + "|")
    for policy, row in rows_of(by_metric):
        cells = [policy]
        for j, is_best in row:
            text = with_range(j.value, j.metric.percent)
            cells.append((f"**{text}**" if is_best else text) + (r"\*" if _is_sure(j) else ""))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", rf"\*: differs from {baseline} (5%, corrected by Holm)", "", ""])


def latex(title: str, by_metric: Sequence[Sequence[Judgement]], baseline: str) -> str:
    """A ``tabular`` of one cell for the package booktabs: means with intervals, the best of a column bold.

    A dagger says that the difference to the baseline is significant at 5% after Holm's correction.
    """
    lines = [
        f"% {title}; baseline {baseline}".replace("\n", " "),
        rf"\begin{{tabular}}{{l{'r' * len(by_metric)}}}",
        r"\toprule",
        " & ".join(["Policy", *(escaped(judged[0].metric.heading) for judged in by_metric)]) + r" \\",
        r"\midrule",
    ]
    for policy, row in rows_of(by_metric):
        cells = [escaped(policy)]
        for j, is_best in row:
            text = escaped(with_range(j.value, j.metric.percent)).replace("–", "--")
            if is_best:
                text = rf"\textbf{{{text}}}"
            cells.append(text + (r"$^\dagger$" if _is_sure(j) else ""))
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def best_of(judged: Sequence[Judgement]) -> str | None:
    """The policy with the best mean; None if no two differ."""
    known = [j for j in judged if math.isfinite(j.value.mean)]
    if len({j.value.mean for j in known}) < 2:
        return None
    pick = min if known[0].metric.smaller_is_better else max
    return pick(known, key=lambda j: j.value.mean).policy


def escaped(text: str) -> str:
    """``text`` as LaTeX shows it."""
    return "".join(_SPECIAL.get(c, c) for c in text)
