"""The work of a demand in classes: how many calls of which size arrive, and how many a workflow waits for in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hexopt.cluster import Instance
from hexopt.planning.demand import Demand
from hexopt.simulation.experiment import critical_paths
from hexopt.traces.workflow import Workflow

TIERS = (0.5, 0.8, 0.95)
"""Shares of a service's workflows, shortest first, at which they are told apart."""
_TIER_NAMES = ("short", "middling", "long", "longest")
CLASSES = 50
"""Classes at most."""


@dataclass(frozen=True)
class Sizes:
    """Calls of a demand as a lower bound on their work sees them; every array has shape (calls,).

    Parameters
    ----------
    cached
        Prompt tokens that a prefix cache could hold at best: what all workflows share, and what calls before this one
        of its workflow have computed.
    new
        The other prompt tokens, at least 1.
    decoded
        Output tokens after the first, which comes with the prefill.
    attention
        ``new * (cached + new / 2)``, the roofline's A over all chunks.
    prompt
        Prompt tokens.
    context
        Context lengths summed over the decode steps.
    """

    cached: NDArray[np.float64]
    new: NDArray[np.float64]
    decoded: NDArray[np.float64]
    attention: NDArray[np.float64]
    prompt: NDArray[np.float64]
    context: NDArray[np.float64]


def sizes_of(demand: Demand) -> Sizes:
    """Sizes of all calls of ``demand``'s templates, in the order of its workload."""
    stage = demand.workload.template_stages()
    prompt = stage["prompt"].astype(np.float64)
    decoded = stage["output"].astype(np.float64) - 1.0
    cached = np.concatenate([_cacheable(w) for s in demand.services for w in s.workflows])
    new = np.maximum(prompt - cached, 1.0)
    return Sizes(
        cached=prompt - new,
        new=new,
        decoded=decoded,
        attention=new * (prompt - new / 2.0),
        prompt=prompt,
        context=decoded * (prompt + (decoded + 1.0) / 2.0),
    )


def _cacheable(workflow: Workflow) -> NDArray[np.float64]:
    """Leading tokens of each call's prompt that every workflow has or that earlier calls of this one computed."""
    longest: dict[tuple[str, ...], int] = {}
    cached = np.zeros(len(workflow.stages))
    for k, stage in enumerate(workflow.stages):
        path: tuple[str, ...] = ()
        going = True
        for prefix in stage.prefixes:
            path += (prefix.segment,)
            known = prefix.tokens if not prefix.local else min(longest.get(path, 0), prefix.tokens)
            cached[k] += known if going else 0
            going = going and known == prefix.tokens
            longest[path] = max(longest.get(path, 0), prefix.tokens)
        if stage.output_segment is not None:
            path += (stage.output_segment,)
            longest[path] = max(longest.get(path, 0), stage.output_tokens)
    return cached


@dataclass(frozen=True)
class Work:
    """Work classes of a demand: calls of one kind, similar in size, of workflows of one service and tier.

    Parameters
    ----------
    names
        For people, one a class.
    rate
        Calls a second, shape (k,).
    sizes
        Mean sizes of a class's calls, arrays of shape (k,).
    kv
        Tokens that a call's KV cache holds for itself alone when it ends, shape (k,).
    shortest
        Tokens of the shortest call, prompt and output, shape (k,).
    call_class
        Class of each template call, shape (calls,).
    groups
        Tiers of the services: name and deadline of each.
    path
        Calls of each class in a row on the longest way through a workflow of a group, shape (groups, k).
    slack
        Deadline less the tools' delays on that way, seconds, mean over the group, shape (groups,).
    """

    names: tuple[str, ...]
    rate: NDArray[np.float64]
    sizes: Sizes
    kv: NDArray[np.float64]
    shortest: NDArray[np.float64]
    call_class: NDArray[np.int64]
    groups: tuple[str, ...]
    path: NDArray[np.float64]
    slack: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.names)


