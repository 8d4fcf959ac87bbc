"""From a trace to runs: pilot, deadlines, arrivals, capacity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from hexopt.cluster import Cluster
from hexopt.models.kernel import kernel
from hexopt.models.lengths import fit_lengths
from hexopt.models.successors import Successors, fit_successors
from hexopt.models.tails import fit_tails
from hexopt.models.tallies import Tally
from hexopt.policies.justitia import token_time
from hexopt.policies.knowledge import fastest_seconds
from hexopt.policies.policy import EarliestDeadline, Policy, Training
from hexopt.simulation.events import FleetEvent
from hexopt.simulation.mistakes import Mistakes
from hexopt.simulation.simulator import Run, fleet_of, instance_table, servable, simulate
from hexopt.simulation.state import MIXED
from hexopt.simulation.workload import Workload
from hexopt.traces.arrivals import poisson
from hexopt.traces.workflow import Prefix, Stage, Workflow

_LONGEST = 16_000
"""Workflows in the runs that capacity is measured by, at most."""
_SPANS = 10
"""Mean stand-alone latencies that such a run lasts at least: shorter ones are bursts that a large cluster absorbs."""


@kernel
def _alone(  # type: ignore[no-untyped-def]
    stage, child, base, first, count, coef, one, role, budgets, link_latency, link_seconds, cached, latency, tail
):
    """Latency and tails of one workflow if every stage ran alone on its fastest instance, or pair of them."""
    longest = 0.0
    for k in range(count - 1, -1, -1):
        row = stage[first + k]
        service = fastest_seconds(
            coef, one, role, budgets, link_latency, link_seconds, row.prompt, cached[first + k], row.output
        )
        after = 0.0
        for c in range(row.first_child, row.first_child + row.children):
            after = max(after, latency[first + child[c]])
        tail[first + k] = after
        latency[first + k] = row.tool_delay + service + after
        if row.parents_left == 0:
            longest = max(longest, latency[first + k])
    base[0] = longest


def standalone_seconds(workload: Workload, cluster: Cluster) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How long every workflow would take with the cluster to itself.

    Each stage runs on the instance that is fastest for it, or the fastest pair of a prefill and a decode instance with
    the transfer of its KV between them; with nothing in its prefix cache and no company.

    Returns
    -------
    latency, tail
        Seconds of each template, shape (templates,); seconds from each stage's end to its workflow's end, shape
        (calls,).
    """
    fleet = fleet_of(cluster)
    latency, _, tail = critical_paths(
        workload, fleet.coef, fleet.max_batched.astype(np.float64), roles=fleet.roles, links=cluster.link_times()
    )
    return latency, tail


