"""The ``hexopt`` command."""

from __future__ import annotations

import sys

import typer

from hexopt.cli import demo, models, simulate, traces

app = typer.Typer(
    name="hexopt",
    help="Schedule multi-stage LLM workflows on mixed GPU fleets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("simulate")(simulate.simulate)
app.command("demo")(demo.demo)
app.command("train")(models.train)
app.add_typer(models.profile_app, name="profile")
app.add_typer(traces.app, name="traces")


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from hexopt import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command; bad input ends in one clear line and exit code 2, never in a traceback."""
    try:
        app()
    except (ValueError, OSError) as error:
        # Every error of HexOpt's own is a ValueError whose message names the file, field or flag.
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        print(f"hexopt: {' '.join(text.split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("hexopt: interrupted", file=sys.stderr)
        sys.exit(130)
