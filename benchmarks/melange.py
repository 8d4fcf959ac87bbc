"""Mélange's fleet for workflows with deadlines: what it costs, and how many workflows are in time on it.

    python benchmarks/melange.py --traces ../shared/traces --seeds 5

Mélange (arXiv 2404.14527) sizes a fleet for *requests*: it cuts them into buckets by size, measures the highest
throughput at which one instance serves each bucket within a latency limit, cuts the buckets into slices, and has an
integer program give every slice to a kind of instance. Shares of any size stand for the slices here: such a fleet is
never dearer. It knows no workflows, so a workflow's deadline must first be read as a limit for each call. Two readings
that a user would make:

*proportional*: each call gets its share of the deadline by what it takes on an idle instance, as its tokens cost on the
fastest configuration; so limit over idle latency is one number for all calls (Mélange's own limit, time over output
tokens, is the same for calls with short prompts, and cannot be kept at all by those with long ones and short answers).

*even*: each call gets the deadline over the number of calls in a row on the workflow's longest way, but never less than
its proportional limit: where calls differ much, an even part is less than the long ones take on an idle instance, or so
little more that only the dearest instances keep it, one call at a time.

Workflows differ, and the strictest should not rule: the limit is the quantile at which the asked-for share of the
workflows would be in time. Everything else favours Mélange, too: its profile is measured on the very simulator that
judges the fleet, with Poisson arrivals; buckets stand for the mean of their calls; and prompts begin with the templates
that real ones share, so that the profile knows of the prefix cache (*no templates*: it does not). As in the paper the
limit binds on the mean latency. *Tuned* plans get what Mélange lacks: simulation tells whether they are enough, and as
long as they are not, Mélange is asked for 5% more requests a second.

*HexOpt* is ``hexopt plan`` on the same catalogue and promise. Another planner's fleets come beside these by an entry in
``PLANNERS``.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from policies import shown

from hexopt.cluster import Cluster, Instance, parse_cluster
from hexopt.planning.buckets import cheapest_by_throughput
from hexopt.planning.catalogue import Catalogue, Configuration, configurations, load_catalogue
from hexopt.planning.demand import single
from hexopt.planning.fleet import Limits, options_of
from hexopt.planning.importers import ThroughputTable
from hexopt.planning.proof import Prover, Setting
from hexopt.planning.search import Question, Search
from hexopt.policies.knowledge import alone_seconds
from hexopt.policies.policy import GreedyUrgency, LeastLoaded, Policy, RoundRobin
from hexopt.simulation.experiment import Experiment
from hexopt.simulation.metrics import latencies, summarise
from hexopt.traces import Prefix, Stage, Workflow, read_trace
from hexopt.traces.arrivals import poisson

PROMPTS = (0, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
OUTPUTS = (0, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 32768)
"""Edges of the buckets, tokens."""
PROFILED = 400
"""Requests of a profiling run."""
TUNING_SEEDS = range(1000, 1003)
"""Of the runs that tune a plan, other than those that judge it."""
POLICIES: tuple[Policy, ...] = (RoundRobin(), LeastLoaded(), GreedyUrgency())

Fleet = dict[Configuration, int]
Planner = Callable[[Sequence[Workflow], float, float, float, Catalogue, Sequence[str]], Fleet]
"""From workflows, deadline (s), share that must be in time, workflows a second, catalogue and LLMs to a fleet."""


@dataclass(frozen=True)
class Case:
    """One workload: ``limit`` is the deadline in seconds, ``rates`` workflows a second."""

    name: str
    workflows: Sequence[Workflow]
    training: Sequence[Workflow]
    llm: str
    limit: float
    rates: tuple[float, ...]


def cluster_of(fleet: Fleet, catalogue: Catalogue) -> Cluster:
    """The cluster of a fleet."""
    rows = [
        {"gpu": c.gpu, "llm": c.llm, "tp": c.tp, "pp": c.pp, "count": n, "price": c.price, "name": label(c)}
        for c, n in fleet.items()
        if n
    ]
    return parse_cluster({"name": "planned", "instance": rows, **own_models(catalogue)}, "planned fleet")


def own_models(catalogue: Catalogue) -> dict[str, str]:
    """Entry of a cluster document that names the catalogue's latency models."""
    return {"latency": catalogue.latency} if catalogue.latency else {}


