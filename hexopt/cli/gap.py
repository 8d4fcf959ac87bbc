"""``hexopt gap``: how far the solvers' plans are from the best, and what that costs in the end."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hexopt.cli.parallel import Jobs, Ray, Resume

if TYPE_CHECKING:
    from hexopt.research import Definition
    from hexopt.research.gap.document import Document
    from hexopt.research.gap.effort import Effort
    from hexopt.research.gap.outcome import Outcome, Price
    from hexopt.research.gap.recording import Recorded
    from hexopt.research.gap.table import GapRow, Problem
    from hexopt.research.grid import Shared
    from hexopt.research.results import Cell

BASELINE = "annealing:300"
EFFORTS = f"greedy,annealing:30,{BASELINE},annealing:3000,spoiled:5%,spoiled:20%"
_NEEDED = {"exact": ("pulp", "highspy"), "cp-sat": ("ortools",)}


def gap(
    trace: Annotated[str | None, typer.Option(help="Trace, as for simulate; or --check.")] = None,
    cluster: Annotated[str, typer.Option(help="Cluster, as for simulate.")] = "hetero-1",
    load: Annotated[
        str | None, typer.Option(help="Shares of the cluster's measured capacity, by comma; 0.95 by default.")
    ] = None,
    rate: Annotated[str | None, typer.Option(help="Or workflows a second, by comma.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=500, help="Runs a load: seeds 0, 1, ...")] = 3,
    workflows: Annotated[int, typer.Option(min=10, help="Measured workflows a run.")] = 300,
    weights: Annotated[str, typer.Option(help="Objective, as for simulate.")] = "deadline",
    slo: Annotated[float | None, typer.Option(help="Deadline of every workflow, seconds.")] = None,
    slo_factor: Annotated[float, typer.Option(help="Deadline as a multiple of the mean stand-alone latency.")] = 3.0,
    drop_long: Annotated[bool, typer.Option("--drop-long", help="As for simulate.")] = False,
    problems: Annotated[
        str, typer.Option(help="Epochs to solve at each load, as many of each size as there are; or all.")
    ] = "100",
    solver: Annotated[str, typer.Option(help="Solvers, by comma; all: every one whose libraries are there.")] = "all",
    time_limits: Annotated[str, typer.Option(help="Time limits of each, by comma.")] = "5ms,20ms,100ms,1s",
    efforts: Annotated[
        str, typer.Option(help="What schedules the whole workload, by comma: SOLVER:MOVES, SOLVER:TIME; or none.")
    ] = EFFORTS,
    check: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Race on the problems there; write down what is better.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the problems and the best that is known of each.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write a row a problem and solver.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write a self-contained HTML page.")] = None,
    jobs: Jobs = None,
    ray: Ray = None,
    resume: Resume = None,
) -> None:
    """Solve the epochs of runs with every solver; show the gaps against time, and what they cost end to end."""
    from hexopt.cli import console
    from hexopt.cli.gap_tables import print_gaps
    from hexopt.research.gap.document import document_of
    from hexopt.research.gap.table import answer_rows
    from hexopt.research.tables import write_csv

    if (trace is None) == (check is None):
        raise ValueError("give --trace to record epochs, or --check with a folder of them")
    if check is not None and out is not None:
        raise ValueError("--out: --check writes to its own folder")
    for flag, path in (("--csv", csv), ("--page", page)):
        if path is not None:
            console.check_writable(flag, path)
    if out is not None:
        console.check_folder("--out", out)
    racing = _contenders(solver, time_limits)
    workers = {"jobs": jobs, "ray": ray, "resume": resume}
    found: list[Outcome] = []
    costs: list[Price] = []
    if check is not None:
        raced, about, rows = _check(check, racing, workers)
    else:
        assert trace is not None
        setting = _definition(trace, cluster, load, rate, seeds, workflows, weights, slo, slo_factor, drop_long)
        count = _count(problems)
        ends = _efforts(efforts)
        raced, about, rows, found, costs = _record(setting, weights, count, racing, ends, out, workers)
    document = document_of(about, rows, found, costs)
    if csv is not None:
        write_csv(csv, answer_rows(raced))
        console.note(f"Wrote {csv}")
    if page is not None:
        from hexopt.report.gap_page import write_gap_page

        write_gap_page(page, document)
        console.note(f"Wrote {page}")
    if as_json:
        print(json.dumps(document, allow_nan=False))
    else:
        print_gaps(document)


def _contenders(solver: str, time_limits: str) -> list[Effort]:
    from hexopt.cli import console, units
    from hexopt.research.gap.effort import UNLIMITED, contenders
    from hexopt.solvers import SOLVERS

    limits = sorted({units.seconds("--time-limits", text.strip()) for text in time_limits.split(",")})
    if solver == "all":
        missing = [name for name, needs in _NEEDED.items() if not all(find_spec(need) for need in needs)]
        if missing:
            console.note(f"{', '.join(missing)}: left out, they need pip install 'hexopt[exact]'", style="dim")
        names = [name for name in SOLVERS if name not in missing]
    else:
        names = _listed("--solver", solver)
        for name in names:
            if name not in SOLVERS:
                raise ValueError(f"--solver: {name!r} is unknown; there are {', '.join(SOLVERS)}")
    # The longest first: nobody's first solve is then somebody else's warm-up.
    return contenders([n for n in SOLVERS if n in names and n in UNLIMITED], []) + contenders(
        [n for n in SOLVERS if n in names and n not in UNLIMITED], limits
    )


def _efforts(text: str) -> list[Effort]:
    from hexopt.research.gap.effort import effort_from

    if text == "none":
        return []
    found = [effort_from(part, "--efforts") for part in _listed("--efforts", text)]
    for effort in found:
        if effort.solver == "annealing" and effort.timed:
            raise ValueError(
                f"--efforts: {effort.label}: give annealing moves a stage (annealing:300): runs repeat then"
            )
    return found if BASELINE in [e.label for e in found] else [effort_from(BASELINE, "--efforts"), *found]


def _listed(flag: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError(f"{flag} is {text!r}, expected names by comma")
    if len(set(parts)) < len(parts):
        raise ValueError(f"{flag} is {text!r}: one is there twice")
    return parts


def _numbers(flag: str, text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(0.0 < value < math.inf for value in values) or len(set(values)) < len(values):
        raise ValueError(f"{flag} is {text!r}, expected different numbers above 0, by comma")
    return sorted(values)


def _count(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"--problems is {text!r}, expected a number of at least 1, or all")
    return int(text)


def _definition(
    trace: str, cluster: str, load: str | None, rate: str | None, seeds: int, workflows: int, weights: str,
    slo: float | None, slo_factor: float, drop_long: bool,
) -> tuple[Definition, Shared]:  # fmt: skip
    """The runs as an experiment of ``hexopt compare``."""
    from hexopt.cli import console
    from hexopt.cli.simulate import check_positive, that_fit
    from hexopt.cluster import load_cluster
    from hexopt.objective import make_objective
    from hexopt.research import Definition
    from hexopt.research.grid import Setting, Shared

    check_positive(slo=slo, slo_factor=slo_factor)
    if load is not None and rate is not None:
        raise ValueError("--rate and --load: give one of the two")
    if "," in weights:
        raise ValueError(f"--weights is {weights!r}: several weights are given in a TOML file")
    make_objective(weights)
    rates = {"rates": _numbers("--rate", rate)} if rate is not None else {"loads": _numbers("--load", load or "0.95")}
    deadline = {"slo_factors": [slo_factor]} if slo is None else {"slos": [slo]}
    definition = Definition(
        title="Optimality gap", traces=[{"source": trace}], clusters=[cluster], policies=["rolling-horizon"],
        baseline="rolling-horizon", workflows=workflows, seeds=seeds, **rates, **deadline,
    )  # fmt: skip
    fleet = load_cluster(cluster)
    pool = that_fit(console.load_workflows(trace, None), fleet, drop_long)
    setting = Setting.of(Path(trace).stem, Path(cluster).stem, pool, fleet, None, definition)
    return definition, Shared((setting,))


def _record(
    setting: tuple[Definition, Shared], weights: str, count: int | None, racing: list[Effort], ends: list[Effort],
    out: Path | None, workers: dict[str, Any],
) -> tuple[list[Problem], Document, list[GapRow], list[Outcome], list[Price]]:  # fmt: skip
    """Record, race and re-run."""
    from hexopt.cli import console, parallel
    from hexopt.research.gap.effort import effort_from
    from hexopt.research.gap.outcome import outcomes, prices
    from hexopt.research.gap.recording import Task, record, sample
    from hexopt.research.gap.table import Problem, gap_rows
    from hexopt.research.grid import Job, capacity_of, cells_of

    definition, shared = setting
    policy = effort_from(BASELINE, "--efforts").policy(weights)
    _warm([*racing, *ends])
    runs = len(definition.seed_list) * len(definition.loads or definition.rates)
    with parallel.runner("Recording", **workers, total=runs + bool(definition.loads)) as runner:
        capacities = runner.map(capacity_of, [0], shared) if definition.loads else [math.nan]
        if definition.loads and not 0.0 < capacities[0] < math.inf:
            which = "too few" if capacities[0] == 0 else "most"
            raise ValueError(
                f"--load: {which} workflows meet their deadlines at any rate; give --rate or another --slo"
            )
        cells = cells_of(definition, shared, capacities)
        tasks = [
            Task(k, Job(0, 0, cell.rate, policy, seed, cell.before, definition.workflows, cell.after), count)
            for k, cell in enumerate(cells)
            for seed in definition.seed_list
        ]
        recordings = runner.map(record, tasks, shared)
    labels = {cell: f"{cell.load:.0%}" if cell.load is not None else f"{cell.rate:g}/s" for cell in cells}
    chosen: list[tuple[Cell, Recorded]] = []
    epochs = []
    for k, cell in enumerate(cells):
        of_cell = [r for r, task in zip(recordings, tasks, strict=True) if task.cell == k]
        picked = sample(of_cell, count)
        chosen += [(cell, one) for one in picked]
        epochs.append(_epochs(cell, labels[cell], of_cell, picked))
    if not chosen:
        raise ValueError("--workflows: no epoch was solved while the measured workflows arrive; give more of them")
    entrants = _each_once([*racing, *ends])
    raced = _race([one.text for _, one in chosen], entrants, workers)
    solved = [
        Problem(_name(labels[cell], one), labels[cell], one.stages, one.stands_for, result)
        for (cell, one), result in zip(chosen, raced, strict=True)
    ]
    about: Document = {
        "trace": cells[0].trace, "cluster": cells[0].cluster, "deadline": cells[0].deadline, "weights": weights,
        "recorded_under": BASELINE, "seeds": len(definition.seed_list), "workflows": definition.workflows,
        "epochs": epochs,
    }  # fmt: skip
    if out is not None:
        _write(out, about, chosen, solved)
        console.note(f"Wrote {len(solved)} problems to {out}")
    rows = gap_rows(solved)
    found: list[Outcome] = []
    costs: list[Price] = []
    if ends:
        results = _simulate(definition, shared, ends, weights, workers)
        # Cells are made anew there, and equal.
        found = outcomes(results, labels, rows, BASELINE)
        costs = prices(results, labels, found, BASELINE)
    return solved, about, rows, found, costs


def _epochs(cell: Cell, label: str, recordings: list[Any], picked: list[Recorded]) -> Document:
    from collections import Counter

    from hexopt.research.gap.sizes import size_label

    there: Counter[int] = Counter()
    for recording in recordings:
        there.update(recording.counts)
    taken = Counter(one.size for one in picked)
    return {
        "load": label,
        "rate": cell.rate,
        "epochs": sum(there.values()),
        "sizes": [{"stages": size_label(size), "epochs": there[size], "solved": taken[size]} for size in sorted(there)],
    }


def _simulate(definition: Definition, shared: Shared, ends: list[Effort], weights: str, workers: dict[str, Any]) -> Any:
    """The same workload under every effort, and without any solver."""
    from hexopt.cli import parallel
    from hexopt.research.contestants import Contestant
    from hexopt.research.grid import job_count, run_grid

    who = [Contestant(effort.label, effort.policy(weights)) for effort in ends]
    who.append(Contestant("greedy-urgency", "greedy-urgency"))
    with parallel.runner("Simulating", **workers, total=job_count(definition, who, 1)) as runner:
        return run_grid(definition, shared, who, runner.map)


def _race(texts: list[str], efforts: list[Effort], workers: dict[str, Any]) -> list[Any]:
    from joblib import cpu_count

    from hexopt.cli import parallel
    from hexopt.research.gap.race import race

    # The portfolio searches and bounds on two processors at once.
    own = workers["jobs"] or (None if workers["ray"] else max(1, int(cpu_count()) // 2))
    with parallel.runner("Solving", **{**workers, "jobs": own}) as runner:
        return runner.map(race, texts, tuple(efforts))


def _warm(efforts: list[Effort]) -> None:
    """Refuse solvers whose libraries are missing, before the work begins."""
    from hexopt.scheduler import warm_up

    for name in dict.fromkeys(effort.solver for effort in efforts):
        warm_up(name)


def _each_once(efforts: list[Effort]) -> list[Effort]:
    return list({effort.label: effort for effort in efforts}.values())


def _name(label: str, one: Recorded) -> str:
    load = label.replace("%", "").replace("/s", "ps")
    return f"load{load}-seed{one.seed}-epoch{one.number:05d}.json"


def _write(out: Path, about: Document, chosen: list[tuple[Cell, Recorded]], solved: list[Problem]) -> None:
    from hexopt.research.gap.library import Entry, write_library
    from hexopt.solvers.files import problem_from

    entries = [
        Entry(
            problem.name, one.text, problem_from(json.loads(one.text)),
            {
                "rate": cell.rate, "load": problem.load, "seed": one.seed, "at_s": one.at_s,
                "stands_for": one.stands_for,
            },
            problem.raced.known,
        )
        for (cell, one), problem in zip(chosen, solved, strict=True)
    ]  # fmt: skip
    write_library(out, {key: about[key] for key in about if key != "epochs"}, entries)


def _check(folder: Path, racing: list[Effort], workers: dict[str, Any]) -> tuple[list[Problem], Document, list[GapRow]]:
    """Race on a folder's problems, and write down every better plan and bound."""
    from hexopt.cli import console
    from hexopt.research.gap.library import read_library, write_index
    from hexopt.research.gap.race import Raced, better_of
    from hexopt.research.gap.table import Problem, gap_rows

    about, entries = read_library(folder)
    _warm(racing)
    raced = _race([entry.text for entry in entries], racing, workers)
    solved, kept, cheaper, higher = [], [], 0, 0
    for entry, result in zip(entries, raced, strict=True):
        known = result.known if entry.known is None else better_of(entry.known, result.known)
        if entry.known is not None:
            cheaper += known.objective < entry.known.objective
            higher += known.bound > entry.known.bound
        kept.append(replace(entry, known=known))
        solved.append(
            Problem(
                entry.name, str(entry.facts.get("load", "")), entry.problem.stages,
                float(entry.facts.get("stands_for", 1.0)), Raced(result.answers, known),
            )
        )  # fmt: skip
    fresh = sum(entry.known is None for entry in entries)
    if kept != entries:
        write_index(folder, about, kept)
    console.note(
        f"{folder}: {len(entries)} problems, every known plan costs what is said; {cheaper} cheaper plans, "
        f"{higher} higher bounds, {fresh} problems that were unsolved"
    )
    return solved, {**about, "checked": str(folder), "epochs": []}, gap_rows(solved)
