"""Profiles: sampling, freezing, fitting, calibrating, and each pitfall of the package they come from."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexopt.models.catalogue import LLMS
from hexopt.models.cells import Cell, load_cells
from hexopt.models.profiling import aiconfigurator
from hexopt.models.profiling.aiconfigurator import (
    MissingPackageError,
    RefusedCell,
    candidates,
    check_cell,
    corrected_kv_tokens,
    iteration_seconds,
    kv_tokens,
    measured_decode,
    require_package,
    sample_all,
)
from hexopt.models.profiling.bundling import bundle
from hexopt.models.profiling.calibration import (
    MEASURED,
    POOLED,
    MeasuredStep,
    fit_calibrations,
    read_measured,
    write_measured,
)
from hexopt.models.profiling.compositions import ROWS, Compositions, draw, draw_beyond, micro_batch
from hexopt.models.profiling.fitting import fit_error, fit_profile, profile_features
from hexopt.models.profiling.frozen import (
    COLUMNS,
    REFUSED,
    FrozenProfile,
    ProfileError,
    Provenance,
    read_profile,
    write_profile,
)
from hexopt.models.profiling.speed_of_light import scale_ratio
from hexopt.models.roofline import FEATURE_NAMES, N_FEATURES, seconds, step_seconds

FOLDER = Path(str(resources.files("hexopt.models.profiles")))
PROFILES = sorted(path for path in FOLDER.glob("*.csv") if path.name != MEASURED)
PROVENANCE = Provenance("p", "1", "https://example.org", "Apache-2.0", "s", "e 1", 1000, False, "2026-01-01", ("n",))


def made_up(coef: np.ndarray, rng: np.random.Generator, noise: float = 0.0) -> FrozenProfile:
    """A profile that ``coef`` explains, up to relative noise."""
    drawn = draw(rng, sum(ROWS.values()), 10**6)
    split = np.repeat(list(ROWS), list(ROWS.values()))
    profile = FrozenProfile(Cell("a100", "llama-3.1-8b", 1), PROVENANCE, *drawn.columns(), np.ones(len(drawn)), split)
    exact = seconds(coef, profile_features(profile))
    return replace(profile, seconds=exact * (1 + noise * rng.standard_normal(len(drawn))))


def compositions(*rows: tuple[int, int, int, int, int]) -> Compositions:
    return Compositions(*np.array(rows, dtype=np.int64).T)


class TestFrozen:
    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        profile = made_up(np.linspace(1e-6, 2e-6, N_FEATURES), np.random.default_rng(1))
        path = write_profile(profile, tmp_path)
        again = read_profile(path)
        assert path.name == "a100_llama-3.1-8b_tp1pp1.csv"
        assert (again.cell, again.provenance) == (profile.cell, profile.provenance)
        for column in COLUMNS:
            if column == "seconds":
                np.testing.assert_allclose(again.seconds, profile.seconds, rtol=1e-5)
            else:
                np.testing.assert_array_equal(getattr(again, column), getattr(profile, column))
        written = path.read_bytes()
        write_profile(again, tmp_path)
        assert path.read_bytes() == written
        assert sorted(p.suffix for p in tmp_path.iterdir()) == [".csv", ".json"]

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("1,10,0,1,5,0.1", ":2: has 6 fields, expected 7"),
            ("1,x,0,1,5,0.1,train", ":2: invalid literal"),
            ("1,10,0,1,5,-0.1,train", ":2: expected counts of at least 0 and positive seconds"),
            ("1,10,0,1,5,nan,train", ":2: expected counts of at least 0 and positive seconds"),
            ("0,0,0,0,0,0.1,train", ":2: expected at least one sequence"),
            ("0,0,0,4,3,0.1,train", ":2: expected at least one sequence, each of at least one token"),
            ("1,10,0,1,5,0.1,validation", ":2: split is 'validation', expected one of train, test, extrapolation"),
        ],
    )
    def test_damaged_rows_are_named(self, tmp_path: Path, line: str, words: str) -> None:
        path = write_profile(made_up(np.ones(N_FEATURES), np.random.default_rng(2)), tmp_path)
        path.write_text(",".join(COLUMNS) + "\n" + line + "\n")
        with pytest.raises(ProfileError) as caught:
            read_profile(path)
        assert str(path) + words in str(caught.value)

    def test_damaged_headers_and_provenance_are_named(self, tmp_path: Path) -> None:
        path = write_profile(made_up(np.ones(N_FEATURES), np.random.default_rng(2)), tmp_path)
        path.write_text("a,b\n")
        with pytest.raises(ProfileError, match=r":1: columns are 'a,b'"):
            read_profile(path)
        path.write_text(",".join(COLUMNS) + "\n")
        with pytest.raises(ProfileError, match="has no rows"):
            read_profile(path)
        beside = path.with_suffix(".json")
        document = json.loads(beside.read_text())
        document["provenance"]["kv_tokens"] = 0
        beside.write_text(json.dumps(document))
        with pytest.raises(ProfileError, match="kv_tokens is 0, expected a positive number"):
            read_profile(path)
        beside.write_text("{}")
        with pytest.raises(ProfileError, match="is not a profile's provenance"):
            read_profile(path)
        beside.unlink()
        with pytest.raises(ProfileError, match="cannot be read"):
            read_profile(path)


class TestCompositions:
    @given(st.integers(0, 2**32 - 1), st.integers(5000, 10**6))
    def test_draws_fit_the_cache(self, seed: int, tokens: int) -> None:
        drawn = draw(np.random.default_rng(seed), 40, tokens)
        assert len(drawn) == 40
        assert (drawn.kv_tokens <= tokens).all()
        assert (drawn.n_prefill + drawn.n_decode > 0).all()
        assert (drawn.prefill_tokens >= drawn.n_prefill).all()
        assert (drawn.decode_context >= drawn.n_decode).all()
        assert ((drawn.n_prefill > 0) == (drawn.prefill_tokens > 0)).all()
        assert drawn.prefill_tokens.max() <= 8192 and drawn.n_decode.max() <= 512

    @given(st.integers(0, 2**32 - 1))
    def test_draws_beyond_are_beyond(self, seed: int) -> None:
        drawn = draw_beyond(np.random.default_rng(seed), 40)
        assert len(drawn) == 40
        for new, chunks, cached, decodes, context in zip(
            drawn.prefill_tokens,
            drawn.n_prefill,
            drawn.prefill_cached,
            drawn.n_decode,
            drawn.decode_context,
            strict=True,
        ):
            assert new > 8192 or decodes > 512 or cached > 32768 * chunks or context > 32768 * decodes

    def test_one_stage_changes_nothing(self) -> None:
        drawn = draw(np.random.default_rng(3), 50, 10**6)
        for before, after in zip(drawn.columns(), micro_batch(drawn, 1).columns(), strict=True):
            np.testing.assert_array_equal(before, after)

    def test_sequences_are_shared_out_evenly(self) -> None:
        part = micro_batch(compositions((4, 400, 1000, 64, 6400), (0, 0, 0, 63, 6300)), 2)
        assert [c.tolist() for c in part.columns()] == [[2, 0], [200, 0], [500, 0], [32, 32], [3200, 3200]]

    def test_one_sequence_has_the_pipe_to_itself(self) -> None:
        part = micro_batch(compositions((0, 0, 0, 1, 777)), 4)
        assert [c.tolist() for c in part.columns()] == [[0], [0], [0], [1], [777]]

    @given(st.integers(1, 2000), st.integers(0, 20000), st.sampled_from([2, 4]))
    def test_cutting_a_chunk_keeps_its_attention(self, quarter: int, cached: int, pp: int) -> None:
        new = 4 * quarter
        part = micro_batch(compositions((1, new, cached, 0, 0)), pp)
        piece, past = int(part.prefill_tokens[0]), int(part.prefill_cached[0])
        # Cached tokens are whole, so half a token may be rounded away for each new one.
        assert pp * piece * (past + piece / 2) == pytest.approx(new * (cached + new / 2), abs=0.5 * new)


class TestFitting:
    def test_exact_times_are_explained(self) -> None:
        coef = np.zeros(N_FEATURES)
        for name, value in (("1", 5e-3), ("A", 1e-9), ("K", 2e-8), ("C", 3e-8), ("B", 1e-5)):
            coef[FEATURE_NAMES.index(name)] = value
        profile = made_up(coef, np.random.default_rng(4))
        fitted = fit_profile(profile)
        assert (fitted >= 0).all()
        for split in ROWS:
            assert fit_error(fitted, profile, split).mape < 1e-5
            assert fit_error(fitted, profile, split).rows == ROWS[split]

    def test_dips_in_the_table_are_not_learned(self) -> None:
        """Halve the time of every batch of 32 to 64 decodes: a raw table would reward larger batches."""
        coef = np.full(N_FEATURES, 1e-8)
        coef[FEATURE_NAMES.index("1")] = 1e-2
        coef[FEATURE_NAMES.index("B")] = 1e-4
        profile = made_up(coef, np.random.default_rng(5))
        dip = (profile.n_decode >= 32) & (profile.n_decode < 64)
        fitted = fit_profile(replace(profile, seconds=np.where(dip, profile.seconds / 2, profile.seconds)))
        assert (fitted >= 0).all()
        decode = [step_seconds(fitted, 0.0, 0.0, 0.0, 0.0, float(b), 1000.0 * b) for b in range(1, 513)]
        assert (np.diff(decode) >= 0).all()

    def test_test_rows_are_not_trained_on(self) -> None:
        profile = made_up(np.full(N_FEATURES, 1e-6), np.random.default_rng(6))
        spoilt = replace(profile, seconds=np.where(profile.split == "train", profile.seconds, 1e3))
        np.testing.assert_array_equal(fit_profile(profile), fit_profile(spoilt))


class TestCalibration:
    def steps(self, fixed: float, scale: float, each: float, gpus: tuple[str, ...] = ("h100",)) -> list[MeasuredStep]:
        return [
            MeasuredStep(gpu, tp, b, 5120 * b, p, fixed + scale * p + each * b)
            for gpu in gpus
            for tp in (1, 2, 4)
            for b in (4, 8, 16, 32, 64)
            for p in ((0.02 + 0.0003 * b**1.2) / tp,)
        ]

    def test_known_corrections_are_found_and_applied(self) -> None:
        found = fit_calibrations(self.steps(0.002, 1.1, 5e-5))["h100"]
        assert (found.fixed, found.scale, found.per_sequence) == pytest.approx((0.002, 1.1, 5e-5))
        assert found.mape < 1e-9 and found.rows == 15
        assert found.left_out_mape is not None and found.left_out_mape < 1e-9
        raw = np.linspace(1e-6, 1e-5, N_FEATURES)
        coef = found.apply(raw)
        before = step_seconds(raw, 0.0, 0.0, 0.0, 0.0, 7.0, 9000.0)
        assert step_seconds(coef, 0.0, 0.0, 0.0, 0.0, 7.0, 9000.0) == pytest.approx(0.002 + 1.1 * before + 7 * 5e-5)
        prefill = (1.0, 100.0, 5000.0, 100.0, 0.0, 0.0)
        assert step_seconds(coef, *prefill) == pytest.approx(1.1 * step_seconds(raw, *prefill))

    def test_no_term_is_negative(self) -> None:
        found = fit_calibrations(self.steps(-0.002, 1.3, 1e-5))["h100"]
        assert found.fixed == 0.0 and found.scale > 0 and found.per_sequence >= 0

    def test_pooled_leaves_one_gpu_out(self) -> None:
        found = fit_calibrations(self.steps(0.001, 1.0, 1e-5, ("h100", "h200", "b200")))
        assert list(found) == ["b200", "h100", "h200", POOLED]
        assert found[POOLED].rows == 45
        assert found[POOLED].left_out_mape is not None and found[POOLED].left_out_mape < 1e-9
        alone = fit_calibrations(self.steps(0.001, 1.0, 1e-5))
        assert alone[POOLED].left_out_mape is None and alone["h100"].left_out_mape is not None

    def test_measured_steps_survive_writing(self, tmp_path: Path) -> None:
        steps = self.steps(0.001, 1.0, 1e-5)
        write_measured(steps, tmp_path / MEASURED)
        again = read_measured(tmp_path / MEASURED)
        assert [s.n_decode for s in again] == [s.n_decode for s in steps]
        np.testing.assert_allclose([s.measured_seconds for s in again], [s.measured_seconds for s in steps], rtol=1e-5)

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("h100,1,4,100,0.1", ":2: has 5 fields, expected 6"),
            ("h100,1,four,100,0.1,0.1", ":2: invalid literal"),
            ("v100,1,4,100,0.1,0.1", ":2: gpu is 'v100'"),
            ("h100,1,4,100,0,0.1", ":2: expected positive numbers"),
        ],
    )
    def test_damaged_measurements_are_named(self, tmp_path: Path, line: str, words: str) -> None:
        path = tmp_path / MEASURED
        path.write_text("gpu,tp,n_decode,decode_context,predicted_seconds,measured_seconds\n" + line + "\n")
        with pytest.raises(ProfileError) as caught:
            read_measured(path)
        assert words in str(caught.value)

    def test_the_bundled_measurements_give_the_documented_errors(self) -> None:
        found = fit_calibrations(read_measured(FOLDER / MEASURED))
        errors = {
            name: (c.rows, round(100 * c.mape, 1), round(100 * (c.left_out_mape or 0), 1)) for name, c in found.items()
        }
        assert errors == {
            "h100": (15, 3.9, 5.7),
            "h200": (20, 2.6, 3.3),
            "b200": (20, 8.9, 11.9),
            POOLED: (55, 10.1, 15.2),
        }


class TestBundledProfiles:
    def test_small_complete_and_told_apart(self) -> None:
        assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 2_000_000
        refused = json.loads((FOLDER / REFUSED).read_text())
        absent = {Cell(row["gpu"], row["llm"], row["tp"], row["pp"]) for row in refused}
        present = {read_profile(path).cell for path in PROFILES}
        assert present | absent == set(candidates()) and not present & absent
        assert present == set(load_cells())

    def test_each_profile_says_where_it_is_from_and_is_learned_well(self) -> None:
        errors = []
        for path in PROFILES:
            profile = read_profile(path)
            source = profile.provenance
            assert {s: int((profile.split == s).sum()) for s in ROWS} == ROWS
            assert (source.package_version, source.licence) == ("0.12.0", "Apache-2.0")
            assert source.engine == ("vLLM 0.14.0" if profile.cell.gpu == "a100" else "vLLM 0.24.0")
            assert source.estimated == (profile.cell.gpu == "a6000")
            inside = profile.split != "extrapolation"
            held = profile.prefill_tokens + profile.prefill_cached + profile.decode_context
            assert (held[inside] <= source.kv_tokens).all()
            errors.append(fit_error(fit_profile(profile), profile, "test").mape)
        assert np.mean(errors) < 0.035 and max(errors) < 0.12

    def test_latency_json_comes_from_them(self, tmp_path: Path) -> None:
        document = bundle(FOLDER, tmp_path / "latency.json")
        assert json.loads((tmp_path / "latency.json").read_text()) == document
        cells = load_cells()
        assert len(document["cells"]) == len(cells)
        for row in document["cells"]:
            bundled = cells[Cell(row["gpu"], row["llm"], row["tp"], row["pp"])]
            # NNLS may end elsewhere in the last digits on another machine.
            np.testing.assert_allclose(bundled.coef, row["coef"], rtol=1e-4, atol=1e-12)
            assert (bundled.kv_tokens, bundled.provenance) == (row["kv_tokens"], row["provenance"])

    def test_hopper_and_blackwell_have_their_own_calibration(self) -> None:
        for cell, found in load_cells().items():
            own = cell.gpu if cell.gpu in ("h100", "h200", "b200") else POOLED
            assert found.provenance.endswith(f"calibration {own}")


class TestEstimate:
    def test_ratio_lies_between_memory_and_compute(self) -> None:
        drawn = draw(np.random.default_rng(7), 300, 10**6)
        ratio = scale_ratio("a6000", "l40s", LLMS["llama-3.1-8b"], drawn)
        assert ratio.min() >= 864 / 768 - 1e-9 and ratio.max() <= 362.05 / 154.8 + 1e-9

    @pytest.mark.parametrize(("tokens", "measured"), [(64, 0.0264), (512, 0.0865), (2048, 0.345)])
    def test_prefill_agrees_with_a_measured_a6000(self, tokens: int, measured: float) -> None:
        """LLMServingSim's profile of an RTX A6000 (Llama-3.1-8B, TP1, sum of layers)."""
        coef = load_cells()[Cell("a6000", "llama-3.1-8b", 1)].raw_coef
        predicted = step_seconds(coef, 1.0, float(tokens), tokens * tokens / 2.0, float(tokens), 0.0, 0.0)
        assert predicted == pytest.approx(measured, rel=0.1)


