"""``hexopt plan``: the cheapest fleet that keeps a promise, proven by simulation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hexopt.cli import units
from hexopt.cli.parallel import Jobs, Ray, Resume

if TYPE_CHECKING:
    from hexopt.planning.catalogue import Catalogue
    from hexopt.planning.demand import Demand
    from hexopt.planning.document import Answers
    from hexopt.planning.fleet import Limits, Option
    from hexopt.planning.proof import Prover
    from hexopt.planning.search import Plan, Question, Round, Search

_FRONT = "90%,95%,99%,99.9%"


def plan(
    trace: Annotated[str | None, typer.Option(help="Trace file or folder, or a bundled sample.")] = None,
    workload: Annotated[
        Path | None, typer.Option(help="TOML file of several traces or families with rates and promises.")
    ] = None,
    trace_format: Annotated[str | None, typer.Option("--format", help="Trace format; guessed by default.")] = None,
    llm: Annotated[
        list[str] | None,
        typer.Option(help="LLM to serve (llama-3.1-70b); several times for variants that do as well."),
    ] = None,
    catalog: Annotated[
        Path | None, typer.Option(help="TOML of GPU types and prices, laid over the bundled one.")
    ] = None,
    slo: Annotated[str | None, typer.Option(help="Deadline of a workflow: 60s, 2min.")] = None,
    attainment: Annotated[str, typer.Option(help="Share of the workflows that must be in time.")] = "0.95",
    rate: Annotated[str | None, typer.Option(help="Workflows: 0.5/s, 30/min; by default the trace's own rate.")] = None,
    arrivals: Annotated[
        Literal["poisson", "gamma", "trace"], typer.Option(help="Arrival process at that rate.")
    ] = "poisson",
    burstiness: Annotated[float, typer.Option(help="Coefficient of variation of gamma arrivals.")] = 2.0,
    budget: Annotated[float | None, typer.Option(min=0, help="Money an hour at most.")] = None,
    maximize: Annotated[
        Literal["attainment"] | None, typer.Option(help="The most attainment for --budget instead of the least cost.")
    ] = None,
    max_gpus: Annotated[
        list[str] | None, typer.Option(metavar="GPU=N", help="GPUs of a type at most; several times.")
    ] = None,
    have: Annotated[
        str | None, typer.Option(help="Cluster TOML (or bundled one) of instances that are there and stay.")
    ] = None,
    spot: Annotated[float, typer.Option(min=0, max=1, help="Share of each kind that may be spot instances.")] = 0.0,
    survive: Annotated[
        Literal["instance", "node"] | None, typer.Option(help="Keep the promise without any one of these.")
    ] = None,
    policy: Annotated[str, typer.Option(help="Scheduler to prove with.")] = "greedy-urgency",
    seeds: Annotated[int, typer.Option(min=2, help="Simulations of each fleet that is not hopeless.")] = 5,
    run_seconds: Annotated[
        str | None,
        typer.Option("--run", help="Simulated time of each: 2h; by default twenty deadlines, 600 workflows."),
    ] = None,
    backend: Annotated[Literal["highs", "cbc"], typer.Option(help="Solver of the fleet model.")] = "highs",
    rounds: Annotated[int, typer.Option(min=1, help="Fleets simulated at most for one plan.")] = 300,
    time_limit: Annotated[str, typer.Option(help="Time of one plan at most.")] = "2min",
    sweep: Annotated[
        str | None, typer.Option(metavar="rate=FROM:TO[:N]", help="Plan for N multiples of the rate, too.")
    ] = None,
    front: Annotated[
        str | None, typer.Option(metavar="SHARES", help=f"Plan for other attainments, too: {_FRONT}.")
    ] = None,
    one_more: Annotated[
        bool, typer.Option("--one-more", help="How much more rate one more instance of each kind would bear.")
    ] = False,
    growth: Annotated[
        str | None, typer.Option(metavar="FACTORS", help="Fleets that only grow, for factors on the rate: 1,1.5,2.")
    ] = None,
    day: Annotated[
        str | None,
        typer.Option(metavar="FACTORS|trace", help="When to run what: a factor on the rate for each part of a day."),
    ] = None,
    start_up: Annotated[str, typer.Option(help="Time that an instance takes to start, with --day.")] = "10min",
    melange: Annotated[Path | None, typer.Option(help="Mélange configuration: plan by its throughputs.")] = None,
    aibrix: Annotated[
        list[Path] | None, typer.Option(help="AIBrix profile, one a GPU type: plan by its throughputs.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the run that shows where calls go.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the fleet as a cluster for simulate and serve.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write a self-contained HTML report.")] = None,
    jobs: Jobs = None,
    ray: Ray = None,
    resume: Resume = None,
) -> None:
    """Find the cheapest fleet that keeps a promise for a workload, and prove it by simulation."""
    from hexopt.cli import console

    for flag, path in (("--out", out), ("--page", page)):
        if path is not None:
            console.check_writable(flag, path)
    limits_given = _max_gpus(max_gpus or [])
    if melange is not None or aibrix:
        _by_throughput(melange, aibrix or [], trace, trace_format, rate, limits_given, backend, as_json)
        return
    from hexopt.parallel import Runner
    from hexopt.planning.proof import Prover, Setting
    from hexopt.planning.search import Question, Search
    from hexopt.policies.registry import make_policy

    if maximize is not None and budget is None:
        raise ValueError("--maximize: how much attainment is to be had depends on --budget, which is missing")
    question = Question(
        units.share("--attainment", attainment),
        survive or "",
        rounds,
        units.seconds("--time-limit", time_limit),
        backend,
    )
    demand = _demand(trace, workload, trace_format, slo, rate, arrivals, burstiness)
    catalogue, options, limits = _offer(catalog, llm, have, limits_given, budget, spot)
    scheduler = make_policy(policy)
    length = None if run_seconds is None else units.seconds("--run", run_seconds)
    setting = Setting.of(demand, options, scheduler, length)
    asked = {
        "targets": [units.share("--front", text) for text in (front or "").split(",") if text],
        "rates": _sweep(sweep),
        "one_more": one_more,
        "growth": _factors("--growth", growth),
        "day": _day(day, demand),
        "start_up": units.seconds("--start-up", start_up),
    }
    with Runner(jobs, ray=ray, store=resume) as runner:
        prover = Prover(setting, seeds, max(15, seeds), runner.map)
        with console.live_line() as say:
            told = _teller(say, options, catalogue.currency)
            found = _search(prover, limits, question, told, maximize is not None)
            search = Search(prover, limits, question)
            answers = _answers(search, found, asked, told, seed, page is not None)
    _print(found, search, catalogue, answers, as_json, out, page)


def _print(
    found: Plan,
    search: Search,
    catalogue: Catalogue,
    answers: Answers,
    as_json: bool,
    out: Path | None,
    page: Path | None,
) -> None:
    from hexopt.atomic import atomic_write
    from hexopt.cli import console
    from hexopt.cli.plan_tables import print_document
    from hexopt.cluster import cluster_toml
    from hexopt.planning.document import document_of
    from hexopt.planning.fleet import cluster_of

    setting = search.prover.setting
    names = ", ".join(service.name for service in setting.demand.services)
    title = f"{names} at {setting.demand.rate:.3g} workflows/s"
    document = document_of(
        found, setting, search.limits, search.question, search.work, catalogue.currency, answers, title
    )
    if out is not None:
        with atomic_write(out) as stream:
            cluster = cluster_of(setting.options, found.fleet)
            stream.write(cluster_toml(replace(cluster, latency=catalogue.latency)))
        console.note(f"Wrote {out}")
    if page is not None:
        from hexopt.report.plan_page import write_plan_page

        write_plan_page(page, document)
        console.note(f"Wrote {page}")
    if as_json:
        print(json.dumps(document, allow_nan=False))
    else:
        print_document(document)


def _demand(
    trace: str | None,
    workload: Path | None,
    trace_format: str | None,
    slo: str | None,
    rate: str | None,
    arrivals: Any,
    burstiness: float,
) -> Demand:
    from hexopt.cli import console
    from hexopt.planning.demand import single
    from hexopt.planning.workload_file import load_demand

    if (trace is None) == (workload is None):
        raise ValueError("--trace or --workload: give one of the two")
    deadline = None if slo is None else units.seconds("--slo", slo)
    if workload is not None:
        if rate is not None:
            raise ValueError("--rate: with --workload, its file says the rates")
        return load_demand(workload, lambda source: console.load_workflows(source, flag="--workload"), deadline)
    workflows = console.load_workflows(str(trace), trace_format)
    per_second = None if rate is None else units.rate("--rate", rate)
    demand = single(workflows, per_second, deadline, Path(str(trace)).stem)
    return replace(demand, arrivals=arrivals, burstiness=burstiness)


def _offer(
    catalog: Path | None,
    llm: list[str] | None,
    have: str | None,
    max_gpus: dict[str, int],
    budget: float | None,
    spot: float,
) -> tuple[Catalogue, tuple[Option, ...], Limits]:
    from hexopt.cluster import load_cluster, refuse_roles
    from hexopt.planning.catalogue import configurations, load_catalogue
    from hexopt.planning.fleet import Limits, options_of

    catalogue = load_catalogue(catalog)
    owned = None if have is None else load_cluster(have)
    if owned is not None:
        refuse_roles(owned, "hexopt plan --have")
    if not llm and owned is not None:
        llm = list(dict.fromkeys(i.cell.cell.llm for i in owned.instances))
    if not llm:
        raise ValueError("--llm is missing: which LLM is to be served")
    offers = {offer.name: offer for offer in catalogue.offers}
    for gpu, most in max_gpus.items():
        if gpu not in offers:
            raise ValueError(f"--max-gpus: unknown GPU {gpu!r}, expected one of {', '.join(offers)}")
        offers[gpu] = replace(offers[gpu], max=most)
    options = options_of(configurations(catalogue, llm), owned, latency=catalogue.latency)
    limits = Limits(offers, spot_share=spot) if budget is None else Limits(offers, budget, spot)
    return catalogue, options, limits


def _search(prover: Prover, limits: Limits, question: Question, told: Callable[[Round], None], most: bool) -> Plan:
    from hexopt.planning.infeasible import check_possible, explain
    from hexopt.planning.questions import most_attained
    from hexopt.planning.search import NoFleetError, Search

    if most:
        found = most_attained(prover, limits, question, told)
        # The cheapest of those that reach as much.
        question = replace(question, target=found.verdict.attainment)
    else:
        check_possible(prover.setting.demand, prover.setting.options, question.target)
    search = Search(prover, limits, question, 1.0, told)
    try:
        return search.cheapest()
    except NoFleetError as error:
        why = explain(search, limits, error.proven)
        raise NoFleetError(f"no fleet keeps the promise: {why}", error.proven) from error


def _answers(
    search: Search,
    found: Plan,
    asked: dict[str, Any],
    told: Callable[[Round], None],
    seed: int,
    everything: bool,
) -> Answers:
    from hexopt.planning import questions
    from hexopt.planning.document import Answers
    from hexopt.planning.placement import placement

    prover, limits, question = search.prover, search.limits, search.question
    sustained, more = questions.one_more(prover, question, found.fleet) if asked["one_more"] else (float("nan"), [])
    growth, labels = None, list[str]()
    if asked["growth"]:
        factors = asked["growth"]
        labels = [f"period {k + 1}" for k in range(len(factors))]
        growth = questions.nested(prover, limits, question, factors, [1.0] * len(factors), told)
    elif asked["day"]:
        factors = questions.ready_in_time(asked["day"], asked["start_up"])
        labels = [f"{24.0 * k / len(factors):05.2f} h" for k in range(len(factors))]
        growth = questions.nested(prover, limits, question, factors, [24.0 / len(factors)] * len(factors), told)
    return Answers(
        front=questions.front(prover, limits, question, asked["targets"], told) if asked["targets"] else (),
        sweep=questions.sweep(prover, limits, question, asked["rates"], told) if asked["rates"] else (),
        shadow=search.model().shadow_prices(),
        sustained=sustained,
        more=more,
        sensitivity=questions.sensitivity(prover, found.fleet) if everything else (),
        growth=growth,
        growth_labels=labels,
        placement=placement(prover.setting, found.fleet, seed),
        curve=questions.curve(prover, found.fleet) if everything else (),
    )


def _by_throughput(
    melange: Path | None,
    aibrix: list[Path],
    trace: str | None,
    trace_format: str | None,
    rate: str | None,
    max_gpus: dict[str, int],
    backend: Any,
    as_json: bool,
) -> None:
    from hexopt.cli import console
    from hexopt.cli.plan_tables import print_throughput_plan
    from hexopt.planning.buckets import cheapest_by_throughput
    from hexopt.planning.importers import read_aibrix, read_melange

    if melange is not None and aibrix:
        raise ValueError("--melange and --aibrix: give one of the two")
    if melange is not None:
        table = read_melange(melange)
    else:
        if trace is None or rate is None:
            raise ValueError("--aibrix: profiles hold no workload, give --trace and --rate (workflows)")
        workflows = console.load_workflows(trace, trace_format)
        calls = [(s.prompt_tokens, s.output_tokens) for w in workflows for s in w.stages]
        table = read_aibrix(aibrix, calls, units.rate("--rate", rate) * len(calls) / len(workflows), clip=True)
    found = cheapest_by_throughput(table, max_gpus=max_gpus or None, backend=backend)
    print_throughput_plan(found, table, as_json)


def _max_gpus(texts: list[str]) -> dict[str, int]:
    limits = {}
    for text in texts:
        gpu, equals, number = text.partition("=")
        if not equals or not number.isdecimal():
            raise ValueError(f"--max-gpus is {text!r}, expected GPU=N such as h100=8")
        limits[gpu] = int(number)
    return limits


def _factors(flag: str, text: str | None) -> list[float]:
    if text is None:
        return []
    try:
        factors = [float(item) for item in text.split(",")]
    except ValueError:
        factors = []
    if not factors or not all(0.0 < factor < 1e6 for factor in factors):
        raise ValueError(f"{flag} is {text!r}, expected factors on the rate such as 1,1.5,2")
    return factors


def _day(text: str | None, demand: Demand) -> list[float]:
    if text != "trace":
        return _factors("--day", text)
    from hexopt.planning.questions import hours_of

    return hours_of(demand)


def _sweep(text: str | None) -> list[float]:
    if text is None:
        return []
    what, equals, span = text.partition("=")
    try:
        low, high, *number = (float(item) for item in span.split(":"))
        count = int(number[0]) if number else 5
        if what != "rate" or not equals or not 0.0 < low <= high < 1e6 or not 1 <= count <= 100 or len(number) > 1:
            raise ValueError
    except ValueError:
        raise ValueError(f"--sweep is {text!r}, expected rate=FROM:TO or rate=FROM:TO:N such as rate=1:10") from None
    steps = [low * (high / low) ** (k / max(count - 1, 1)) for k in range(count)]
    return sorted({float(f"{step:.3g}") for step in steps})


def _teller(say: Callable[[str], None], options: tuple[Option, ...], currency: str) -> Callable[[Round], None]:
    """Says what was simulated, on one line that changes."""
    count = 0

    def tell(found: Round) -> None:
        nonlocal count
        count += 1
        fleet = ", ".join(f"{n} x {o.name}" for o, n in zip(options, found.fleet, strict=True) if n)
        verdict = "passes" if found.passed else "fails"
        say(f"{count} fleets; {found.cost:.2f} {currency}/h {verdict} ({found.attainment:.1%} in time): {fleet}")

    return tell
