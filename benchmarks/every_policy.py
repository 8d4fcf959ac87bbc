"""One Markdown table of what ``hexopt compare`` left: every policy x every trace and cluster, at one load.

    hexopt compare every-policy --traces ../shared/traces/hexgen-flow --out every
    python benchmarks/every_policy.py every --load 0.95 --columns req95 req99 p95_s attainment

Mean ± half width of the 95% t-interval over the seeds; the best of a column is bold, policies that know the truth left
aside. With ``--ratio POLICY`` there follows how many times lower that one's values are than each policy's (higher, for
sustained rates), geometric means paired by seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from policies import ratio, shown

from hexopt.research.contestants import KNOW_THE_TRUTH
from hexopt.research.metrics import METRICS, SUSTAINED

Place = tuple[tuple[str, str], str]
"""A trace and a cluster, and a column."""
Found = dict[str, dict[Place, dict[int, float]]]
"""By policy: of each place, the value of each seed."""
SHORT = {"scheduler_us_per_call": "µs/call", "attainment": "in time %", "sustained": "sustained /s"}


def values_of(folder: Path, load: float, columns: list[str]) -> Found:
    """What the runs at ``load`` say, and the sustained rates if they are among the columns."""
    found: Found = {}

    def add(row: dict, column: str, value: float | None) -> None:
        place = ((row["trace"], row["cluster"]), column)
        of_policy = found.setdefault(row["policy"], {})
        of_policy.setdefault(place, {})[row["seed"]] = np.nan if value is None else value

    for row in pq.read_table(folder / "runs.parquet").to_pylist():
        if row["phase"] == "reported" and row["load"] == load:
            for column in columns:
                if column in row:
                    add(row, column, row[column] * (100.0 if METRICS[column].percent else 1.0))
    if SUSTAINED.key in columns and (folder / "sustained.parquet").exists():
        for row in pq.read_table(folder / "sustained.parquet").to_pylist():
            add(row, SUSTAINED.key, row["rate"])
    return found


def head(first: str, places: list[Place]) -> list[str]:
    """The two lines above the rows."""
    heads = [f"{trace}, {cluster}: {SHORT.get(column, column)}" for (trace, cluster), column in places]
    return [f"| {first} | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]


def table(found: Found) -> list[str]:
    """The lines of the table, policies in the order of the experiment."""
    places = list(dict.fromkeys(key for of_policy in found.values() for key in of_policy))
    best = {}
    for place in places:
        metric = SUSTAINED if place[1] == SUSTAINED.key else METRICS[place[1]]
        means = {
            p: float(np.mean(list(v[place].values())))
            for p, v in found.items()
            if place in v and p.partition("(")[0] not in KNOW_THE_TRUTH
        }
        best[place] = (min if metric.smaller_is_better else max)(means, key=lambda p: means[p])
    lines = head("policy", places)
    for policy, values in found.items():
        cells = []
        for place in places:
            text = shown(values[place].values()) if place in values else "–"
            cells.append(f"**{text}**" if best[place] == policy else text)
        lines.append(f"| {policy} | {' | '.join(cells)} |")
    return lines


def ratios(found: Found, base: str) -> list[str]:
    """How many times lower (the sustained rate: higher) ``base`` is than each policy."""
    places = [p for p in found[base] if p[1] not in ("attainment", "goodput", "scheduler_us_per_call")]
    lines = head(f"over {base}", places)
    for policy, values in found.items():
        cells = []
        for place in places:
            mine, theirs = values.get(place, {}), found[base][place]
            common = sorted(mine.keys() & theirs.keys())
            ends = [[of[seed] for seed in common] for of in (mine, theirs)]
            if place[1] == SUSTAINED.key:
                ends.reverse()
            usable = common and all(np.isfinite(end).all() and min(end) > 0 for end in ends)
            cells.append(ratio(*ends) if usable else "–")
        lines.append(f"| {policy} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--load", type=float, default=0.95)
    parser.add_argument("--columns", nargs="+", default=["req95", "req99", "p95_s", "attainment", "sustained"])
    parser.add_argument("--ratio", nargs="*", default=[], metavar="POLICY")
    options = parser.parse_args()
    found = values_of(options.folder, options.load, options.columns)
    print("\n".join(table(found)))
    for base in options.ratio:
        print("\n" + "\n".join(ratios(found, base)))


if __name__ == "__main__":
    main()