def label(c: Configuration) -> str:
    """Short name of a configuration."""
    return f"{c.gpu}-tp{c.tp}" + (f"-pp{c.pp}" if c.pp > 1 else "")


def longest_ways(workflow: Workflow, seconds: Sequence[float]) -> tuple[float, float, float]:
    """Along the way through ``workflow`` that is longest by ``seconds`` a call: seconds and tool delays.

    The third is the number of calls on the way that has most.
    """
    best: dict[str, tuple[float, float, int]] = {}
    for stage, own in zip(workflow.stages, seconds, strict=True):
        before = [best[p] for p in stage.parents] or [(0.0, 0.0, 0)]
        service, delay, _ = max(before, key=lambda way: way[0] + way[1])
        best[stage.id] = service + own, delay + stage.tool_delay, 1 + max(way[2] for way in before)
    service, delay, _ = max(best.values(), key=lambda way: way[0] + way[1])
    return service, delay, float(max(way[2] for way in best.values()))


def shared_tokens(stage: Stage) -> float:
    """Leading prompt tokens that calls of other workflows have too, short of the whole prompt."""
    tokens = 0
    for prefix in stage.prefixes:
        if prefix.local:
            break
        tokens += prefix.tokens
    return float(min(tokens, stage.prompt_tokens - 1))


@cache
def most_throughput(instance: Instance, prompt: int, output: int, shared: int, limit: float) -> float:
    """Requests a second that ``instance`` serves of one size, each within ``limit`` seconds in the mean; 0 if none.

    Measured as Mélange's profiler does it (its ``gpu-benchmark.py``): equal requests arrive by a Poisson process, here
    at a simulated server; the rate at which their mean latency reaches the limit is found to 4%. ``shared`` tokens
    begin every prompt and are computed once.
    """
    if prompt + output > instance.max_model_len:
        return 0.0
    prefixes = (Prefix("template", shared),) if shared else ()
    call = Workflow("call", (Stage("call", "call", prompt, output, prefixes=prefixes),))
    experiment = Experiment.of([call], Cluster("one", (instance,)), slo=limit)
    picks = np.zeros(PROFILED, dtype=np.int64)

    def latency(rate: float) -> float:
        times = poisson(rate, PROFILED, np.random.default_rng(0))
        return float(latencies(experiment.run(RoundRobin(), picks, times)).mean())

    # No rate is kept up that is above the one at which all requests at once are worked off.
    high = PROFILED / experiment.run(RoundRobin(), picks, np.zeros(PROFILED)).end
    if latency(high) <= limit:
        return high
    low = high
    while latency(low) > limit:
        high, low = low, low / 2.0
        if low < 1e-4 * float(1.0 / experiment.standalone[0]):
            return 0.0
    while high / low > 1.04:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if latency(middle) <= limit else (low, middle)
    return low


