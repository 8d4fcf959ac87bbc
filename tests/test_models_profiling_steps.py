"""Steps of a running engine: reading them, freezing them, and learning from them without calibration."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexopt.cluster import load_cluster
from hexopt.models.cells import Cell, read_latency
from hexopt.models.profiling.fitting import profile_features
from hexopt.models.profiling.frozen import ProfileError, Provenance, read_profile, write_profile
from hexopt.models.profiling.steps import COLUMNS, Step, freeze, read_about, read_steps
from hexopt.models.profiling.vllm_engine import Limits, composition, draw_wave
from hexopt.models.regressors import DEFAULT
from hexopt.models.roofline import seconds
from hexopt.models.training import load_profiles, model_card, train, write_report

CELL = Cell("my-box", "my-llm", 2)
PROVENANCE = Provenance("hexopt", "1", "s", "l", "s", "vLLM 1", 5000, False, "2026-01-01", running_engine=True)
LIMITS = Limits(max_num_seqs=16, max_num_batched_tokens=512, max_model_len=2048, wave_tokens=4096)
ABOUT = {"engine": "vLLM 1", "model": "m", "tp": 2, "pp": 1, "kv_tokens": 5000, "clock": "wall"}


def made_up(groups: int = 40) -> list[Step]:
    """Steps of an engine that takes 1 ms, 10 us a new token and 100 us a decode."""
    rng = random.Random(1)
    steps = []
    for group in range(groups):
        wave = draw_wave(rng, LIMITS, beyond=group % 7 == 6)
        for counts in (
            (wave.chunks, wave.chunks * wave.new, wave.chunks * wave.cached, 0, 0),
            (0, 0, 0, wave.decodes, wave.decodes * wave.context),
            (wave.chunks, wave.chunks * wave.new, wave.chunks * wave.cached, wave.decodes, wave.decodes * wave.context),
        ):
            if counts[0] + counts[3]:
                steps.append(Step(group, group % 7 == 6, *counts, 1e-3 + 1e-5 * counts[1] + 1e-4 * counts[3]))
    return steps


def write_steps(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    steps = made_up()
    with (tmp_path / "steps.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows((s.group, int(s.beyond), *s[2:]) for s in steps)
    (tmp_path / "steps.json").write_text(json.dumps({**ABOUT, "limits": {}}))
    assert read_steps(tmp_path / "steps.csv") == steps
    assert read_about(tmp_path / "steps.csv")._asdict() == ABOUT


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0,0,1,10,0,1,5", ":2: has 7 fields, expected 8"),
        ("0,0,1,x,0,1,5,0.1", ":2: invalid literal"),
        ("0,2,1,10,0,1,5,0.1", ":2: expected counts of at least 0, 0 or 1"),
        ("0,0,1,10,0,1,5,0", ":2: expected counts of at least 0, 0 or 1, positive seconds"),
        ("0,0,1,10,-1,1,5,0.1", ":2: expected counts of at least 0"),
        ("0,0,0,0,0,0,0,0.1", ":2: expected at least one sequence"),
        ("0,0,0,0,0,4,3,0.1", ":2: expected at least one sequence, each of at least one token"),
    ],
)
def test_damaged_rows_are_named(tmp_path: Path, line: str, words: str) -> None:
    path = write_steps(tmp_path / "steps.csv", [line])
    with pytest.raises(ProfileError) as caught:
        read_steps(path)
    assert str(caught.value).startswith(f"{path}{words}")


def test_damaged_headers_and_what_is_missing_are_named(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    with pytest.raises(ProfileError, match=r"steps\.csv: cannot be read: No such file"):
        read_steps(path)
    with pytest.raises(ProfileError, match=r"steps\.json: cannot be read: No such file"):
        read_about(path)
    path.write_text("a,b\n")
    with pytest.raises(ProfileError, match=r":1: columns are 'a,b', expected group,beyond,"):
        read_steps(path)
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(ProfileError, match=r"steps\.json: does not say what was measured: 'engine'"):
        read_about(path)
    path.with_suffix(".json").write_text(json.dumps({**ABOUT, "kv_tokens": 0}))
    with pytest.raises(ProfileError, match="kv_tokens is 0"):
        read_about(path)


def test_a_group_is_learned_from_or_held_out_as_a_whole() -> None:
    steps = made_up()
    profile = freeze(steps, CELL, PROVENANCE, seed=4)
    assert len(profile) == len(steps)
    splits: dict[int, set[str]] = {}
    for step, split in zip(steps, profile.split.tolist(), strict=True):
        splits.setdefault(step.group, set()).add(split)
        assert (split == "extrapolation") == step.beyond
    assert all(len(found) == 1 for found in splits.values())
    within = [found for group, found in splits.items() if group % 7 != 6]
    assert sum(found == {"test"} for found in within) == round(len(within) / 4)
    np.testing.assert_array_equal(profile.decode_context, [s.decode_context for s in steps])


@pytest.mark.parametrize("steps", [made_up(4)[:2], [s for s in made_up() if not s.beyond], []])
def test_too_few_steps_are_refused(steps: list[Step]) -> None:
    with pytest.raises(
        ProfileError, match=r"the steps of my-llm on my-box at tp=2, pp=1 are .* expected at least 4 and 1"
    ):
        freeze(steps, CELL, PROVENANCE)


def test_a_profile_of_ones_own_becomes_a_cluster(tmp_path: Path) -> None:
    """Names of one's own, no calibration, and the times of the engine that was measured."""
    (tmp_path / "profiles").mkdir()
    path = write_profile(freeze(made_up(200), CELL, PROVENANCE), tmp_path / "profiles")
    assert path.name == "my-box_my-llm_tp2pp1.csv" and read_profile(path).provenance == PROVENANCE
    profiles = load_profiles(tmp_path / "profiles")
    report = train(profiles, regressors=[DEFAULT])
    write_report(report, tmp_path)
    errors = report.errors[DEFAULT][CELL]
    assert errors.mape < 1e-3 and errors.beyond_mape < 1e-2
    assert "with its own overhead, so not calibrated: 1 cells" in model_card(report)
    model = read_latency(tmp_path / "latency.json").of("my-box", "my-llm")
    assert model.cell == CELL and model.kv_tokens == 5000
    np.testing.assert_array_equal(model.coef, model.raw_coef)
    assert model.provenance.endswith("calibration none")
    np.testing.assert_allclose(seconds(model.coef, profile_features(profiles[0])), profiles[0].seconds, rtol=0.05)
    (tmp_path / "fleet.toml").write_text('latency = "latency.json"\nllm = "my-llm"\n[[instance]]\ngpu = "my-box"\n')
    (instance,) = load_cluster(tmp_path / "fleet.toml").instances
    assert instance.cell.cell == CELL and instance.kv_tokens == 5000


