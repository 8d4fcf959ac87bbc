"""``hexopt compare``: policies over a grid of traces, clusters, rates and deadlines, with statistics and a report."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hexopt.bundled_experiments import EXPERIMENTS
from hexopt.cli.parallel import Jobs, Ray, Resume

if TYPE_CHECKING:
    from hexopt.cluster import Cluster
    from hexopt.parallel import Runner
    from hexopt.research import Definition
    from hexopt.research.analysis import Analysis
    from hexopt.research.comparison import Judgement
    from hexopt.research.definition import TraceSource
    from hexopt.research.grid import Setting, Shared
    from hexopt.research.results import Cell, Results, SustainedRates
    from hexopt.traces import Workflow


def compare(
    experiment: Annotated[
        str,
        typer.Argument(help=f"Experiment TOML, or bundled: {', '.join(EXPERIMENTS)}."),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the results; comparison-NAME by default.")] = None,
    traces: Annotated[
        Path | None, typer.Option(help="Folder with the traces that the experiment lists under files.")
    ] = None,
    jobs: Jobs = None,
    ray: Ray = None,
    resume: Resume = None,
) -> None:
    """Compare policies as an experiment file says, and write results, tables, figures and a page."""
    from hexopt.cli import console, parallel
    from hexopt.research import contestants, load_definition, manifest, run_grid
    from hexopt.research.analysis import Analysis
    from hexopt.research.contestants import gantt_labels
    from hexopt.research.grid import Shared, job_count
    from hexopt.research.results import pyarrow_or_refuse
    from hexopt.research.sustained import sustained_rates

    pyarrow_or_refuse()
    definition, text, path = load_definition(experiment)
    out = out or Path(f"comparison-{path.stem}")
    console.check_folder("--out", out)
    identity = {"text": text, "traces_folder": None if traces is None else str(traces)}
    manifest.refuse_other(out / "manifest.json", identity)
    started = datetime.now(UTC)
    sources = contestants.read_sources(path.parent / name for name in definition.policy_files)
    for source in sources:
        contestants.register(source)
    who = contestants.contestants(definition)
    baseline = contestants.baseline_of(definition, who)
    drawn = gantt_labels(definition, who)
    settings = _settings(definition, path, traces)
    shared = Shared(settings, sources)
    total = job_count(definition, who, len(settings)) + len(drawn) * len(settings)
    with parallel.runner("Simulating", jobs, ray, resume, total) as runner:
        results = run_grid(definition, shared, who, runner.map)
        results.sustained += sustained_rates(definition, shared, who, runner.map)
        gantts = _gantts(definition, drawn, results, shared, runner)
    analysis = Analysis(definition, results, baseline, gantts)
    files = _write(out, analysis)
    ended = datetime.now(UTC)
    about = {
        "experiment": {
            "name": path.stem,
            **identity,
            "policy_files": {source.name: source.text for source in sources},
        },
        "seeds": definition.seed_list,
        "tuning_seeds": definition.tuning_seed_list if definition.tuned else [],
        "policies": {c.label: c.text for c in who},
        "capacities": [
            {
                "trace": s.trace,
                "cluster": s.cluster,
                "condition": s.condition.label,
                "workflows_per_s": None if c != c else c,
            }
            for s, c in zip(settings, results.capacities, strict=True)
        ],
        "started": started.isoformat(timespec="seconds"),
        "ended": ended.isoformat(timespec="seconds"),
        "seconds": round((ended - started).total_seconds(), 1),
    }
    manifest.write_manifest(out / "manifest.json", about, files)
    for warning in analysis.warnings():
        console.note(warning, style="yellow")
    _print(analysis)
    console.note(f"Wrote {len(results.rows):,} runs to {out}; look at {out / 'report.html'}")


def _gantts(
    definition: Definition, labels: list[str], results: Results, shared: Shared, runner: Runner
) -> list[tuple[Cell, str]]:
    """The runs that the experiment wants drawn, one a trace, cluster and condition each."""
    from hexopt.research.analysis import heaviest
    from hexopt.research.gantt import Drawing, draw
    from hexopt.research.grid import Job

    cells, drawings = [], []
    for wanted, label in zip(definition.gantt, labels, strict=True):
        for number, setting in enumerate(shared.settings):
            there = [c for c in results.cells if (c.setting, c.place) == (number, 0)]
            there = [c for c in there if wanted.load in (None, c.load) and wanted.rate in (None, c.rate)]
            cell = heaviest(there)
            seed = definition.seed_list[0] if wanted.seed is None else wanted.seed
            ran = results.of(cell, label)[0]["ran"]
            job = Job(number, 0, cell.rate, ran, seed, cell.before, definition.workflows, cell.after)
            title = f"{label}: {cell.place_label} at {cell.rate_label}, seed {seed}"
            cells.append(cell)
            drawings.append(Drawing(job, title, wanted.seconds or setting.longest_deadline))
    return list(zip(cells, runner.map(draw, drawings, shared), strict=True)) if drawings else []


def _settings(definition: Definition, path: Path, folder: Path | None) -> tuple[Setting, ...]:
    """Every trace on every cluster."""
    from hexopt.cluster import load_cluster
    from hexopt.research.grid import Setting

    field, listed = "traces", definition.traces
    if folder is not None:
        field, listed = "files", definition.files
        if not folder.is_dir():
            raise ValueError(f"--traces {folder}: there is no such folder")
        if not listed:
            raise ValueError(f"--traces {folder}: the experiment lists no files for such a folder")
    base = path.parent if folder is None else folder
    read: dict[tuple[str, str | None], list[Workflow]] = {}
    settings = []
    fleets = {name: load_cluster(_beside(name, path.parent)) for name in definition.clusters}
    for number, trace in enumerate(listed):
        place = f"{field}[{number}]"
        if _is_family(trace, base):
            pool, known = (_drawn(trace, trace.seed + k, place) for k in (0, 1))
        else:
            pool, known = _read(trace, trace.source, base, f"{place}.source", read), None
        if trace.training is not None:
            known = _read(trace, trace.training, base, f"{place}.training", read)
        for name, fleet in fleets.items():
            fitting = _fitting(pool, fleet, definition.drop_long, trace.label, name)
            plain = Setting.of(trace.label, Path(name).stem, fitting, fleet, known, definition)
            settings += [plain.under(condition) for condition in definition.conditions]
    return tuple(settings)


def _is_family(trace: TraceSource, base: Path) -> bool:
    from hexopt.traces import SAMPLES
    from hexopt.traces.synthesis import FAMILIES

    return trace.source in FAMILIES and trace.source not in SAMPLES and not (base / trace.source).exists()


def _drawn(trace: TraceSource, seed: int, place: str) -> list[Workflow]:
    """Workflows of the family that the trace names."""
    import numpy as np

    from hexopt.traces import TraceError
    from hexopt.traces.synthesis import synthesize

    try:
        return synthesize(trace.source, trace.drawn, np.random.default_rng(seed), **trace.parameters)
    except TraceError as error:
        raise ValueError(f"{place}.parameters: {error}") from error


def _read(
    trace: TraceSource, source: str, base: Path, field: str, read: dict[tuple[str, str | None], list[Workflow]]
) -> list[Workflow]:
    from hexopt.cli import console

    key = _beside(source, base), trace.format
    if key not in read:
        read[key] = console.load_workflows(*key, flag=field)
    return read[key]


def _fitting(pool: list[Workflow], fleet: Cluster, drop_long: bool, trace: str, cluster: str) -> list[Workflow]:
    """The workflows whose calls fit the cluster; others are refused unless they may be dropped."""
    from hexopt.cli import console
    from hexopt.simulation.experiment import that_fit

    fitting = that_fit(pool, fleet)
    left = len(pool) - len(fitting)
    if left and not (drop_long and fitting):
        raise ValueError(
            f"{trace} on {cluster}: {left} of {len(pool)} workflows have a call longer than every context"
            + ("" if drop_long else "; drop_long = true leaves them out")
        )
    if left:
        console.note(f"{trace} on {cluster}: left out {left} of {len(pool)} workflows longer than every context")
    return fitting


def _beside(source: str, base: Path) -> str:
    """A file relative to the experiment's, where there is one; otherwise the name of something bundled."""
    return str(base / source) if (base / source).exists() else source


