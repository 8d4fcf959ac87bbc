"""Measurements of servers: what their CSV holds, and which steps they show."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from hexopt.models.profiling.steps import Step
from hexopt.profiling.measurements import COLUMNS, Measurement, steps_of, write_measurements

ALONE = Measurement(0, "chat", 500, 0, 1, 0, 0.25, None, 0.01, 516, False, 3)
BESIDE = Measurement(1, "chat", 500, 128, 4, 1600, 0.3, 0.2, 0.02, 2200, False, 3)
LONG = Measurement(2, "completion", 3000, 0, 4, 9000, 1.5, 0.9, 0.03, 13000, True, 2)


def test_the_file_holds_every_column(tmp_path: Path) -> None:
    write_measurements([ALONE, BESIDE, LONG], tmp_path / "profile.csv")
    with (tmp_path / "profile.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["stall_s"] for row in rows] == ["", "0.2", "0.9"]
    assert [row["beyond"] for row in rows] == ["0", "0", "1"]
    assert [float(row["ttft_s"]) for row in rows] == [0.25, 0.3, 1.5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["profile.csv"]


def test_a_call_shows_its_decoding_and_the_stall_its_prefill() -> None:
    assert steps_of([ALONE, BESIDE], 2048) == [
        Step(0, False, 0, 0, 0, 1, 516, 0.01),
        Step(1, False, 0, 0, 0, 4, 2200, 0.02),
        Step(1, False, 1, 372, 128, 3, 1600, 0.2),
    ]


@pytest.mark.parametrize(("budget", "prefills"), [(3003, 1), (3002, 0)])
def test_a_prompt_of_several_steps_shows_no_prefill(budget: int, prefills: int) -> None:
    steps = steps_of([LONG], budget)
    assert sum(step.n_prefill for step in steps) == prefills
    assert all(step.beyond for step in steps)


def test_rows_of_a_point_are_one_group() -> None:
    rows = [replace(BESIDE, point=5), replace(BESIDE, point=5, cached_tokens=256), replace(BESIDE, point=6)]
    assert [step.group for step in steps_of(rows, 2048)] == [5, 5, 5, 5, 6, 6]
