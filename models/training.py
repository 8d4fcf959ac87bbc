"""Train every regressor on profiles of step times, compare them on steps they have not seen, save them.

:func:`train` fits and measures; :func:`write_report` saves the fitted regressors (skops), the coefficients of the
default one in the format of ``latency.json``, a model card, the errors and a figure.
"""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import skops.io
from numpy.typing import NDArray

from hexopt.models.cells import Cell
from hexopt.models.profiling.bundling import latency_document, read_profiles, write_document
from hexopt.models.profiling.calibration import MEASURED, fit_calibrations, read_measured
from hexopt.models.profiling.frozen import SPLITS, FrozenProfile, ProfileError, replace_text
from hexopt.models.regressors import DEFAULT, REGRESSORS, StepTimeRegressor

HELD_OUT, BEYOND = SPLITS[1:]
TARGETS = {"mape": 0.03, "p95": 0.08, "beyond_mape": 0.05}
"""Mean errors over the cells that the default regressor should stay within."""
TRUSTED_TYPES = frozenset(
    {
        "hexopt.models.regressors.BoostingRegressor",
        "hexopt.models.regressors.ForestRegressor",
        "hexopt.models.regressors.ResidualRegressor",
        "hexopt.models.regressors.RooflineRegressor",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.tree._tree.Tree",
    }
)
"""What :func:`load_regressors` lets a file construct besides what skops trusts anyway."""


@dataclass(frozen=True, slots=True)
class CellErrors:
    """Absolute relative errors of a regressor on a cell: mean and 95th percentile, held out and beyond the range."""

    mape: float
    p95: float
    beyond_mape: float
    beyond_p95: float


@dataclass(frozen=True, slots=True, eq=False)
class TrainingReport:
    """What :func:`train` found.

    Parameters
    ----------
    profiles
        What was trained on, one a cell.
    models
        Fitted regressors, by name and cell.
    errors
        Their errors, by name and cell.
    """

    profiles: tuple[FrozenProfile, ...]
    models: dict[str, dict[Cell, StepTimeRegressor]]
    errors: dict[str, dict[Cell, CellErrors]]

    def mean(self, regressor: str) -> CellErrors:
        """Mean over the cells of each error."""
        return CellErrors(*(float(column.mean()) for column in self._columns(regressor)))

    def worst(self, regressor: str) -> CellErrors:
        """Largest over the cells of each error."""
        return CellErrors(*(float(column.max()) for column in self._columns(regressor)))

    def table(self) -> list[dict[str, str | float]]:
        """One row a cell, then the mean: mean absolute percentage error of each regressor, held out and beyond."""
        rows = []
        for profile in self.profiles:
            found = {name: errors[profile.cell] for name, errors in self.errors.items()}
            rows.append(_row(str(profile.cell), found))
        rows.append(_row("mean over the cells", {name: self.mean(name) for name in self.errors}))
        return rows

    def _columns(self, regressor: str) -> NDArray[np.float64]:
        rows = [(e.mape, e.p95, e.beyond_mape, e.beyond_p95) for e in self.errors[regressor].values()]
        return np.array(rows).T


def _row(label: str, found: dict[str, CellErrors]) -> dict[str, str | float]:
    row: dict[str, str | float] = {"cell": label}
    for name, errors in found.items():
        row[f"{name} %"] = 100.0 * errors.mape
        row[f"{name} beyond %"] = 100.0 * errors.beyond_mape
    return row


def load_profiles(folder: Path | None = None) -> list[FrozenProfile]:
    """Read the profiles of ``folder``, or those that come with HexOpt.

    Raises
    ------
    ProfileError
        If there is none, or one is damaged; the message names file and line.
    """
    return read_profiles(Path(str(resources.files("hexopt.models.profiles"))) if folder is None else folder)


def train(
    profiles: Iterable[FrozenProfile], seed: int = 0, regressors: Iterable[str] = tuple(REGRESSORS)
) -> TrainingReport:
    """Fit each regressor to each profile's ``train`` rows and measure it on the others.

    Parameters
    ----------
    profiles
        One a cell.
    seed
        Of every random draw; the same seed gives the same models.
    regressors
        Names in :data:`hexopt.models.regressors.REGRESSORS`.

    Raises
    ------
    ProfileError
        For two profiles of a cell, or one without rows to learn from or to measure on.
    """
    rng = np.random.default_rng(seed)
    chosen = tuple(profiles)
    cells = [profile.cell for profile in chosen]
    for profile in chosen:
        if cells.count(profile.cell) > 1:
            raise ProfileError(f"there are two profiles of {profile.cell}, expected one")
        for split in SPLITS:
            if not (profile.split == split).any():
                raise ProfileError(f"the profile of {profile.cell} has no row whose split is {split!r}")
    models: dict[str, dict[Cell, StepTimeRegressor]] = {}
    for name in regressors:
        models[name] = {profile.cell: REGRESSORS[name](rng).fit(profile) for profile in chosen}
    errors = {
        name: {profile.cell: _errors(fitted[profile.cell], profile) for profile in chosen}
        for name, fitted in models.items()
    }
    return TrainingReport(chosen, models, errors)


def _errors(model: StepTimeRegressor, profile: FrozenProfile) -> CellErrors:
    relative = np.abs(model.predict(profile) / profile.seconds - 1.0)
    inside, beyond = (relative[profile.split == split] for split in (HELD_OUT, BEYOND))
    return CellErrors(
        float(inside.mean()), float(np.quantile(inside, 0.95)), float(beyond.mean()), float(np.quantile(beyond, 0.95))
    )