def test_kernel_times_are_calibrated_and_running_engines_are_not(tmp_path: Path) -> None:
    running = freeze(made_up(), Cell("h100", "llama-3.1-8b", 1), PROVENANCE)
    kernels = replace(
        freeze(made_up(), Cell("h200", "llama-3.1-8b", 1), PROVENANCE),
        provenance=replace(PROVENANCE, running_engine=False),
    )
    write_report(train([running, kernels], regressors=[DEFAULT]), tmp_path)
    rows = json.loads((tmp_path / "latency.json").read_text())["cells"]
    assert [row["calibration"] for row in rows] == ["none", "h200"]
    assert rows[0]["coef"] == rows[0]["raw_coef"] and rows[1]["coef"] != rows[1]["raw_coef"]


class TestWaves:
    @given(st.integers(0, 2**32), st.booleans(), st.integers(1, 64), st.integers(32, 4096), st.integers(128, 8192))
    def test_waves_are_within_the_limits(self, seed: int, beyond: bool, seqs: int, batched: int, longest: int) -> None:
        limits = Limits(seqs, batched, longest, wave_tokens=2048)
        wave = draw_wave(random.Random(seed), limits, beyond)
        assert wave.decodes + wave.chunks >= 1 and wave.decodes + wave.chunks <= seqs
        assert max(wave.decodes, 1) * wave.context <= 2048 and wave.context < longest
        assert (wave.context > limits.longest * 2 // 3 - 1) >= beyond
        if wave.chunks:
            assert wave.new >= 1 and wave.chunks * wave.new + wave.decodes <= max(batched, wave.chunks + wave.decodes)
            assert wave.new + wave.cached <= max(wave.new, wave.context) < longest

    def test_kinds_of_steps_all_come(self) -> None:
        rng = random.Random(2)
        waves = [draw_wave(rng, LIMITS, beyond=False) for _ in range(200)]
        kinds = {(wave.decodes > 0, wave.chunks > 0) for wave in waves}
        assert kinds == {(True, False), (False, True), (True, True)}
        assert any(wave.cached for wave in waves)

    def test_unequal_chunks_are_left_out(self) -> None:
        def step(*chunks: tuple[int, int], contexts: tuple[int, ...] = (), preempted: bool = False) -> dict:
            return {"chunks": list(chunks), "contexts": list(contexts), "preempted": preempted, "seconds": 1.0}

        assert composition(step((100, 50), (100, 50), contexts=(30, 40)), 1000) == (0, 2, 200, 100, 2, 70)
        assert composition(step((100, 0), (10, 0)), 1000) is None
        assert composition(step((100, 0), preempted=True), 1000) is None
        assert composition(step(), 1000) is None
        assert composition(step(contexts=(700,)), 1000) == (1, 0, 0, 0, 1, 700)
