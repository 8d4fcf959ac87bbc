"""The cheapest fleet that keeps the promise: the model proposes, the simulator refutes, until they agree."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from hexopt.planning.calibration import factors
from hexopt.planning.dominance import Dominance
from hexopt.planning.efficiency import Efficiency, efficiency_of
from hexopt.planning.fleet import Fleet, Limits, Option, bill_of, within_limits
from hexopt.planning.model import Backend, FleetModel, Solution
from hexopt.planning.proof import Prover, Verdict
from hexopt.planning.work import CLASSES, Work, work_of

_STEP = 1.25
"""Factor by which capacity beyond the bare need grows until a fleet passes."""
_CLOSE = 1.04
"""Ratio of such factors, one that is enough and one that is not, from which they are not told apart."""
_CLEARLY = 2.0
"""Late workflows over those allowed from which a fleet has failed clearly: slower ones fail as well."""


@dataclass(frozen=True)
class Round:
    """One fleet that was simulated on the way.

    Parameters
    ----------
    why
        What made it a candidate.
    fleet, cost
        What was simulated, money an hour.
    attainment, passed
        What came of it.
    """

    why: str
    fleet: Fleet
    cost: float
    attainment: float
    passed: bool


@dataclass(frozen=True)
class Removal:
    """A proven fleet less one instance, or less one node: what is left must fail for the fleet to be minimal."""

    option: int
    fleet: Fleet
    verdict: Verdict


@dataclass(frozen=True)
class Plan:
    """The answer.

    Parameters
    ----------
    fleet
        Instances of each option.
    cost
        Money an hour.
    bound
        No fleet that keeps the promise costs less, money an hour.
    verdict
        What the simulator says of the fleet.
    removals
        The fleet less one instance of each option in it that may be given up.
    rounds
        Every fleet simulated on the way.
    first
        What the model said before anything was refuted.
    simulations, seconds
        Effort.
    """

    fleet: Fleet
    cost: float
    bound: float
    verdict: Verdict
    removals: tuple[Removal, ...]
    rounds: tuple[Round, ...]
    first: Solution
    simulations: int
    seconds: float

    @property
    def gap(self) -> float:
        """(cost - bound) / cost; 0 where the fleet is proven to be the cheapest."""
        return max(self.cost - self.bound, 0.0) / self.cost if self.cost > 0 else 0.0


@dataclass(frozen=True)
class Question:
    """What is asked of the planner.

    Parameters
    ----------
    target
        Attainment that every service must reach.
    survive
        What the fleet must bear to lose and still reach the target: ``""``, ``instance`` (any one) or ``node`` (any
        one, with all instances on it).
    rounds, seconds
        Effort at most.
    backend
        Solver of the model.
    classes
        Work classes at most.
    """

    target: float
    survive: str = ""
    rounds: int = 300
    seconds: float = 120.0
    backend: Backend = "highs"
    classes: int = CLASSES


class NoFleetError(ValueError):
    """No fleet keeps the promise within the limits; the message says what binds.

    Parameters
    ----------
    proven
        Whether there is none; otherwise none was found in the time and rounds given.
    """

    def __init__(self, message: str, proven: bool = True) -> None:
        super().__init__(message)
        self.proven = proven


@dataclass
class Search:
    """One search; what it learns of fleets at one rate and target is kept for the next question.

    Parameters
    ----------
    prover
        Judge, with the demand and the options.
    limits
        What may be bought.
    question
        What is asked.
    factor
        Factor on the demand's rate.
    on_round
        Told of every fleet simulated.
    refuted
        Attainment of fleets that failed; those of an easier question may be handed in.
    """

    prover: Prover
    limits: Limits
    question: Question
    factor: float = 1.0
    on_round: Callable[[Round], None] = lambda _: None
    refuted: dict[Fleet, float] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)

    def __post_init__(self) -> None:
        setting = self.prover.setting
        demand = setting.demand.at(self.factor)
        instances = [option.instance for option in setting.options]
        self.work: Work = work_of(demand, instances, self.question.target, self.question.classes)
        at_best = efficiency_of(self.work, setting.options)
        known = self.prover.factors
        if self.question.classes not in known:
            known[self.question.classes] = factors(setting, self.work, self.prover.run)
        self.dominance = Dominance(setting.options, at_best)
        busy = at_best.busy * known[self.question.classes][:, :, None]
        self.efficiency: Efficiency = replace(at_best, busy=busy)
        self._started = time.perf_counter()

    @property
    def options(self) -> tuple[Option, ...]:
        """What fleets are made of."""
        return self.prover.setting.options

    def cost(self, fleet: Fleet) -> float:
        """Money an hour."""
        return bill_of(self.options, fleet, self.limits).cost

    def model(self, headroom: float = 1.0) -> FleetModel:
        """The model with all that was refuted cut off."""
        model = FleetModel(self.work, self.efficiency, self.options, self.limits, headroom, self.dominance)
        for fleet in self.refuted:
            model.cut(fleet, self._clearly(fleet))
        return model

    def judge(self, fleet: Fleet, why: str) -> bool:
        """Whether ``fleet`` keeps the promise, also after the loss that it must bear."""
        if any(self._ruled_out(fleet, other) for other in self.refuted):
            return False
        verdict = self.prover.verdict(fleet, self.question.target, self.factor)
        passed = verdict.attainment >= self.question.target
        for left in self.survivors(fleet) if passed else ():
            lost = self.prover.verdict(left, self.question.target, self.factor)
            if lost.attainment < self.question.target:
                passed, verdict = False, replace(verdict, attainment=lost.attainment)
                break
        found = Round(why, fleet, self.cost(fleet), verdict.attainment, passed)
        self.rounds.append(found)
        self.on_round(found)
        if not passed:
            self.refuted[fleet] = verdict.attainment
            gone = [other for other in self.refuted if other != fleet and self._ruled_out(other, fleet)]
            for other in gone:
                del self.refuted[other]
        return passed

    def _clearly(self, fleet: Fleet) -> bool:
        """Whether so many workflows of a refuted fleet were late that chance is out of the question.

        Not where a node may be lost: what is on one of the slower GPUs is not paired with what is on one of the others.
        """
        return self.question.survive != "node" and 1.0 - self.refuted[fleet] >= _CLEARLY * (1.0 - self.question.target)

    def _ruled_out(self, fleet: Fleet, by: Fleet) -> bool:
        if self._clearly(by):
            return self.dominance.within(fleet, by)
        return all(a <= b for a, b in zip(fleet, by, strict=True))

    def survivors(self, fleet: Fleet) -> Iterator[Fleet]:
        """What may be left of ``fleet`` after the loss that it must bear."""
        if self.question.survive == "instance":
            yield from (_changed(fleet, j, -1) for j, n in enumerate(fleet) if n)
        elif self.question.survive == "node":
            for gpu in dict.fromkeys(o.gpu for o, n in zip(self.options, fleet, strict=True) if n):
                yield from self._without_a_node(fleet, gpu)

    def _without_a_node(self, fleet: Fleet, gpu: str) -> Iterator[Fleet]:
        """``fleet`` less what may be on one node of a GPU type: as much as fits, packed as unluckily as can be."""
        own = [j for j, o in enumerate(self.options) if o.gpu == gpu and fleet[j]]
        offer = self.limits.offers.get(gpu)
        size = max([self.options[j].gpus for j in own] + ([offer.per_node] if offer is not None else []))
        for lost in itertools.product(*(range(fleet[j] + 1) for j in own)):
            left = size - sum(n * self.options[j].gpus for n, j in zip(lost, own, strict=True))
            more = (self.options[j].gpus for n, j in zip(lost, own, strict=True) if n < fleet[j])
            if 0 <= left < min(more, default=math.inf):
                gone = dict(zip(own, lost, strict=True))
                yield tuple(n - gone.get(j, 0) for j, n in enumerate(fleet))

    def cheapest(self) -> Plan:
        """The cheapest fleet that keeps the promise, as far as rounds and time go.

        Raises
        ------
        NoFleetError
            If there is none, or none was found.
        """
        first = self.model().solve(self.question.backend)
        best = self._first_passing(first)
        bound = first.bound
        while best is not None or self._going():
            if best is not None:
                best = self._trimmed(best)
            model = self.model()
            if best is not None:
                model.at_most(_below(self.cost(best)))
            found = self._until_passing(model, best)
            if isinstance(found, float):
                bound = max(bound, found)
                break
            best = found
        if best is None:
            raise NoFleetError("no fleet that was tried keeps the promise", proven=bound == math.inf)
        return self._answer(best, min(bound, self.cost(best)), first)

    def any_passing(self) -> tuple[Fleet | None, bool]:
        """A fleet that keeps the promise within the limits, or None; and whether that answer is proven."""
        first = self.model().solve(self.question.backend)
        found: Fleet | float | None = self._first_passing(first)
        if found is None:
            found = self._until_passing(self.model(), None)
        if isinstance(found, float):
            return None, found == math.inf
        return found, True

    def _first_passing(self, first: Solution) -> Fleet | None:
        """A fleet that passes, by asking the model for more capacity until one does."""
        solution, low, high = first, 1.0, math.inf
        headroom, best = 1.0, None
        while solution.fleet and self._going() and high / low > _CLOSE:
            cheaper = best is None or self.cost(solution.fleet) < _below(self.cost(best))
            if not cheaper or self.judge(solution.fleet, f"cheapest with {headroom:.2f}x the bare need"):
                high, best = headroom, solution.fleet if cheaper else best
            else:
                low = headroom
            headroom = min(headroom * _STEP, math.sqrt(low * high))
            solution = self.model(headroom).solve(self.question.backend, min(20.0, self._left()))
        return best

    def _trimmed(self, fleet: Fleet) -> Fleet:
        """``fleet`` less all instances that it can do without, dearest first."""
        for j in sorted(range(len(fleet)), key=lambda j: -self.options[j].price):
            while fleet[j] > self.options[j].owned and self.judge(_changed(fleet, j, -1), "one less"):
                fleet = _changed(fleet, j, -1)
        return fleet

    def _until_passing(self, model: FleetModel, best: Fleet | None) -> Fleet | float:
        """The next fleet that passes within the model, or the bound where there is none or effort ended."""
        bound, worth = 0.0, [self._capacity(j) for j in range(len(self.options))]
        while True:
            solution = model.solve(self.question.backend, self._left())
            if solution.status == "infeasible":
                return math.inf
            bound = max(bound, solution.bound)
            if not solution.fleet or not self._going():
                return bound
            richest = model.richest(worth, min(5.0, self._left()))
            for fleet, why in ((solution.fleet, "cheapest"), (richest, "strongest")):
                if not fleet:
                    continue
                full = self._filled(fleet, best)
                if self.judge(full, f"{why} that nothing refutes" + (", filled up" if full != fleet else "")):
                    return full
                model.cut(full, full in self.refuted and self._clearly(full))

    def _filled(self, fleet: Fleet, best: Fleet | None) -> Fleet:
        """``fleet`` with as much more as stays cheaper than ``best``: if that fails, so does all below it."""
        if best is None and not math.isfinite(self.limits.budget):
            return fleet
        most = self.limits if best is None else replace(self.limits, budget=_below(self.cost(best)))
        worth = {j: self._capacity(j) / max(o.price, 1e-9) for j, o in enumerate(self.options) if o.buyable}
        for j in sorted(worth, key=lambda j: -worth[j]):
            while worth[j] > 0 and within_limits(self.options, _changed(fleet, j, 1), most):
                fleet = _changed(fleet, j, 1)
        return fleet

    def _capacity(self, j: int) -> float:
        """How much of the demand one instance of option j can do at best."""
        busy = self.efficiency.busy[:, j].min(axis=1)
        done = busy < math.inf
        return float(done.mean() / max(float((self.work.rate * busy)[done].sum()), 1e-12)) if done.any() else 0.0

    def _left(self) -> float:
        """Seconds left, at least one."""
        return max(self.question.seconds - (time.perf_counter() - self._started), 1.0)

    def _going(self) -> bool:
        spent = time.perf_counter() - self._started
        return len(self.rounds) < self.question.rounds and spent < self.question.seconds

    def _answer(self, fleet: Fleet, bound: float, first: Solution) -> Plan:
        removals = []
        for j, option in enumerate(self.options):
            if fleet[j] > option.owned:
                less = _changed(fleet, j, -1)
                removals.append(Removal(j, less, self.prover.verdict(less, self.question.target, self.factor)))
        verdict = self.prover.exactly(fleet, self.prover.seeds, self.factor)
        return Plan(
            fleet, self.cost(fleet), bound, verdict, tuple(removals), tuple(self.rounds), first,
            self.prover.simulations, time.perf_counter() - self._started,
        )  # fmt: skip


def _below(cost: float) -> float:
    """Money an hour that is clearly less, beyond a solver's tolerance."""
    return cost - max(1e-4, 1e-5 * cost)


def _changed(fleet: Fleet, j: int, by: int) -> Fleet:
    return (*fleet[:j], fleet[j] + by, *fleet[j + 1 :])