class TestGuards:
    def test_kv_tokens_are_corrected_for_pipeline_stages(self) -> None:
        """One L40S of a TP2 x PP2 instance of the 70B model, as aiconfigurator-core 0.12.0 answers."""
        answer = {"total_kv_size_bytes": 4176016834, "kv_size_per_token_bytes": 163840, "total_kv_size_tokens": 25488}
        cell = Cell("l40s", "llama-3.1-70b", 2, 2)
        assert corrected_kv_tokens(answer, cell) == 50976 == 2 * answer["total_kv_size_tokens"]

    def test_a_repaired_package_is_not_corrected_twice(self) -> None:
        answer = {"total_kv_size_bytes": 4176016834, "kv_size_per_token_bytes": 81920, "total_kv_size_tokens": 50976}
        assert corrected_kv_tokens(answer, Cell("l40s", "llama-3.1-70b", 2, 2)) == 50976

    @pytest.mark.parametrize("gpu", ["l40s", "a6000"])
    def test_four_way_all_reduce_over_pcie_is_refused(self, gpu: str) -> None:
        with pytest.raises(RefusedCell, match="all-reduce over PCIe at tp=4") as caught:
            check_cell(Cell(gpu, "llama-3.1-70b", 4))
        assert caught.value.fits
        check_cell(Cell(gpu, "llama-3.1-70b", 2, 2))

    @pytest.mark.parametrize("gpu", ["a100", "a6000"])
    def test_fp8_needs_fp8_units(self, gpu: str) -> None:
        with pytest.raises(RefusedCell, match="no FP8 matrix units"):
            check_cell(Cell(gpu, "llama-3.1-70b-fp8", 2))

    def test_versions_are_literal(self) -> None:
        assert {system.vllm for system in aiconfigurator.SYSTEMS.values()} == {"0.14.0", "0.24.0"}
        assert aiconfigurator.SYSTEMS["a100"].vllm == "0.14.0"

    def test_a_missing_or_other_package_is_said_before_anything_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(name: str) -> str:
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "version", missing)
        with pytest.raises(MissingPackageError, match=r"not installed: pip install 'hexopt\[profiles\]'"):
            sample_all(tmp_path / "out")
        monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.13.0")
        with pytest.raises(MissingPackageError, match=r"is 0\.13\.0, expected 0\.12\.0"):
            require_package()
        assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def package() -> None:
    pytest.importorskip("aiconfigurator_core", reason="needs the extra hexopt[profiles]")


