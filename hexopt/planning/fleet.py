"""What can be bought, what is there already, and a fleet of it as a cluster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hexopt.cluster import Cluster, Instance, parse_cluster
from hexopt.planning.catalogue import Configuration, GpuOffer


@dataclass(frozen=True)
class Option:
    """One kind of instance that a fleet can have.

    Parameters
    ----------
    name
        For people: ``h100 tp4``, with the LLM where a fleet may serve variants of it.
    instance
        What each of them is; its ``price`` is what one costs an hour on demand.
    gpus
        GPUs of one.
    spot_price
        Money an hour of one that may be taken back, None where there is none.
    owned
        How many there are already: they stay, and cost nothing more.
    buyable
        Whether more can be had.
    """

    name: str
    instance: Instance
    gpus: int
    spot_price: float | None = None
    owned: int = 0
    buyable: bool = True

    @property
    def gpu(self) -> str:
        """GPU type."""
        return self.instance.cell.cell.gpu

    @property
    def price(self) -> float:
        """Money an hour of one more, on demand."""
        return self.instance.price


Fleet = tuple[int, ...]
"""How many instances of each option, the owned ones among them."""


def options_of(
    configurations: Sequence[Configuration],
    owned: Cluster | None = None,
    settings: dict[str, Any] | None = None,
    latency: str = "",
) -> tuple[Option, ...]:
    """The options that a catalogue's configurations and the instances there already make.

    Parameters
    ----------
    configurations
        What can be bought.
    owned
        What is there.
    settings
        vLLM's options for what is bought, as a cluster's file has them (``max_num_seqs`` ...).
    latency
        File of latency models, empty for the bundled ones.
    """
    many = len({c.llm for c in configurations}) > 1
    rows = [
        {"name": f"{k}", "gpu": c.gpu, "llm": c.llm, "tp": c.tp, "pp": c.pp, "price": float(c.price)}
        for k, c in enumerate(configurations)
    ]
    document: dict[str, Any] = {"instance": rows, **(settings or {}), **({"latency": latency} if latency else {})}
    made = parse_cluster(document, "the catalogue").instances if rows else ()
    options = [
        Option(_name(instance, many), instance, c.gpus, c.spot_price)
        for c, instance in zip(configurations, made, strict=True)
    ]
    kinds: dict[Instance, int] = {}
    for instance in owned.instances if owned is not None else ():
        kind = replace(instance, name="", url="", price=0.0)
        kinds[kind] = kinds.get(kind, 0) + 1
    for kind, count in kinds.items():
        name = f"{_name(kind, many)} there"
        while any(option.name == name for option in options):
            name += "'"
        options.append(Option(name, kind, kind.cell.cell.gpus, None, count, False))
    return tuple(options)


def _name(instance: Instance, many: bool) -> str:
    cell = instance.cell.cell
    return f"{cell.gpu} tp{cell.tp}" + (f" pp{cell.pp}" if cell.pp > 1 else "") + (f" {cell.llm}" if many else "")


def cluster_of(options: Sequence[Option], fleet: Fleet, name: str = "plan") -> Cluster:
    """The cluster of ``fleet``, instances in the order of the options."""
    instances = [
        replace(option.instance, name=f"{option.name.replace(' ', '-')}-{k}")
        for option, count in zip(options, fleet, strict=True)
        for k in range(count)
    ]
    return Cluster(name, tuple(instances))


@dataclass(frozen=True)
class Limits:
    """What may be bought at most.

    Parameters
    ----------
    offers
        Offers by GPU type: GPUs to be had, GPUs a node, whether only whole nodes are rented.
    budget
        Money an hour.
    spot_share
        Share of the instances of each option that may be spot ones.
    least, most
        Instances of each option at least and at most, the owned ones among them; empty for any number.
    """

    offers: dict[str, GpuOffer]
    budget: float = math.inf
    spot_share: float = 0.0
    least: Fleet = ()
    most: Fleet = ()

    def range_of(self, j: int, option: Option) -> tuple[int, int | None]:
        """Least and most instances of option ``j``; None for any number."""
        low = max(option.owned, self.least[j] if self.least else 0)
        if not option.buyable:
            return option.owned, option.owned
        return low, (max(self.most[j], low) if self.most else None)


@dataclass(frozen=True)
class Bill:
    """What a fleet costs, and how it is bought.

    Parameters
    ----------
    cost
        Money an hour.
    spot
        Spot instances of each option, shape (options,).
    nodes
        Whole nodes rented, by GPU type.
    """

    cost: float
    spot: tuple[int, ...]
    nodes: dict[str, int]


def bill_of(options: Sequence[Option], fleet: Fleet, limits: Limits) -> Bill:
    """What ``fleet`` costs: of each option at most ``spot_share`` as spot instances, where they are cheaper.

    Where spot GPUs of a type are few, those go first that save most a GPU. Whole nodes are paid whole, never as
    spot ones.
    """
    bought = [count - option.owned for option, count in zip(options, fleet, strict=True)]
    left = {gpu: math.inf if offer.max_spot is None else offer.max_spot for gpu, offer in limits.offers.items()}
    spot = [0] * len(options)
    for j in sorted(range(len(options)), key=lambda j: -_saving(options[j]) / options[j].gpus):
        option = options[j]
        if _saving(option) > 0.0 and not whole_nodes(limits, option.gpu):
            share = math.floor(limits.spot_share * bought[j] + 1e-9)
            spot[j] = int(min(share, left.get(option.gpu, 0.0) // option.gpus))
            left[option.gpu] -= spot[j] * option.gpus
    cost = sum(b * o.price - s * _saving(o) for o, b, s in zip(options, bought, spot, strict=True))
    nodes = {}
    for gpu, offer in limits.offers.items():
        own = [(o, b) for o, b in zip(options, bought, strict=True) if o.gpu == gpu]
        if offer.whole_nodes and any(b for _, b in own):
            nodes[gpu] = -(-sum(b * o.gpus for o, b in own) // offer.per_node)
            cost += nodes[gpu] * offer.per_node * offer.price - sum(b * o.price for o, b in own)
    return Bill(cost, tuple(spot), nodes)


def _saving(option: Option) -> float:
    return option.price - option.spot_price if option.spot_price is not None else 0.0


def whole_nodes(limits: Limits, gpu: str) -> bool:
    """Whether GPUs of this type are rented by the node."""
    return gpu in limits.offers and limits.offers[gpu].whole_nodes


def within_limits(options: Sequence[Option], fleet: Fleet, limits: Limits) -> bool:
    """Whether ``fleet`` can be bought: inventory of each GPU type, the budget, and how many of each option."""
    used: dict[str, int] = {}
    for j, (option, count) in enumerate(zip(options, fleet, strict=True)):
        least, most = limits.range_of(j, option)
        if count < least or (most is not None and count > most):
            return False
        used[option.gpu] = used.get(option.gpu, 0) + (count - option.owned) * option.gpus
    for gpu, gpus in used.items():
        offer = limits.offers.get(gpu)
        if offer is None or offer.max is None:
            continue
        if (-(-gpus // offer.per_node) * offer.per_node if offer.whole_nodes else gpus) > offer.max:
            return False
    return bill_of(options, fleet, limits).cost <= limits.budget + 1e-9