def _write(out: Path, analysis: Analysis) -> list[Path]:
    """Everything but the manifest."""
    from hexopt.cli import console
    from hexopt.research.comparison import as_rows
    from hexopt.research.drawing import NEEDS_MATPLOTLIB, write_svg
    from hexopt.research.report import write_report
    from hexopt.research.results import write_results
    from hexopt.research.tables import latex, markdown, write_csv

    for folder in (out, out / "tables", out / "figures"):
        folder.mkdir(parents=True, exist_ok=True)
    files = write_results(analysis.results, out)
    judged = _judged(analysis)
    rows = [row for cell, found in judged for metric in found for row in as_rows(cell.keys(), metric)]
    write_csv(out / "tables" / "comparison.csv", rows)
    files.append(out / "tables" / "comparison.csv")
    texts = {"comparison.md": "".join(markdown(cell.title, f, analysis.baseline) for cell, f in judged)}
    texts |= {f"{cell.slug}.tex": latex(cell.title, found, analysis.baseline) for cell, found in judged}
    for name, text in texts.items():
        files.append(out / "tables" / name)
        files[-1].write_text(text, encoding="utf-8")
    if find_spec("matplotlib") is None:
        console.note(NEEDS_MATPLOTLIB, style="dim")
    else:
        groups = [cells[0].place_slug for cells in analysis.groups()]
        drawn = dict(zip(groups, analysis.overviews, strict=True)) | {c.slug: d for c, d in analysis.details.items()}
        charts = [(name, chart) for name, found in drawn.items() for chart in found]
        for prefix, chart in charts:
            files.append(out / "figures" / f"{prefix}-{chart.key}.svg")
            write_svg(files[-1], chart, analysis.styles)
    for number, (cell, svg) in enumerate(analysis.gantts):
        files.append(out / "figures" / f"{cell.slug}-gantt-{number}.svg")
        # On a page it takes the page's colour for text, alone it is on white.
        files[-1].write_text(svg.replace("currentColor", "#1b1f24"), encoding="utf-8")
    write_report(out / "report.html", analysis)
    return [*files, out / "report.html"]


def _judged(analysis: Analysis) -> list[tuple[Cell | SustainedRates, list[list[Judgement]]]]:
    """What there is a table of: every cell, then the sustained rates."""
    return [*analysis.judgements.items(), *((found, [judged]) for found, judged in analysis.sustained)]


def _print(analysis: Analysis) -> None:
    """A table of means a cell; the intervals are in the files."""
    from rich import box
    from rich.table import Table

    from hexopt.cli import console
    from hexopt.research.tables import rows_of, shown

    for cell, found in _judged(analysis):
        table = Table(title=cell.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("policy", no_wrap=True)
        for judged in found:
            table.add_column(judged[0].metric.heading, justify="right", no_wrap=True)
        for policy, row in rows_of(found):
            cells = []
            for j, is_best in row:
                text = shown(j.value.mean, j.metric.percent)
                cells.append(f"[bold]{text}[/bold]" if is_best else text)
            table.add_row(policy, *cells)
        console.out.print(table)