def table_of(
    workflows: Sequence[Workflow], limit: float, attainment: float, rate: float,
    found: Sequence[Configuration], catalogue: Catalogue, *,
    even: bool, templates: bool,
) -> ThroughputTable:  # fmt: skip
    """What Mélange is told: buckets of the calls, and each configuration's throughput within the limit of a call."""
    rows = [{"gpu": c.gpu, "llm": c.llm, "tp": c.tp, "pp": c.pp, "name": label(c)} for c in found]
    instances = parse_cluster({"instance": rows, **own_models(catalogue)}, "the catalogue").instances

    def idle(prompt: float, output: float, shared: float) -> float:
        return min(alone_seconds(i.coef, prompt, shared, output, float(i.max_num_batched_tokens)) for i in instances)

    sizes = [
        [(s.prompt_tokens, s.output_tokens, shared_tokens(s) if templates else 0.0) for s in w.stages]
        for w in workflows
    ]
    calls = np.array([size for those in sizes for size in those], dtype=np.float64)
    ways = [longest_ways(w, [idle(*size) for size in those]) for w, those in zip(workflows, sizes, strict=True)]
    spare = np.array([limit - delay for _, delay, _ in ways])
    slowdown = float(np.quantile(spare / [service for service, _, _ in ways], 1.0 - attainment))
    each = float(np.quantile(spare / [count for _, _, count in ways], 1.0 - attainment))
    if slowdown <= 1.0:
        raise SystemExit(f"a deadline of {limit:g} s is not kept by {attainment:.0%} even on idle instances")
    cell = np.searchsorted(PROMPTS, calls[:, 0]) * len(OUTPUTS) + np.searchsorted(OUTPUTS, calls[:, 1])
    names, columns = [], []
    kinds, counts = np.unique(cell, return_counts=True)
    for kind in kinds:
        inside = calls[cell == kind]
        prompt, output, shared = (round(x) for x in inside.mean(axis=0))
        names.append(f"{prompt} input, {output} output tokens")
        budget = max(each if even else 0.0, slowdown * idle(prompt, output, shared))
        column = np.array([most_throughput(i, prompt, output, shared, budget) for i in instances])
        # Every call must fit, not only the mean one.
        column[[inside[:, :2].sum(axis=1).max() > i.max_model_len for i in instances]] = 0.0
        columns.append(column)
    return ThroughputTable(
        gpus=tuple(label(c) for c in found),
        price=np.array([c.price for c in found]),
        buckets=tuple(names),
        throughput=np.column_stack(columns),
        share=counts / counts.sum(),
        rate=rate * len(calls) / len(workflows),
    )


def melange(*, even: bool, templates: bool = True) -> Planner:
    """Mélange with one of the readings of a deadline."""

    def planner(
        workflows: Sequence[Workflow], slo: float, attainment: float, rate: float,
        catalogue: Catalogue, llms: Sequence[str],
    ) -> Fleet:  # fmt: skip
        found = configurations(catalogue, llms)
        table = table_of(workflows, slo, attainment, rate, found, catalogue, even=even, templates=templates)
        plan = cheapest_by_throughput(table)
        return {c: plan.counts[label(c)] for c in found if plan.counts[label(c)]}

    return planner


def tuned(planner: Planner, policy: Policy) -> Planner:
    """Ask ``planner`` for more and more requests a second, until simulation under ``policy`` says that it is enough."""

    def repeated(
        workflows: Sequence[Workflow], slo: float, attainment: float, rate: float,
        catalogue: Catalogue, llms: Sequence[str],
    ) -> Fleet:  # fmt: skip
        for more in 1.05 ** np.arange(60):
            fleet = planner(workflows, slo, attainment, rate * float(more), catalogue, llms)
            experiment = Experiment.of(workflows, cluster_of(fleet, catalogue), slo=slo)
            if np.mean([share_in_time(experiment, policy, rate, 600, seed) for seed in TUNING_SEEDS]) >= attainment:
                return fleet
        raise SystemExit(f"not even 18 times the rate is enough for {attainment:.0%} under {policy.label}")

    return repeated


def hexopt(seconds: float) -> Planner:
    """HexOpt's own plan: ``hexopt plan`` with its defaults and that much time, proven with greedy urgency."""
    return partial(_hexopt, seconds)


def _hexopt(
    seconds: float,
    workflows: Sequence[Workflow],
    slo: float,
    attainment: float,
    rate: float,
    catalogue: Catalogue,
    llms: Sequence[str],
) -> Fleet:
    offered = configurations(catalogue, llms)
    options = options_of(offered, latency=catalogue.latency)
    prover = Prover(Setting.of(single(workflows, rate, slo), options, GreedyUrgency()))
    limits = Limits({offer.name: offer for offer in catalogue.offers})
    plan = Search(prover, limits, Question(attainment, seconds=seconds)).cheapest()
    print(
        f"HexOpt: {plan.cost:.2f}, bound {plan.bound:.2f}, {len(plan.rounds)} fleets, {plan.seconds:.0f} s",
        file=sys.stderr,
    )
    return {c: n for c, n in zip(offered, plan.fleet, strict=True) if n}


