"""A finished experiment as it is shown: its cells with what they say of every policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from hexopt.report.figures import policy_styles
from hexopt.research.charts import (
    Chart,
    against_condition,
    against_deadline,
    against_rate,
    cell_charts,
    sustained_bars,
)
from hexopt.research.comparison import Judgement, judge, judge_values
from hexopt.research.definition import Definition
from hexopt.research.metrics import LEAST_FOR_REQ99, SUSTAINED, Metric, shown_metrics
from hexopt.research.results import Cell, Results, SustainedRates
from hexopt.research.statistics import smallest_p


@dataclass(frozen=True)
class Analysis:
    """Definition and results with the statistics of each cell.

    Parameters
    ----------
    definition, results
        What was asked, and what came of it.
    baseline
        Label of the policy that others are compared with.
    gantts
        Runs that were drawn: their cell, and the SVG.
    """

    definition: Definition
    results: Results
    baseline: str
    gantts: Sequence[tuple[Cell, str]] = ()

    @property
    def metrics(self) -> list[Metric]:
        """What runs of this length can tell."""
        return shown_metrics(self.definition.workflows)

    @cached_property
    def judgements(self) -> dict[Cell, list[list[Judgement]]]:
        """Of each cell: of each metric, of each policy."""
        cells = self.results.cells
        return {cell: [judge(self.results, cell, m, self.baseline) for m in self.metrics] for cell in cells}

    @cached_property
    def sustained(self) -> list[tuple[SustainedRates, list[Judgement]]]:
        """The rates of every policy at each deadline, where they were sought."""
        return [(s, judge_values(s.rates, SUSTAINED, self.baseline)) for s in self.results.sustained]

    @cached_property
    def overviews(self) -> list[list[Chart]]:
        """Of each group: figures over its rates, and over its deadlines where there are several."""
        return [self._overview(cells) for cells in self.groups()]

    @cached_property
    def details(self) -> dict[Cell, list[Chart]]:
        """Figures of each cell."""
        return {cell: cell_charts(self.results, cell, self.definition.workflows) for cell in self.results.cells}

    @cached_property
    def styles(self) -> dict[str, tuple[str, str]]:
        """Colour and dash of each policy."""
        return policy_styles(self.results.policies)

    def groups(self) -> list[list[Cell]]:
        """Cells of each trace and cluster."""
        numbers = dict.fromkeys(cell.setting for cell in self.results.cells)
        return [[cell for cell in self.results.cells if cell.setting == number] for number in numbers]

    def _overview(self, cells: Sequence[Cell]) -> list[Chart]:
        charts = against_rate(self.results, [cell for cell in cells if cell.place == 0])
        charts += self._by_condition(cells)
        charts += [sustained_bars(s, j) for s, j in self.sustained if (s.setting, s.place) == (cells[0].setting, 0)]
        d = self.definition
        deadlines = d.deadline_values
        if len(deadlines) > 1:
            rate = heaviest(cells).rate
            there = sorted((c for c in cells if c.rate == rate), key=lambda c: deadlines[c.place])
            unit = {"slo_factor": "× mean stand-alone latency", "slo_scale": "× own stand-alone latency", "slo": "s"}
            x_title = f"Deadline ({unit[d.deadline_name]}), at {there[0].rate_label}"
            charts.insert(1, against_deadline(self.results, there, sorted(deadlines), x_title))
        return charts

    def _by_condition(self, cells: Sequence[Cell]) -> list[Chart]:
        """At the heaviest load that the cluster can carry: the same under every condition, where there are several."""
        first = heaviest(cells)
        there = [c for c in self.results.cells if replace(c, setting=first.setting, condition=first.condition) == first]
        keys = ("attainment", "p95_s") if len(there) > 1 else ()
        return [against_condition(self.results, there, key) for key in keys]

    def warnings(self) -> list[str]:
        """What the numbers cannot carry."""
        d, found = self.definition, []
        if d.workflows < LEAST_FOR_REQ99:
            found.append(
                f"Req99 is left out: a run measures {d.workflows} workflows, it takes {LEAST_FOR_REQ99} for one."
            )
        seeds, others = len(d.seed_list), len(self.results.policies) - 1
        least = min(1.0, smallest_p(seeds) * max(others, 1))
        if least >= 0.05 and others:
            found.append(
                f"With {seeds} seeds and {others} comparisons a cell, a policy that wins at every seed still has a "
                f"corrected p of {least:.2g}: no single difference can be significant at 5%. Give more seeds."
            )
        return found


def heaviest(cells: Sequence[Cell]) -> Cell:
    """The first of the heaviest load that the cluster can carry, or of the lightest of all."""
    carried = [cell for cell in cells if cell.load is None or cell.load <= 1.0]
    return max(carried, key=lambda cell: cell.rate) if carried else min(cells, key=lambda cell: cell.rate)