def write_report(report: TrainingReport, out: Path) -> list[Path]:
    """Save a report into the folder ``out``, which is made if it is not there.

    Writes ``<regressor>.skops`` for each, ``latency.json`` (coefficients of the default regressor, raw and calibrated
    with the measured decode steps that come with HexOpt), ``errors.csv``, ``model-card.md`` and ``errors.html``.
    Returns their paths.
    """
    from hexopt.models.training_figure import error_figure

    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, fitted in report.models.items():
        written.append(_save({str(cell): model for cell, model in fitted.items()}, out / f"{name}.skops"))
    if DEFAULT in report.models:
        measured = Path(str(resources.files("hexopt.models.profiles"))) / MEASURED
        document = latency_document(report.profiles, fit_calibrations(read_measured(measured)), [])
        write_document(document, out / "latency.json")
        written.append(out / "latency.json")
    for name, text in (
        ("errors.csv", _errors_csv(report)),
        ("model-card.md", model_card(report)),
        ("errors.html", error_figure(report).to_html(include_plotlyjs=True)),
    ):
        replace_text(out / name, text)
        written.append(out / name)
    return written


def _save(models: dict[str, StepTimeRegressor], path: Path) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    skops.io.dump(models, temporary, compression=zipfile.ZIP_DEFLATED, compresslevel=6)
    temporary.replace(path)
    return path


def load_regressors(path: Path) -> dict[str, StepTimeRegressor]:
    """Fitted regressors of a ``.skops`` file, by cell as text.

    Raises
    ------
    ValueError
        If the file would construct something else than regressors of this package.
    """
    foreign = sorted(set(skops.io.get_untrusted_types(file=path)) - TRUSTED_TYPES)
    if foreign:
        raise ValueError(f"{path}: holds types that are not trusted: {', '.join(foreign)}")
    loaded: dict[str, StepTimeRegressor] = skops.io.load(path, trusted=sorted(TRUSTED_TYPES))
    return loaded


def _errors_csv(report: TrainingReport) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("regressor", "gpu", "llm", "tp", "pp", "mape", "p95", "beyond_mape", "beyond_p95"))
    for name, errors in report.errors.items():
        for cell, e in errors.items():
            figures = (f"{x:.5f}" for x in (e.mape, e.p95, e.beyond_mape, e.beyond_p95))
            rows.writerow((name, cell.gpu, cell.llm, cell.tp, cell.pp, *figures))
    return text.getvalue()


def model_card(report: TrainingReport) -> str:
    """Markdown: what the models are for, what they learned from, how good they are, where they fail."""
    first = report.profiles[0].provenance
    sources = sorted({f"{p.provenance.package} {p.provenance.package_version}" for p in report.profiles})
    rows = {split: sum(int((p.split == split).sum()) for p in report.profiles) for split in SPLITS}
    estimated = sorted({p.cell.gpu for p in report.profiles if p.provenance.estimated})
    lines = [
        "# Step time of a serving engine",
        "",
        "Predicts the seconds of one step (iteration) of a continuous-batching engine from the step's prefill chunks,",
        "decoding sequences and their contexts; one model for each GPU type, LLM and parallelism.",
        "",
        "## Data",
        "",
        f"- {len(report.profiles)} cells; steps: {', '.join(f'{n} {split}' for split, n in rows.items())}.",
        f"- Source: {', '.join(sources)} ({first.licence}), {first.source}",
        *_overhead(report),
        f"- Estimated, not measured: {', '.join(estimated) or 'none'}.",
        "",
        "## Features",
        "",
        "See `hexopt.models.roofline`: sums over the sequences of a step, so unequal lengths need no averaging.",
        "",
        "## Errors (mean over the cells; worst cell in brackets)",
        "",
        "Absolute relative error against the profiles, that is of the approximation, on top of theirs.",
        "",
        "| regressor | MAPE | P95 | MAPE beyond the range | P95 beyond |",
        "|---|---|---|---|---|",
    ]
    for name in report.errors:
        pairs = zip(_figures(report.mean(name)), _figures(report.worst(name)), strict=True)
        lines.append(f"| {name} | " + " | ".join(f"{mean:.1%} ({worst:.1%})" for mean, worst in pairs) + " |")
    if DEFAULT in report.errors:
        lines += ["", f"## Targets of `{DEFAULT}`", "", *_targets(report)]
    lines += ["", "## Cells", "", *_cell_table(report), ""]
    return "\n".join(lines)


def _overhead(report: TrainingReport) -> list[str]:
    running = sum(profile.provenance.running_engine for profile in report.profiles)
    lines = []
    if running < len(report.profiles):
        lines += [
            "- Sums of measured kernel times, without the engine's own overhead; `latency.json` holds coefficients",
            "  without it (`raw_coef`) and calibrated against measured engines (`coef`).",
        ]
    if running:
        lines.append(f"- Times of a running engine, with its own overhead, so not calibrated: {running} cells.")
    return lines


def _figures(errors: CellErrors) -> tuple[float, float, float, float]:
    return errors.mape, errors.p95, errors.beyond_mape, errors.beyond_p95


def _targets(report: TrainingReport) -> list[str]:
    lines = []
    mean = report.mean(DEFAULT)
    for field, target in TARGETS.items():
        value = getattr(mean, field)
        over = [str(cell) for cell, errors in report.errors[DEFAULT].items() if getattr(errors, field) > target]
        verdict = "reached" if value <= target else "missed"
        lines.append(f"- mean {field} at most {target:.0%}: {verdict} ({value:.1%}); above it in {len(over)} cells")
        lines += [f"  - {cell}" for cell in over]
    return lines


def _cell_table(report: TrainingReport) -> list[str]:
    table = report.table()
    lines = ["| " + " | ".join(table[0]) + " |", "|" + "---|" * len(table[0])]
    for row in table:
        cells = (value if isinstance(value, str) else f"{value:.2f}" for value in row.values())
        lines.append("| " + " | ".join(cells) + " |")
    return lines
