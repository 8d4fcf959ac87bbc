"""The ``hexopt`` command."""

from __future__ import annotations

import sys
from typing import Any

import typer

from hexopt.cli import compare, demo, emulate, gap, models, plan, profile, serve, simulate, solver, traces, tune

app = typer.Typer(
    name="hexopt",
    help="Schedule multi-stage LLM workflows on mixed GPU fleets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("simulate")(simulate.simulate)
app.command("demo")(demo.demo)
app.command("compare")(compare.compare)
app.command("gap")(gap.gap)
app.command("emulate")(emulate.emulate)
app.command("solve")(solver.solve)
app.command("explain")(solver.explain)
app.command("plan")(plan.plan)
app.command("serve")(serve.serve)
app.command("tune")(tune.tune)
app.command("train")(models.train)
app.add_typer(profile.app, name="profile")
app.add_typer(traces.app, name="traces")


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from hexopt import __version__

        typer.echo(__version__)
        raise typer.Exit


# Click's, by a name that Typer exports: newer versions of Typer carry a Click of their own.
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Run the command; bad input ends in one clear line and exit code 2, never in a traceback."""
    try:
        status = app(prog_name="hexopt", standalone_mode=False)
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx else "hexopt"
        message = " ".join(error.format_message().split()).rstrip(".")
        if message:  # a command without arguments has printed its help instead
            print(f"{command}: {message} (see {command} --help)", file=sys.stderr)
        sys.exit(2)
    except (ValueError, OSError) as error:
        # Every error of HexOpt's own is a ValueError whose message names the file, field or flag.
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        print(f"hexopt: {' '.join(text.split())}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("hexopt: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(status or 0)
