"""``hexopt train``: latency models from profiles."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hexopt.models.training import TrainingReport


def train(
    out: Annotated[Path, typer.Option(help="Folder for models, model card and figure.")],
    profiles: Annotated[Path | None, typer.Option(help="Folder of profiles; the bundled ones by default.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a regressor.")] = False,
) -> None:
    """Fit all regressors to the profiles, report their errors, save them."""
    from hexopt.cli import console
    from hexopt.models.training import load_profiles, train, write_report

    console.check_folder("--out", out)
    chosen = load_profiles(profiles)
    with console.err.status(f"Training on {len(chosen)} profiles"):
        report = train(chosen, seed=seed)
    if as_json:
        for name in report.errors:
            print(
                json.dumps({"regressor": name, "mean": asdict(report.mean(name)), "worst": asdict(report.worst(name))})
            )
    else:
        _print(report)
    for path in write_report(report, out):
        console.note(f"Wrote {path}")


def _print(report: TrainingReport) -> None:
    """Each regressor's mean over the cells, then the default one's errors in each cell."""
    from rich.table import Table

    from hexopt.cli.console import out
    from hexopt.models.regressors import DEFAULT

    columns = ("MAPE %", "P95 %", "MAPE beyond %", "P95 beyond %")
    table = Table(title="Absolute relative errors on unseen steps: mean over the cells (worst)", title_justify="left")
    for column in ("regressor", *columns):
        table.add_column(column, justify="right" if column in columns else "left")
    for name in report.errors:
        pairs = zip(astuple(report.mean(name)), astuple(report.worst(name)), strict=True)
        table.add_row(name, *(f"{100 * mean:.1f} ({100 * worst:.1f})" for mean, worst in pairs))
    out.print(table)
    table = Table(title=f"The {DEFAULT} regressor by cell", title_justify="left")
    for column in ("GPU", "LLM", "TP x PP", *columns):
        table.add_column(column, justify="right" if column in columns else "left", no_wrap=True)
    for cell, errors in report.errors[DEFAULT].items():
        table.add_row(cell.gpu, cell.llm, f"{cell.tp} x {cell.pp}", *(f"{100 * x:.1f}" for x in astuple(errors)))
    out.print(table)
