"""``hexopt demo``: all policies on the bundled Text-to-SQL sample and the first mixed cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

LOADS = (0.5, 0.8, 0.95)
"""Arrival rates, as shares of the capacity that is measured first."""
WORKFLOWS = 600


def demo(
    out: Annotated[Path, typer.Option(help="HTML page to write.")] = Path("hexopt-demo.html"),
    seed: Annotated[int, typer.Option(help="Seed of every random draw.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a policy and rate.")] = False,
) -> None:
    """Compare all policies on a mixed cluster at three rates, and write a page to look at."""
    from hexopt.cli import console
    from hexopt.cli.simulate import print_summaries
    from hexopt.cluster import load_cluster
    from hexopt.policies.registry import make_policy
    from hexopt.report import Scenario, write_page
    from hexopt.simulation.experiment import Experiment
    from hexopt.simulation.metrics import summarise

    console.check_writable("--out", out)
    names = (
        "round-robin",
        "least-loaded",
        "hexgen-flow:alpha=0.5",
        "edf",
        "llf",
        "greedy-urgency",
        "rolling-horizon:solver=congestion-lp,freeze=true",
    )
    fleet = load_cluster("hetero-1")
    experiment = Experiment.of(console.load_workflows("text-to-sql"), fleet)
    with console.err.status("Measuring the cluster's capacity (the first run compiles the simulator)"):
        capacity = experiment.capacity()
    scenarios = []
    for load in LOADS:
        rate = load * capacity
        picks, times = experiment.sample(WORKFLOWS, rate, seed)
        runs = []
        for name in names:
            with console.err.status(f"{name} at {load:.0%} of capacity"):
                runs.append(experiment.run(make_policy(name), picks, times))
        summaries = [summarise(run, experiment.standalone[picks]) for run in runs]
        title = f"{load:.0%} of capacity ({rate:.3f} workflows/s)"
        rows = [summary.row() for summary in summaries]
        if as_json:
            for row in rows:
                print(json.dumps({"load": load, "rate": rate, **row}, allow_nan=False))
        else:
            print_summaries(f"{fleet.name} at {title}, {WORKFLOWS} Text-to-SQL workflows", summaries)
        scenarios.append(Scenario(name=title, runs=runs, rows=rows))
    write_page(out, "HexOpt: Text-to-SQL on a mixed GPU cluster", scenarios)
    console.note(f"Wrote {out}: open it in a browser")