def work_of(demand: Demand, instances: Sequence[Instance], attainment: float, classes: int = CLASSES) -> Work:
    """Work classes of ``demand``.

    Parameters
    ----------
    instances
        One of each option; the longest way through a workflow is measured on the mean of them.
    attainment
        Share of the workflows that must be in time; a tier of which half may be late is in no group.
    classes
        Classes at most; sizes are told apart more coarsely until that holds.
    """
    workload = demand.workload
    stage = workload.template_stages()
    sizes = sizes_of(demand)
    owner = np.repeat(np.arange(len(workload)), workload.stages)
    on_path, seconds = _longest_ways(demand, instances, sizes)
    service = demand.service
    tier = np.zeros(len(workload), dtype=np.int64)
    for s in range(len(demand.services)):
        own = np.flatnonzero(service == s)
        rank = np.empty(len(own))
        rank[np.argsort(seconds[own], kind="stable")] = (np.arange(len(own)) + 0.5) / len(own)
        tier[own] = np.searchsorted(TIERS, rank)
    label, rows = _labels(stage["kind"], service[owner], tier[owner], sizes, classes)
    rate = np.bincount(label, weights=demand.template_rate[owner], minlength=len(rows))

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        weight = demand.template_rate[owner]
        return np.bincount(label, weights=values * weight, minlength=len(rows)) / rate

    groups, path, slack = [], [], []
    for s, kept in enumerate(demand.services):
        for t in range(len(TIERS) + 1):
            own = (service == s) & (tier == t)
            if not own.any() or 1.0 - attainment >= 0.5 * own.sum() / (service == s).sum():
                continue
            ways = own[owner] & on_path
            groups.append(_name(kept.name, t, len(demand.services)))
            path.append(np.bincount(label[ways], minlength=len(rows)) / own.sum())
            tools = np.bincount(owner[ways], weights=stage["tool_delay"][ways], minlength=len(workload))[own].mean()
            slack.append(float(demand.deadline[own].mean()) - float(tools))
    shortest = np.full(len(rows), np.inf)
    np.minimum.at(shortest, label, stage["prompt"] + stage["output"].astype(np.float64))
    names = tuple(
        " ".join(
            filter(
                None,
                (_name(demand.services[s].name, t, len(demand.services)), workload.kinds[kind], _size_name(*bucket)),
            )
        )
        for kind, s, t, bucket in rows
    )
    return Work(
        names=names,
        rate=rate,
        sizes=Sizes(*(mean(getattr(sizes, name)) for name in Sizes.__dataclass_fields__)),
        kv=mean(sizes.new + sizes.decoded),
        shortest=shortest,
        call_class=label,
        groups=tuple(groups),
        path=np.array(path).reshape(len(path), len(rows)),
        slack=np.array(slack),
    )


def _name(service: str, tier: int, services: int) -> str:
    which = _TIER_NAMES[tier]
    return which if services == 1 else f"{service} {which}"


def _size_name(prompt: int, output: int) -> str:
    said = [] if prompt < 0 else [f"prompt<{2 ** (prompt + 1)}"]
    return " ".join(said + ([] if output < 0 else [f"output<{2 ** (output + 1)}"]))


_Row = tuple[int, int, int, tuple[int, int]]


def _labels(
    kind: NDArray[np.int32], service: NDArray[np.int64], tier: NDArray[np.int64], sizes: Sizes, most: int
) -> tuple[NDArray[np.int64], list[_Row]]:
    """Class of each call, and what the classes are; finer ones where they are not too many."""
    prompt = np.log2(np.maximum(sizes.prompt, 1.0)).astype(np.int64)
    output = np.log2(sizes.decoded + 1.0).astype(np.int64)
    nothing = np.full(len(kind), -1)
    for p, o in ((prompt, output), (prompt | 1, output | 1), (nothing, output | 1), (nothing, nothing)):
        found, label = np.unique(np.stack([kind, service, tier, p, o]), axis=1, return_inverse=True)
        if found.shape[1] <= most:
            break
    rows = [(int(k), int(s), int(t), (int(p), int(o))) for k, s, t, p, o in found.T]
    return label.reshape(-1), rows


def _longest_ways(
    demand: Demand, instances: Sequence[Instance], sizes: Sizes
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which calls are on the longest way through their workflow, and that way's seconds, on a mean instance."""
    workload = demand.workload
    mean = np.mean([instance.coef for instance in instances], axis=0)[None]
    budget = np.array([float(min(instance.max_num_batched_tokens for instance in instances))])
    latency, ahead, _ = critical_paths(workload, mean, budget, sizes.cached)
    stage, child = workload.template_stages(), workload.template_children()
    on_path = np.zeros(len(stage), dtype=bool)
    for first, count in zip(workload.first_stage.tolist(), workload.stages.tolist(), strict=True):
        there = first + np.flatnonzero(stage["parents_left"][first : first + count] == 0)
        while len(there):
            k = there[ahead[there].argmax()]
            on_path[k] = True
            row = stage[k]
            there = first + child[row["first_child"] : row["first_child"] + row["children"]]
    return on_path, latency