PROPORTIONAL = melange(even=False)
PLANNERS: dict[str, Planner] = {
    "Mélange, even": melange(even=True),
    "Mélange, proportional": PROPORTIONAL,
    "the same, no templates": melange(even=False, templates=False),
    "the same, tuned for least-loaded": tuned(PROPORTIONAL, LeastLoaded()),
    "the same, tuned for greedy-urgency": tuned(PROPORTIONAL, GreedyUrgency()),
    "HexOpt": hexopt(120.0),
}


def share_in_time(experiment: Experiment, policy: Policy, rate: float, workflows: int, seed: int) -> float:
    """Share of the workflows of one run that are in time."""
    picks, times = experiment.sample(workflows, rate, seed)
    return summarise(experiment.run(policy, picks, times), experiment.standalone[picks]).attainment


def in_time(case: Case, fleet: Cluster, rate: float, workflows: int, seeds: int) -> list[str]:
    """Share of the workflows that are in time on ``fleet`` under each policy, percent with interval."""
    experiment = Experiment.of(case.workflows, fleet, training=case.training, slo=case.limit)
    return [
        shown(100.0 * share_in_time(experiment, policy, rate, workflows, seed) for seed in range(seeds))
        for policy in POLICIES
    ]


def cases(traces: Path) -> list[Case]:
    """The workloads."""
    flows = {
        name: read_trace(traces / f"hexgen-flow/input_file_{name}.json") for name in ("trace1", "trace2", "formula1")
    }
    others = {"trace1": "trace2", "trace2": "trace1", "formula1": "trace1"}
    found = [Case(n, flows[n], flows[others[n]], "llama-3.1-70b", 90.0, (0.5, 2.0)) for n in flows]
    chats = read_trace(traces / "azure-llm-2023/AzureLLMInferenceTrace_conv.csv")
    # Deadlines, not the trace's own times: calls are drawn at random, each a workflow.
    chats = [replace(w, arrival=0.0) for w in chats]
    return [*found, Case("azure-conv", chats[:4000], chats[4000:6000], "llama-3.1-70b", 30.0, (5.5,))]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    parser.add_argument("--catalog", type=Path, help="own prices, as hexopt plan takes them")
    parser.add_argument("--attainment", type=float, default=0.95)
    parser.add_argument("--workflows", type=int, default=600, help="of a run; calls of a chat count as workflows")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=float, help="deadline of all cases, seconds")
    parser.add_argument("--only", nargs="+", help="names of cases")
    parser.add_argument("--planners", nargs="+", help="those with one of these words in their names")
    options = parser.parse_args()
    words = options.planners or [""]
    chosen = {name: planner for name, planner in PLANNERS.items() if any(word in name for word in words)}
    catalogue = load_catalogue(options.catalog)
    names = " | ".join(policy.label for policy in POLICIES)
    print(f"| case | workflows/s | deadline s | planner | fleet | {catalogue.currency}/h | {names} |")
    print("|---|---|---|---|---|---|" + "---|" * len(POLICIES))
    for case in cases(options.traces):
        if options.only and case.name not in options.only:
            continue
        if options.limit is not None:
            case = replace(case, limit=options.limit)
        for rate in case.rates:
            for name, planner in chosen.items():
                fleet = planner(case.workflows, case.limit, options.attainment, rate, catalogue, [case.llm])
                cost = sum(c.price * n for c, n in fleet.items())
                text = ", ".join(f"{n} {label(c)}" for c, n in fleet.items())
                cells = " | ".join(in_time(case, cluster_of(fleet, catalogue), rate, options.workflows, options.seeds))
                print(
                    f"| {case.name} | {rate:g} | {case.limit:g} | {name} | {text} | {cost:.2f} | {cells} |", flush=True
                )


if __name__ == "__main__":
    main()
