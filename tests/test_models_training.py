"""Training: the report's figures, what is saved, and the targets that the bundled profiles reach."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skops.io

from hexopt.models.cells import load_cells
from hexopt.models.profiling.fitting import profile_features
from hexopt.models.profiling.frozen import ProfileError, write_profile
from hexopt.models.regressors import DEFAULT, REGRESSORS, RooflineRegressor
from hexopt.models.roofline import FEATURE_NAMES, seconds
from hexopt.models.training import (
    TARGETS,
    TrainingReport,
    load_profiles,
    load_regressors,
    model_card,
    train,
    write_report,
)

FEW = [p for p in load_profiles() if p.cell.llm == "llama-3.1-8b" and p.cell.tp == 1 and p.cell.gpu in ("a100", "l40s")]


@pytest.fixture(scope="module")
def report() -> TrainingReport:
    return train(FEW, seed=3)


def test_errors_are_the_relative_errors_of_unseen_rows(report: TrainingReport) -> None:
    profile = FEW[0]
    model = RooflineRegressor().fit(profile)
    relative = np.abs(model.predict(profile) / profile.seconds - 1)
    found = report.errors[DEFAULT][profile.cell]
    assert found.mape == pytest.approx(relative[profile.split == "test"].mean(), rel=1e-12)
    assert found.p95 == pytest.approx(np.quantile(relative[profile.split == "test"], 0.95), rel=1e-12)
    assert found.beyond_mape == pytest.approx(relative[profile.split == "extrapolation"].mean(), rel=1e-12)
    errors = report.errors[DEFAULT].values()
    assert report.mean(DEFAULT).mape == pytest.approx(sum(e.mape for e in errors) / 2)
    assert report.worst(DEFAULT).beyond_p95 == max(e.beyond_p95 for e in errors)


def test_table_has_a_row_a_cell_and_the_mean(report: TrainingReport) -> None:
    rows = report.table()
    assert [row["cell"] for row in rows] == [*(str(p.cell) for p in FEW), "mean over the cells"]
    for name in REGRESSORS:
        assert rows[-1][f"{name} %"] == pytest.approx(100 * report.mean(name).mape)
        assert rows[-1][f"{name} beyond %"] == pytest.approx(100 * report.mean(name).beyond_mape)


def test_what_is_saved_predicts_the_same(report: TrainingReport, tmp_path: Path) -> None:
    written = write_report(report, tmp_path / "new" / "folder")
    assert sorted(path.name for path in written) == sorted(
        [*(f"{name}.skops" for name in REGRESSORS), "latency.json", "errors.csv", "model-card.md", "errors.html"]
    )
    assert sorted(path.name for path in written[0].parent.iterdir()) == sorted(path.name for path in written)
    for name in REGRESSORS:
        loaded = load_regressors(written[0].parent / f"{name}.skops")
        for profile in FEW:
            expected = report.models[name][profile.cell].predict(profile)
            np.testing.assert_array_equal(loaded[str(profile.cell)].predict(profile), expected)


def test_exported_coefficients_equal_the_saved_estimator(report: TrainingReport, tmp_path: Path) -> None:
    import json

    write_report(report, tmp_path)
    document = json.loads((tmp_path / "latency.json").read_text())
    loaded = load_regressors(tmp_path / f"{DEFAULT}.skops")
    assert document["features"] == list(FEATURE_NAMES)
    for row, profile in zip(document["cells"], FEW, strict=True):
        exported = seconds(row["raw_coef"], profile_features(profile))
        np.testing.assert_allclose(exported, loaded[str(profile.cell)].predict(profile), rtol=1e-9, atol=0)


def test_errors_file_and_card_state_the_same(report: TrainingReport, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    with (tmp_path / "errors.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(FEW) * len(REGRESSORS)
    for row in rows:
        (errors,) = (e for cell, e in report.errors[row["regressor"]].items() if cell.gpu == row["gpu"])
        assert float(row["mape"]) == pytest.approx(errors.mape, abs=1e-5)
    card = (tmp_path / "model-card.md").read_text()
    assert card == model_card(report)
    for part in ("## Data", "## Features", "## Errors", "Apache-2.0", "aiconfigurator-core 0.12.0", *REGRESSORS):
        assert part in card


def test_files_of_other_types_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "foreign.skops"
    skops.io.dump({"cell": Path("/")}, path)
    with pytest.raises(ValueError, match=r"foreign\.skops: holds types that are not trusted: pathlib"):
        load_regressors(path)


def test_the_bundled_profiles_reach_the_targets() -> None:
    report = train(load_profiles(), regressors=[DEFAULT])
    mean = report.mean(DEFAULT)
    for field, target in TARGETS.items():
        assert getattr(mean, field) <= target
    # The figures that the documentation states.
    assert mean.mape == pytest.approx(0.016, abs=0.002)
    assert mean.beyond_mape == pytest.approx(0.036, abs=0.004)


def test_bundled_coefficients_are_those_of_the_default_regressor() -> None:
    cells = load_cells()
    for profile in load_profiles():
        expected = RooflineRegressor().fit(profile).coefficients
        np.testing.assert_allclose(cells[profile.cell].raw_coef, expected, rtol=1e-9, atol=1e-15)


def test_refuses_what_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"there are two profiles of llama-3\.1-8b on a100"):
        train([FEW[0], FEW[0]])
    only = replace(FEW[0], split=np.full(len(FEW[0]), "train"))
    with pytest.raises(ProfileError, match="has no row whose split is 'test'"):
        train([only])
    with pytest.raises(ProfileError, match="holds no profile"):
        load_profiles(tmp_path)
    write_profile(FEW[0], tmp_path)
    (loaded,) = load_profiles(tmp_path)
    np.testing.assert_array_equal(loaded.seconds, FEW[0].seconds)
