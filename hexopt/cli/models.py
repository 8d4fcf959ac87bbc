"""``hexopt profile`` and ``hexopt train``: where latency models come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

profile_app = typer.Typer(help="Sample iteration times to learn latency from.", no_args_is_help=True)


@profile_app.command("aiconfigurator")
def profile_aiconfigurator(
    out: Annotated[Path, typer.Option(help="Folder for the profiles.")],
) -> None:
    """Sample silicon-measured vLLM tables for every GPU type and LLM (extra [profiles])."""
    from hexopt.cli import console
    from hexopt.models.profiling.aiconfigurator import MissingPackageError, sample_all

    console.check_folder("--out", out)
    try:
        with console.err.status("Sampling"):
            written = sample_all(out)
    except MissingPackageError as error:
        raise ValueError(str(error)) from error
    console.note(f"Wrote {len(written)} profiles to {out}")


def train(
    out: Annotated[Path, typer.Option(help="Folder for models, model card and figure.")],
    profiles: Annotated[Path | None, typer.Option(help="Folder of profiles; the bundled ones by default.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.", min=0)] = 0,
) -> None:
    """Fit all regressors to the profiles, report their errors, save them."""
    from rich.table import Table

    from hexopt.cli import console
    from hexopt.models.training import load_profiles, train, write_report

    console.check_folder("--out", out)
    chosen = load_profiles(profiles)
    with console.err.status(f"Training on {len(chosen)} profiles"):
        report = train(chosen, seed=seed)
    table = Table(title="Mean absolute percentage error", title_justify="left")
    rows = report.table()
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.3g}" for value in row.values()))
    console.out.print(table)
    for path in write_report(report, out):
        console.note(f"Wrote {path}")
