"""What people ask beside the cheapest fleet: other rates and targets, what one more would bring, growth, days."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hexopt.planning.demand import Demand, DemandError
from hexopt.planning.fleet import Fleet, Limits, Option, bill_of
from hexopt.planning.proof import Prover, Setting, Verdict
from hexopt.planning.search import NoFleetError, Plan, Question, Round, Search

Told = Callable[[Round], None]


def _nobody(_: Round) -> None:
    """Tell no one."""


@dataclass(frozen=True)
class Point:
    """A plan for one target at one rate; ``plan`` is None and ``why`` says so where there is none."""

    target: float
    factor: float
    plan: Plan | None
    why: str = ""


def front(
    prover: Prover, limits: Limits, question: Question, targets: Sequence[float], on_round: Told = _nobody
) -> list[Point]:
    """The cheapest fleet for each target, ascending: what a little more attainment costs."""
    points, refuted = list[Point](), dict[Fleet, float]()
    for target in sorted(targets):
        search = Search(prover, limits, replace(question, target=target), 1.0, on_round, dict(refuted))
        points.append(_point(search, target, 1.0))
        # What misses this target misses a higher one.
        refuted = search.refuted
    return points


def sweep(
    prover: Prover, limits: Limits, question: Question, rates: Sequence[float], on_round: Told = _nobody
) -> list[Point]:
    """The cheapest fleet at each factor on the rate, ascending."""
    points, refuted = list[Point](), dict[Fleet, float]()
    for factor in sorted(rates):
        search = Search(prover, limits, question, factor, on_round, dict(refuted))
        points.append(_point(search, question.target, factor))
        # What is too small at this rate is too small at a higher one.
        refuted = search.refuted
    return points


def _point(search: Search, target: float, factor: float) -> Point:
    try:
        return Point(target, factor, search.cheapest())
    except NoFleetError as error:
        return Point(target, factor, None, str(error))


@dataclass(frozen=True)
class Growth:
    """Fleets for periods one after the other, of which each has all that the smaller ones have.

    Parameters
    ----------
    factors, weights
        Factor on the rate of each period, and how much of the total it is (hours, months), shape (periods,).
    fleets, costs
        The fleet of each period, money an hour.
    alone, least
        What the period's own cheapest fleet costs, and no fleet goes below, money an hour.
    verdicts
        What the simulator says of each.
    """

    factors: tuple[float, ...]
    weights: tuple[float, ...]
    fleets: tuple[Fleet, ...]
    costs: tuple[float, ...]
    alone: tuple[float, ...]
    least: tuple[float, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def total(self) -> float:
        """Money over all periods, by their weights."""
        return float(np.dot(self.costs, self.weights))

    @property
    def bound(self) -> float:
        """No such fleets cost less: money over all periods, by their weights."""
        return float(np.dot(self.least, self.weights))


def nested(
    prover: Prover,
    limits: Limits,
    question: Question,
    rates: Sequence[float],
    weights: Sequence[float],
    on_round: Told = _nobody,
) -> Growth:
    """Fleets for periods of different rates that only grow with the rate.

    Two ways are tried, and the cheaper one counts: from the smallest rate up, each fleet added to the last; and from
    the largest down, each fleet chosen from the last.

    Raises
    ------
    NoFleetError
        If a period has none.
    """
    distinct = sorted(set(rates))
    alone = {p.factor: p for p in sweep(prover, limits, question, distinct, on_round)}
    for point in alone.values():
        if point.plan is None:
            raise NoFleetError(f"at {point.factor:g} times the rate: {point.why}")
    ways = [
        _one_way(prover, limits, question, distinct, on_round, up=True),
        _one_way(prover, limits, question, distinct, on_round, up=False),
    ]
    found = [way for way in ways if way is not None]

    def total(way: dict[float, Plan]) -> float:
        return sum(weight * way[rate].cost for rate, weight in zip(rates, weights, strict=True))

    if not found:
        raise NoFleetError("there are fleets for every rate, but none that only grows with it")
    best = min(found, key=total)
    return Growth(
        tuple(rates),
        tuple(weights),
        tuple(best[rate].fleet for rate in rates),
        tuple(best[rate].cost for rate in rates),
        tuple(plan.cost if (plan := alone[rate].plan) is not None else 0.0 for rate in rates),
        tuple(plan.bound if (plan := alone[rate].plan) is not None else 0.0 for rate in rates),
        tuple(best[rate].verdict for rate in rates),
    )


def _one_way(
    prover: Prover, limits: Limits, question: Question, rates: Sequence[float], on_round: Told, *, up: bool
) -> dict[float, Plan] | None:
    plans: dict[float, Plan] = {}
    bounds = limits
    for rate in rates if up else reversed(rates):
        search = Search(prover, bounds, question, rate, on_round)
        try:
            plans[rate] = search.cheapest()
        except NoFleetError:
            return None
        fleet = plans[rate].fleet
        bounds = replace(limits, least=fleet) if up else replace(limits, most=fleet)
    return plans


def hours_of(demand: Demand) -> list[float]:
    """Factor on the mean rate of each hour of a day, from the arrival times of the demand's traces.

    Raises
    ------
    DemandError
        If they span less than a day.
    """
    counts = np.zeros(24)
    for service in demand.services:
        times = np.array([w.arrival for w in service.workflows])
        span = float(times.max() - times.min())
        if span < 23.0 * 3600.0:
            raise DemandError(f"workload {service.name!r}: the trace spans {span / 3600.0:.3g} h, expected a day")
        hours = ((times - times.min()) // 3600.0).astype(np.int64) % 24
        counts += np.bincount(hours, minlength=24) / len(times) * service.rate
    # To a tenth of the peak upwards: every level is a plan of its own.
    step = counts.max() / 10.0
    return (np.maximum(np.ceil(counts / step - 1e-9), 1.0) * step * 24.0 / counts.sum()).round(4).tolist()


def ready_in_time(factors: Sequence[float], start_up: float) -> list[float]:
    """Factors for which fleets must run in each part of a day, if instances take ``start_up`` seconds to start.

    What a part needs must run ``start_up`` before it begins: the parts before it are planned for the most of those.
    """
    part = 86400.0 / len(factors)
    ahead = min(int(np.ceil(start_up / part)), len(factors) - 1)
    return [max(factors[(k + a) % len(factors)] for a in range(ahead + 1)) for k in range(len(factors))]


def curve(
    prover: Prover, fleet: Fleet, rates: Sequence[float] = (0.5, 0.7, 0.85, 1.0, 1.1, 1.2, 1.35, 1.5, 2.0)
) -> list[tuple[float, Verdict]]:
    """Attainment of ``fleet`` at factors on the rate."""
    return [(factor, prover.exactly(fleet, 3, factor)) for factor in rates]


@dataclass(frozen=True)
class OneMore:
    """What one more instance of an option would bring.

    Parameters
    ----------
    option
        Which.
    price
        Money an hour of it.
    sustained
        Factor on the rate up to which the fleet with it reaches the target.
    """

    option: int
    price: float
    sustained: float


def one_more(prover: Prover, question: Question, fleet: Fleet, runs: int = 2) -> tuple[float, list[OneMore]]:
    """The factor on the rate that ``fleet`` sustains, and the one with one more of each option that can be bought."""
    options = prover.setting.options
    base = sustained(prover, question, fleet, 1.0, runs)
    found = [
        OneMore(j, o.price, sustained(prover, question, (*fleet[:j], fleet[j] + 1, *fleet[j + 1 :]), base, runs))
        for j, o in enumerate(options)
        if o.buyable
    ]
    return base, sorted(found, key=lambda more: (base - more.sustained) / max(more.price, 1e-9))


def sustained(prover: Prover, question: Question, fleet: Fleet, start: float, runs: int) -> float:
    """The highest factor on the rate at which ``fleet`` reaches the target, to 3%, from ``start`` on."""

    def reaches(factor: float) -> bool:
        return prover.exactly(fleet, runs, factor).attainment >= question.target

    low, high = start, start * 1.12
    while reaches(high) and high < 64.0 * start:
        low, high = high, high * 1.25
    if low == start and not reaches(low):
        low, high = low / 2.0, low
    while high / low > 1.03:
        middle = round((low * high) ** 0.5, 4)
        low, high = (middle, high) if reaches(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class Sensitivity:
    """What becomes of a fleet if GPUs of a type (empty: all) are ``factor`` times as fast as learned."""

    gpu: str
    factor: float
    verdict: Verdict


def sensitivity(prover: Prover, fleet: Fleet, by: float = 0.2) -> list[Sensitivity]:
    """Attainment of ``fleet`` if each of its GPU types, and all together, were slower or faster by a share ``by``."""
    setting = prover.setting
    used = dict.fromkeys(o.gpu for o, n in zip(setting.options, fleet, strict=True) if n)
    kinds = ["", *used] if len(used) > 1 else [""]
    return [
        Sensitivity(gpu, factor, _at_speed(prover, fleet, gpu, factor)) for gpu in kinds for factor in (1 - by, 1 + by)
    ]


def _at_speed(prover: Prover, fleet: Fleet, gpu: str, factor: float) -> Verdict:
    setting = prover.setting

    def changed(option: Option) -> Option:
        if gpu and option.gpu != gpu:
            return option
        return replace(option, instance=replace(option.instance, speed=option.instance.speed * factor))

    other = Setting(setting.demand, tuple(map(changed, setting.options)), setting.policy, setting.seconds)
    return Prover(other, prover.seeds, prover.seeds, prover.run).exactly(fleet, prover.seeds)


@dataclass(frozen=True)
class Attained:
    """The best fleet for a budget.

    Parameters
    ----------
    fleet, verdict
        Which, and what the simulator says of it.
    cost
        Money an hour.
    ceiling
        Attainment that no fleet within the limits reaches, as far as the search was carried.
    proven
        Whether it was carried to the end.
    """

    fleet: Fleet
    verdict: Verdict
    cost: float
    ceiling: float
    proven: bool


def most_attained(
    prover: Prover, limits: Limits, question: Question, on_round: Told = _nobody, within: float = 0.005
) -> Attained:
    """The fleet within the limits' budget whose attainment is highest, to ``within``, by bisection on the target.

    Raises
    ------
    NoFleetError
        If the limits leave nothing that ends any workflow in time.
    """
    low, high, proven = 0.0, 1.0, True
    best: Fleet | None = None
    refuted = dict[Fleet, float]()
    target = 0.5
    while high - low > within:
        search = Search(prover, limits, replace(question, target=target), 1.0, on_round, dict(refuted))
        found, sure = search.any_passing()
        if found is None:
            high, proven = target, proven and sure
        else:
            best, low = found, prover.verdict(found, target).attainment
            refuted = search.refuted
        target = (low + high) / 2.0
    if best is None:
        raise NoFleetError(f"no fleet within the limits has {within:.1%} of the workflows in time")
    cost = bill_of(prover.setting.options, best, limits).cost
    return Attained(best, prover.exactly(best, prover.seeds), cost, high, proven)