@pytest.mark.usefixtures("package")
class TestPackage:
    """Against the package itself, where it is installed."""

    @pytest.mark.parametrize("name", ["h100_llama-3.1-8b_tp1pp1", "l40s_llama-3.1-70b_tp2pp2"])
    def test_frozen_times_are_its_times(self, name: str) -> None:
        profile = read_profile(FOLDER / f"{name}.csv")
        drawn = Compositions(*(getattr(profile, column)[:20] for column in COLUMNS[:5]))
        np.testing.assert_allclose(iteration_seconds(profile.cell, drawn), profile.seconds[:20], rtol=1e-5)

    def test_memory_is_gated(self) -> None:
        assert kv_tokens(Cell("l40s", "llama-3.1-70b", 2, 2)) == 50976
        with pytest.raises(RefusedCell, match="leave no KV cache") as caught:
            kv_tokens(Cell("h100", "llama-3.1-70b", 1))
        assert not caught.value.fits

    def test_a_pipeline_of_one_sequence_takes_the_sum_of_its_stages(self) -> None:
        """Half the layers, twice: the time of all layers at the same tensor parallelism, plus what is sent between."""
        one = compositions((0, 0, 0, 1, 4096))
        through = iteration_seconds(Cell("l40s", "llama-3.1-70b", 2, 2), one)[0]
        assert through == pytest.approx(iteration_seconds(Cell("l40s", "llama-3.1-70b", 2), one)[0], rel=0.05)

    def test_measured_steps_are_those_frozen(self) -> None:
        frozen = read_measured(FOLDER / MEASURED)
        again = measured_decode()
        assert [(s.gpu, s.tp, s.n_decode) for s in again] == [(s.gpu, s.tp, s.n_decode) for s in frozen]
        np.testing.assert_allclose(
            [s.predicted_seconds for s in again], [s.predicted_seconds for s in frozen], rtol=1e-5
        )