def critical_paths(
    workload: Workload,
    coef: NDArray[np.float64],
    budgets: NDArray[np.float64],
    cached: NDArray[np.float64] | None = None,
    roles: Sequence[int] = (),
    links: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Latencies of every workflow if each stage ran alone on the instance, or pair of them, that is fastest for it.

    Parameters
    ----------
    coef, budgets
        Roofline coefficients and token budgets of the instances, shapes (m, N_FEATURES) and (m,).
    cached
        Prompt tokens of each call that a prefix cache holds, shape (calls,); none by default.
    roles
        Of the instances, shape (m,); none given: all prefill and decode.
    links
        As :meth:`hexopt.cluster.Cluster.link_times` gives them; needed where there are roles.

    Returns
    -------
    latency, ahead, tail
        Seconds of each workflow, shape (templates,); from each stage's parents' end, and from its own end, to its
        workflow's end, both shape (calls,).
    """
    stage = workload.template_stages()
    child = workload.template_children()
    result = np.zeros(len(workload))
    ahead = np.zeros(stage.shape[0])
    tail = np.zeros(stage.shape[0])
    cached = np.zeros(stage.shape[0]) if cached is None else cached
    role = np.array(roles or (MIXED,) * coef.shape[0], dtype=np.int32)
    link_latency, link_seconds = links or (np.zeros((0, 0)), np.zeros((0, 0)))
    one = np.ones(coef.shape[0])
    for t in range(len(workload)):
        _alone(
            stage, child, result[t : t + 1], workload.first_stage[t], workload.stages[t],
            coef, one, role, budgets, link_latency, link_seconds, cached, ahead, tail,
        )  # fmt: skip
    return result, ahead, tail


def train(workflows: Sequence[Workflow], kinds: tuple[str, ...], cluster: Cluster) -> Training:
    """Fit what policies start from to finished ``workflows`` of another trace, or of a pilot run.

    Kinds that they lack start from the mean over all kinds.
    """
    workload = Workload(workflows)
    stage = workload.template_stages()
    index = np.array([kinds.index(k) if k in kinds else -1 for k in workload.kinds])
    kind = index[stage["kind"]]
    known = kind >= 0
    fleet = fleet_of(cluster)
    _, _, tail = critical_paths(workload, fleet.coef.mean(axis=0)[None], fleet.max_batched[:1].astype(np.float64))
    rows = stage[known]
    counts = np.bincount(kind[known], minlength=len(kinds)).astype(np.float64)

    def mean_of(field: str) -> NDArray[np.float64]:
        sums = np.bincount(kind[known], weights=rows[field], minlength=len(kinds))
        overall = float(stage[field].mean())
        return np.where(counts > 0, sums / np.maximum(counts, 1), overall)

    return Training(
        kinds=kinds,
        lengths=fit_lengths(len(kinds), kind, stage["prompt"], stage["output"]),
        tails=fit_tails(len(kinds), kind, stage["occurrence"], tail),
        prompt=mean_of("prompt"),
        output=mean_of("output"),
        calls=counts / len(workload),
        successors=_successors(workload, len(kinds), kind),
        costs=_costs(workload, len(kinds), kind),
    )


def _costs(workload: Workload, kinds: int, kind: NDArray[np.int64]) -> Tally:
    """KV token-time of each workflow, by its first call."""
    stage, first = workload.template_stages(), workload.first_stage
    each = token_time(stage["prompt"].astype(np.float64), stage["output"].astype(np.float64))
    return fit_lengths(kinds, kind[first], stage["prompt"][first], np.add.reduceat(each, first))


def _successors(workload: Workload, kinds: int, kind: NDArray[np.int64]) -> Successors:
    """What follows the calls of ``workload``, whose kinds are ``kind``."""
    parents, children, traits = [], [], []
    occurrence = workload.template_stages()["occurrence"]
    for first, workflow in zip(workload.first_stage.tolist(), workload.workflows, strict=True):
        position = {s.id: k for k, s in enumerate(workflow.stages)}
        for k, child in enumerate(workflow.stages):
            for p in sorted({position[name] for name in child.parents}):
                shared = _template_tokens(child)
                kept = max(shared, _common_tokens(workflow.stages[p], child))
                parents.append(first + p)
                children.append(first + k)
                traits.append((child.tool_delay, child.prompt_tokens, shared, kept, occurrence[first + k]))
    return fit_successors(kinds, kind, occurrence, parents, children, np.array(traits, dtype=np.float64))


def _template_tokens(stage: Stage) -> int:
    """Leading prompt tokens that calls of other workflows have too."""
    tokens = 0
    for prefix in stage.prefixes:
        if prefix.local:
            break
        tokens += prefix.tokens
    return tokens


def _common_tokens(parent: Stage, child: Stage) -> int:
    """Leading prompt tokens of ``child`` that ``parent``'s prompt and output hold."""
    said = () if parent.output_segment is None else (Prefix(parent.output_segment, parent.output_tokens, True),)
    tokens = 0
    for here, there in zip((*parent.prefixes, *said), child.prefixes, strict=False):
        if here.segment != there.segment:
            break
        tokens += min(here.tokens, there.tokens)
        if here.tokens != there.tokens:
            break
    return tokens


def that_fit(workflows: Sequence[Workflow], cluster: Cluster) -> list[Workflow]:
    """Those of ``workflows`` of which every call fits the context of an instance, or of a prefill and a decode one."""
    instance = instance_table(cluster, True)
    tokens = np.array([(s.prompt_tokens, s.output_tokens) for w in workflows for s in w.stages], dtype=np.int64)
    fits = iter(servable(*tokens.reshape(-1, 2).T, instance).tolist())
    return [w for w in workflows if all(list(islice(fits, len(w.stages))))]


@dataclass(frozen=True)
class Experiment:
    """A workload on a cluster, ready to be run under any policy at any rate and seed.

    Parameters
    ----------
    workload, cluster
        What arrives, and where.
    training
        What the policies' predictors start from.
    standalone
        Stand-alone latency of each template, seconds, shape (templates,).
    deadline
        Seconds each template is given, shape (templates,).
    """

    workload: Workload
    cluster: Cluster
    training: Training
    standalone: NDArray[np.float64]
    deadline: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        workflows: Sequence[Workflow],
        cluster: Cluster,
        *,
        training: Sequence[Workflow] | None = None,
        slo_factor: float = 3.0,
        slo: float | None = None,
        slo_scale: float | None = None,
    ) -> Experiment:
        """Compile, train and set deadlines.

        A workflow's deadline is the trace's own where it has one; otherwise ``slo`` seconds if given;
        otherwise ``slo_scale`` times its own stand-alone latency if given, as papers define attainment (HexAGenT, arXiv
        2605.16637); otherwise ``slo_factor`` times the mean stand-alone latency of its family, one number for all
        workflows of a family, as a service promises it.

        Parameters
        ----------
        training
            Finished workflows to learn from; by default a pilot of every fifth workflow (at least 20, or all).
        """
        workload = Workload(workflows)
        standalone, _ = standalone_seconds(workload, cluster)
        if training is None:
            step = max(min(5, len(workflows) // 20), 1)
            training = list(workflows)[::step]
        family = np.array([w.family for w in workflows])
        if slo is not None:
            promised = np.full(standalone.shape, slo)
        elif slo_scale is not None:
            promised = slo_scale * standalone
        else:
            promised = np.zeros(standalone.shape)
            for name in np.unique(family):
                promised[family == name] = slo_factor * float(standalone[family == name].mean())
        deadline = np.where(np.isnan(workload.deadline), promised, workload.deadline)
        return cls(workload, cluster, train(training, workload.kinds, cluster), standalone, deadline)

    def run(
        self,
        policy: Policy,
        picks: NDArray[np.int64],
        arrivals: NDArray[np.float64],
        until: float = np.inf,
        events: Sequence[FleetEvent] = (),
        mistakes: Mistakes | None = None,
    ) -> Run:
        """Run the templates ``picks`` arriving at ``arrivals`` (seconds, ascending), both shape (w,)."""
        jobs = self.workload.draw(picks, arrivals, self.deadline[picks])
        return simulate(
            jobs,
            self.workload.kinds,
            self.cluster,
            policy,
            self.training,
            until=until,
            events=events,
            mistakes=mistakes,
        )

    def sample(self, workflows: int, rate: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Templates in random order without repetition until all were used, and Poisson arrivals at ``rate``."""
        rng = np.random.default_rng(seed)
        rounds = -(-workflows // len(self.workload))
        picks = np.concatenate([rng.permutation(len(self.workload)) for _ in range(rounds)])[:workflows]
        return picks, poisson(rate, workflows, rng)

    def capacity(
        self,
        workflows: int = 1000,
        seed: int = 0,
        policy: Policy | None = None,
        share: float = 0.5,
        scale: float | None = None,
    ) -> float:
        """Workflows a second up to which at least ``share`` of them meet their deadline.

        0 if they miss it even one after the other; infinite if they meet it although all of the longest run arrive
        within the stand-alone latency of one.

        Continuous batching has no sharp saturation point: throughput goes on growing with the batch long after
        latency has become useless. Capacity is therefore the knee of the attainment curve, found by bisection to 2%.

        Parameters
        ----------
        workflows, seed
            Length of the runs (Poisson arrivals) at least, and their seed. Where that many arrive in less than ten mean
            stand-alone latencies, runs are longer, up to 16,000 workflows.
        policy
            Earliest deadline first by default: the classical rule, and no contestant's own.
        share
            Half for the capacity; 0.95 for the rate sustained at 95% attainment.
        scale
            If given, in time is what ends within that multiple of its own stand-alone latency; policies see the
            deadlines as ever. With a share of 0.95 it is the rate up to which Req95 is at most ``scale``.
        """
        policy = policy or EarliestDeadline()
        alone = float(self.standalone.mean())

        def length(rate: float) -> int:
            return max(workflows, min(math.ceil(_SPANS * rate * alone), _LONGEST))

        def meets(rate: float) -> bool:
            picks, arrivals = self.sample(length(rate), rate, seed)
            run = self.run(policy, picks, arrivals)
            due = run.workflow["deadline"] if scale is None else arrivals + scale * self.standalone[picks]
            return float((run.workflow["finish"] <= due).mean()) >= share

        low = high = 1.0 / alone
        if meets(low):
            while meets(high := low * 1.5):
                low = high
                if length(high) / high < alone:
                    return math.inf
        else:
            while not meets(low := high / 1.5):
                high = low
                if low * alone < 1e-4:
                    return 0.0
        while high / low > 1.02:
            middle = float(np.sqrt(low * high))
            low, high = (middle, high) if meets(middle) else (low, middle)
        return low
