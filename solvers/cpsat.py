"""The whole epoch problem as a constraint program: intervals on instances, solved to proof by CP-SAT.

CP-SAT counts in whole numbers. Times become ticks, costs become units, and everything is rounded to the plan's
advantage: durations and tails down, due times up, costs down, KV capacity up. Shorter calls dispatched in the same
order never start later, so each plan costs at most as much in ticks and units as it truly does: any lower bound of the
rounded problem bounds the true one. What is left is the rounding of floats (:func:`_dust`).

In a plan's schedule a stage starts now or when another call ends. Saying so cuts no plan off, and lets the solver
search over which call that is rather than over millions of ticks; proofs are many times faster for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hexopt.solvers.insertion import greedy
from hexopt.solvers.judge import evaluate
from hexopt.solvers.kernels import arrays_of, schedule
from hexopt.solvers.plan import HELD, Plan
from hexopt.solvers.problem import EpochProblem, ProblemError

_EPS = 8.0 * float(np.finfo(float).eps)
_FINEST = 1e-8
"""Seconds; a finer tick could not be told from ``LATE``."""
_MOST_TICKS = 2.0**40
_MOST_UNITS = 2.0**58
"""Of the objective, so that sums stay within 64 bits."""
_LOSS = 1e-9
"""Share of the objective that rounding costs may take, if the units suffice."""
_TOKEN = 1e-3
"""Fraction to which KV tokens are told apart where they are not whole."""
_MOST_CAUSES = 8_000
"""Above which the model does not say which call's end starts which: there is no proof to hope for."""
_STEPS = (1.0, 0.5, 0.25, 0.1, 0.05, 0.025, 0.01, 0.005, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
_COSTS = ("end", "tardy", "unfair", "late", "linear", "load", "above")
Whole = NDArray[np.int64]


def cpsat(
    problem: EpochProblem,
    *,
    time_limit: float = 10.0,
    warm_start: Plan | None = None,
    resolution: float = 1e-6,
    workers: int = 2,
    together: Sequence[tuple[int, int]] = (),
    apart: Sequence[tuple[int, int]] = (),
) -> Plan:
    """Solve to proof, or as far as ``time_limit`` allows.

    The plan is never worse than ``warm_start``, unless that breaks ``together`` or ``apart``. It is ``optimal`` if the
    rounded problem is solved and the plan costs no more above it than rounding explains.

    Parameters
    ----------
    time_limit
        Seconds, building the model included; importing OR-Tools and compiling the judge, which may each take seconds
        the first time, are not.
    warm_start
        Where to start; greedy insertion's plan by default.
    resolution
        Seconds of a tick, at least 1e-8. Ticks are longer where all times are multiples of a longer one, or where the
        times are too long for it.
    workers
        Threads.
    together, apart
        Pairs of stages that must share an instance (or both be held); that must not.

    Raises
    ------
    ImportError
        Without OR-Tools.
    ProblemError
        If an argument is none, a pair names no two stages that have a place, or no plan obeys the pairs.
    TimeoutError
        If the time is up, ``warm_start`` breaks a pair, and no plan that obeys them was found.
    """
    _check(time_limit, resolution, workers)
    homeless = set(problem.homeless.tolist())
    together = _pairs("together", together, problem.stages, homeless)
    apart = _pairs("apart", apart, problem.stages, homeless)
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise ImportError("cpsat needs OR-Tools: pip install 'hexopt[exact]'") from error
    first = warm_start or greedy(problem)
    least = evaluate(problem, first.instance, first.order).objective
    started = time.perf_counter()
    usable = _obeys(first.instance, together, apart)
    best = (first.instance, first.order) if usable else None
    rounded = _rounded(problem, resolution, least if usable else math.inf)
    bound, proven = _alone(problem, rounded), False
    model = _Model(cp_model, problem, rounded, together, apart)
    if model.build(first, started + time_limit / 2.0):
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = workers
        solver.parameters.linearization_level = 2
        # Probing each of so many choices takes longer than the search that it saves.
        solver.parameters.cp_model_probing_level = 0
        # That part of the presolve of OR-Tools 9.15 cuts off best plans and then calls others optimal.
        solver.parameters.presolve_inclusion_work_limit = 0
        # Large models are slow to read in and to give up as well, which the solver does not count.
        left = started + time_limit - time.perf_counter()
        solver.parameters.max_time_in_seconds = left - 0.4 * (time_limit - left)
        status = solver.solve(model.model)
        if status == cp_model.MODEL_INVALID:
            raise RuntimeError(f"CP-SAT refuses the model: {model.model.validate()}")
        if status == cp_model.INFEASIBLE and best is None:
            raise ProblemError("together, apart: no plan obeys them")
        proven = status == cp_model.OPTIMAL
        if status != cp_model.INFEASIBLE:
            bound = max(bound, _proved(rounded, solver.best_objective_bound))
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            found = model.decode(solver)
            objective = evaluate(problem, *found).objective
            if best is None or objective < least:
                best, least = found, objective
    if best is None:
        raise TimeoutError(f"no plan that obeys together and apart was found in {time_limit:g} s")
    if bound > least:
        # The solver denies a plan that there is: nothing that it says can be believed.
        bound, proven = _alone(problem, rounded), False
    optimal = proven and least - bound <= rounded.slack + 2.0 * _dust(rounded, least)
    return Plan(
        *best, least, bound, "cpsat", time.perf_counter() - started, status="optimal" if optimal else "feasible"
    )


def _check(time_limit: float, resolution: float, workers: int) -> None:
    if not time_limit > 0.0:
        raise ProblemError(f"time_limit is {time_limit}, expected more than 0")
    if not _FINEST <= resolution < math.inf:
        raise ProblemError(f"resolution is {resolution}, expected at least {_FINEST:g}")
    if workers < 1:
        raise ProblemError(f"workers is {workers}, expected at least 1")


def _pairs(name: str, pairs: Sequence[tuple[int, int]], n: int, homeless: set[int]) -> list[tuple[int, int]]:
    result = []
    for k, (one, two) in enumerate(pairs):
        if one == two or not all(r == int(r) and 0 <= r < n for r in (one, two)):
            raise ProblemError(f"{name}[{k}] is ({one}, {two}), expected two stages from 0 to {n - 1}")
        for r in homeless.intersection((one, two)):
            raise ProblemError(f"{name}[{k}] names stage {r}, which fits nowhere")
        result.append((int(one), int(two)))
    return result


def _obeys(instance: Whole, together: list[tuple[int, int]], apart: list[tuple[int, int]]) -> bool:
    return all(instance[r] == instance[s] for r, s in together) and all(
        instance[r] != instance[s] or instance[r] == HELD for r, s in apart
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Rounded:
    """The problem in ticks and units.

    Parameters
    ----------
    step, scale
        Seconds a tick, units a unit of cost.
    service, release
        Ticks that each stage takes, and before which the running calls leave it no room; shape (n, m).
    until, over, hold
        Ticks of ``busy_until``, ``tail - due`` and ``hold`` (0 for infinite).
    kv, kv_capacity, busy_kv
        Tokens, or fractions of them.
    latest, tardiest
        What no start, shape (n,), and no tardiness, shape (q,), exceeds in some best plan.
    end, tardy, unfair, late, linear, load, above
        Units for each tick of a stage, of a workflow, of a workflow for his tenant; for a late workflow; for a stage on
        an instance; for its share in an overload, shape (n, m, j), and the overload that is there, shape (m, j).
    slack
        Cost by which rounding may separate the true cost of the rounded problem's best plan from its bound.
    rate, span
        Most that a second costs if all times are longer by it, and the longest time: what :func:`_dust` needs.
    """

    step: float
    scale: float
    service: Whole
    release: Whole
    until: Whole
    over: Whole
    hold: Whole
    kv: Whole
    kv_capacity: Whole
    busy_kv: Whole
    latest: Whole
    tardiest: Whole
    end: Whole
    tardy: Whole
    unfair: Whole
    late: Whole
    linear: Whole
    load: Whole
    above: Whole
    slack: float
    rate: float
    span: float


def _dust(rounded: _Rounded, cost: float) -> float:
    """What the rounding of floats may amount to.

    A completion is a sum of at most n + 1 times, each taken for a whole number of ticks if a few units in the last
    place of a float make it one, and so are costs; the judge's sums and the solver's bound are floats as well.
    """
    return _EPS * (len(rounded.latest) + 4) * (rounded.rate * rounded.span + cost)


def _proved(rounded: _Rounded, units: float) -> float:
    bound = max(0.0, units / rounded.scale)
    return max(0.0, bound - _dust(rounded, bound))


def _alone(problem: EpochProblem, z: _Rounded) -> float:
    """What the stages cost at least if each is alone with the running calls: a bound without solving."""
    can_hold = np.isfinite(np.asarray(problem.hold))
    possible = np.column_stack([problem.feasible, can_hold])
    homed = possible.any(axis=1)
    ends = np.column_stack([z.release + z.service, z.hold]).astype(float)
    costs = z.end[:, None] * ends + np.column_stack([z.linear, np.zeros(problem.stages)])
    earliest = np.where(possible, ends, np.inf).min(axis=1)
    tardiness = np.zeros(len(z.tardy))
    np.maximum.at(tardiness, problem.workflow[homed], earliest[homed] + z.over[homed])
    units = np.where(possible, costs, np.inf).min(axis=1)[homed].sum() + np.maximum(z.above, 0).sum()
    return _proved(z, float(units + (z.tardy * tardiness + z.late * (tardiness > 0.0)).sum()))


def _down(values: ArrayLike, unit: float) -> Whole:
    """How many whole ``unit`` are in each value; as many as make it up but for a float's rounding, if there are."""
    ratio = np.asarray(values, dtype=np.float64) / unit
    nearest = np.rint(ratio)
    result: Whole = np.where(np.abs(ratio - nearest) <= _EPS * np.abs(ratio), nearest, np.floor(ratio)).astype(np.int64)
    return result


def _step(times: NDArray[np.float64], resolution: float) -> tuple[float, bool]:
    """Seconds a tick: the longest of which all times are multiples, else ``resolution``, longer for very long times.

    Also returns whether all times are multiples.
    """
    shortest = max(resolution, float(np.abs(times).sum()) / _MOST_TICKS)
    for step in _STEPS:
        ratio = times / step
        if step >= shortest and (np.abs(ratio - np.rint(ratio)) <= _EPS * np.abs(ratio)).all():
            return step, True
    return shortest, False


def _tokens(p: Any) -> tuple[Whole, Whole, Whole]:
    whole = all((tokens == np.rint(tokens)).all() for tokens in (p.kv, p.busy_kv, p.kv_capacity))
    unit = 1.0 if whole else _TOKEN
    return _down(p.kv, unit), -_down(-p.kv_capacity, unit), _down(p.busy_kv, unit)


def _releases(p: Any, until: Whole, kv: Whole, kv_capacity: Whole, busy_kv: Whole) -> Whole:
    """Ticks before which the running calls alone leave a stage no room."""
    release = np.zeros((p.stages, p.instances), dtype=np.int64)
    for i in range(p.instances):
        mine = np.flatnonzero(p.busy_instance == i)
        for end in np.unique(until[mine])[::-1]:
            there = mine[until[mine] >= end]
            full = np.full(p.stages, len(there) >= p.seats[i]) | (busy_kv[there].sum() + kv > kv_capacity[i])
            release[:, i] = np.where(full, np.maximum(release[:, i], end), release[:, i])
    return release


def _rounded(problem: EpochProblem, resolution: float, most: float) -> _Rounded:
    """Round ``problem``, whose best plan costs at most ``most``."""
    p: Any = problem
    weights = problem.weights
    can_hold = np.isfinite(p.hold)
    service = np.where(problem.feasible, p.service, 0.0)
    times = np.concatenate([service.ravel(), p.tail, p.due, p.busy_until, p.hold[can_hold]])
    step, exact = _step(times, resolution)
    ticks, until = _down(service, step), _down(p.busy_until, step)
    over = _down(p.tail, step) + _down(-p.due, step)[p.workflow]
    hold = _down(np.where(can_hold, p.hold, 0.0), step)
    kv, kv_capacity, busy_kv = _tokens(p)

    # Until then some call runs at every moment at which one waits.
    horizon = ticks.sum(axis=0)
    for i in range(p.instances):
        horizon[i] += until[p.busy_instance == i].max(initial=0)
    latest = np.where(problem.feasible, horizon - ticks, 0).max(axis=1, initial=0)
    longest = np.maximum(np.where(problem.feasible, horizon, 0).max(axis=1, initial=0), hold)
    tardiest = np.zeros(len(p.due), dtype=np.int64)
    np.maximum.at(tardiest, p.workflow, longest + over)
    end = weights.completion * p.weight[p.workflow] * step
    tardy = weights.tardiness * p.weight * step
    latest, tardiest = _affordable(latest, end, most), _affordable(tardiest, tardy, most)

    unfair = weights.fairness * p.weight / p.share[p.tenant] * step
    linear = np.where(problem.feasible, arrays_of(problem).linear[:, :-1], 0.0)
    steep = weights.congestion * p.slopes
    load, above = steep[None] * p.load[:, :, None], steep * (p.backlog[:, None] - p.knots)
    late = weights.late * p.weight
    costs = [end, tardy, unfair, late, linear, load, above]
    counts = [
        latest + np.maximum(ticks.max(axis=1, initial=0), hold),
        tardiest,
        tardiest,
        *(np.ones(1) for _ in range(4)),
    ]
    scale, loss = _scale(costs, counts, step, most)
    rate = float((end.sum() + tardy.sum() + unfair.sum()) / step)
    units = dict(zip(_COSTS, (_down(cost, 1.0 / scale) for cost in costs), strict=True))
    # Dispatched in the same order, the k-th stage starts at most k ticks later than if all is rounded down; its end,
    # its tail and its due time add one each.
    slack = loss + (0.0 if exact else rate * (p.stages + 3) * step)
    return _Rounded(
        step=step, scale=scale, service=ticks, release=_releases(p, until, kv, kv_capacity, busy_kv), until=until,
        over=over, hold=hold, kv=kv, kv_capacity=kv_capacity, busy_kv=busy_kv, latest=latest, tardiest=tardiest,
        slack=slack, rate=rate, span=float(np.abs(times).sum()), **units,
    )  # fmt: skip


def _affordable(ticks: Whole, cost: NDArray[np.float64], most: float) -> Whole:
    """``ticks``, or fewer if they cost more than the best plan."""
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = np.where(cost > 0.0, most / cost, np.inf)
    result: Whole = np.minimum(ticks, np.minimum(np.ceil(limit) + 1.0, 2.0**62)).astype(np.int64)
    return result


def _scale(costs: list[Any], counts: list[Any], step: float, most: float) -> tuple[float, float]:
    """Units a unit of cost, the fewest that lose next to nothing, within what 64 bits hold; and what they lose."""
    total = sum(float((np.abs(cost) * count).sum()) for cost, count in zip(costs, counts, strict=True))
    best = (1.0, total)
    for scale in sorted(digit * 10.0**power / step for digit in (1, 2, 4, 5) for power in range(-12, 16)):
        if scale * total > _MOST_UNITS:
            break
        lost = [cost * scale - _down(cost, 1.0 / scale) for cost in costs]
        loss = sum(float((np.abs(part) * count).sum()) for part, count in zip(lost, counts, strict=True)) / scale
        best = (scale, loss)
        if loss <= _LOSS * min(most, total):
            break
    return best


class _Model:
    """The constraint program; each variable comes with its value in the plan that is there already."""

    def __init__(
        self, cp_model: Any, problem: EpochProblem, rounded: _Rounded, together: list[Any], apart: list[Any]
    ) -> None:
        self.problem: Any = problem
        self.rounded = rounded
        self.together, self.apart = together, apart
        self.model = cp_model.CpModel()
        self.sum = cp_model.LinearExpr.weighted_sum
        self.on: dict[tuple[int, int], Any] = {}
        self.start: dict[int, Any] = {}
        self.values: dict[int, int] = {}
        self.highest: dict[int, int] = {}
        self.terms: list[Any] = []
        self.prices: list[int] = []

    def build(self, first: Plan, deadline: float) -> bool:
        """Write the model, with ``first`` as its hint; false if the deadline comes first."""
        begin = self._schedule(first)
        ends = {}
        for r in range(self.problem.stages):
            if time.perf_counter() > deadline:
                return False
            if r not in self.problem.homeless:
                ends[r] = self._stage(r, int(first.instance[r]), int(begin[r]))
        for i in range(self.problem.instances):
            if time.perf_counter() > deadline:
                return False
            self._capacity(i)
        if len(self.on) * self.problem.stages <= _MOST_CAUSES:
            for r in self.start:
                if time.perf_counter() > deadline:
                    return False
                self._causes(r)
        self._lateness(ends)
        self._congestion()
        self._side_constraints()
        self.model.minimize(self.sum(self.terms, self.prices))
        return time.perf_counter() < deadline

    def decode(self, solver: Any) -> tuple[Whole, Whole]:
        """Instances and order of the solution, shape (n,) each."""
        n = self.problem.stages
        where, start, length = np.full(n, HELD), np.zeros(n), np.zeros(n)
        for (r, i), chosen in self.on.items():
            if solver.boolean_value(chosen):
                where[r], start[r], length[r] = i, solver.value(self.start[r]), self.rounded.service[r, i]
        # A call of no ticks goes ahead of others that start with it: it may need the seat that they take.
        return where, np.lexsort((length, start)).astype(np.int64)

    def _schedule(self, first: Plan) -> NDArray[np.float64]:
        """Ticks at which the stages of a plan start."""
        a, rounded = arrays_of(self.problem), self.rounded
        order = np.lexsort((self.problem.busy_until, self.problem.busy_instance))
        a = a._replace(
            service=rounded.service.astype(float), busy_until=rounded.until[order].astype(float),
            kv=rounded.kv.astype(float), kv_capacity=rounded.kv_capacity.astype(float),
            busy_kv=rounded.busy_kv[order].astype(float),
        )  # fmt: skip
        begin = np.zeros(self.problem.stages)
        for i in range(self.problem.instances):
            mine = first.order[first.instance[first.order] == i].astype(np.int64)
            schedule(a, i, mine, len(mine), begin)
        return begin

    def _new(self, low: int, high: int, hinted: int, price: int) -> Any:
        variable = self.model.new_int_var(int(low), int(high), "")
        self.values[variable.index] = min(max(int(hinted), int(low)), int(high))
        self.highest[variable.index] = int(high)
        self.model.add_hint(variable, self.values[variable.index])
        if price:
            self._pay(variable, price)
        return variable

    def _pay(self, variable: Any, price: int) -> None:
        self.terms.append(variable)
        self.prices.append(int(price))

    def _hinted(self, variable: Any) -> int:
        return self.values[variable.index]

    def _value(self, variables: list[Any], factors: list[int]) -> int:
        return sum(f * self._hinted(v) for v, f in zip(variables, factors, strict=True))

    def _stage(self, r: int, where: int, begin: int) -> tuple[list[Any], list[int]]:
        """One stage; returns the variables and factors whose sum is its end."""
        z = self.rounded
        start = self.start[r] = self._new(0, z.latest[r], begin, z.end[r])
        variables, factors, release = [start], [1], [0]
        for i in np.flatnonzero(self.problem.feasible[r]).tolist():
            chosen = self._new(0, 1, where == i, z.end[r] * z.service[r, i] + z.linear[r, i])
            self.on[r, i] = chosen
            variables.append(chosen)
            factors.append(int(z.service[r, i]))
            release.append(int(z.release[r, i]))
        if np.isfinite(self.problem.hold[r]):
            held = self._new(0, 1, where == HELD, z.end[r] * z.hold[r])
            variables.append(held)
            factors.append(int(z.hold[r]))
            release.append(0)
            self.model.add(start == 0).only_enforce_if(held)
        self.model.add_exactly_one(variables[1:])
        self.model.add(start >= self.sum(variables[1:], release[1:]))
        return variables, factors

    def _capacity(self, i: int) -> None:
        """Seats and tokens of instance ``i``; running calls that exceed them leave none, and more they cannot."""
        p, z = self.problem, self.rounded
        mine = [r for r in range(p.stages) if (r, i) in self.on]
        intervals = [
            self.model.new_optional_fixed_size_interval_var(self.start[r], int(z.service[r, i]), self.on[r, i], "")
            for r in mine
        ]
        running = np.flatnonzero(p.busy_instance == i)
        seats, tokens = [1] * len(mine), [int(z.kv[r]) for r in mine]
        previous = 0
        for end in np.unique(z.until[running]):
            there = running[z.until[running] >= end]
            if end > 0:
                intervals.append(self.model.new_fixed_size_interval_var(previous, int(end) - previous, ""))
                seats.append(min(len(there), int(p.seats[i])))
                tokens.append(min(int(z.busy_kv[there].sum()), int(z.kv_capacity[i])))
            previous = int(end)
        for demands, capacity in ((seats, int(p.seats[i])), (tokens, int(z.kv_capacity[i]))):
            if sum(demands[: len(mine)]) + max(demands[len(mine) :], default=0) > capacity:
                self.model.add_cumulative(intervals, demands, capacity)

    def _causes(self, r: int) -> None:
        """Stage ``r`` starts now, or when a running call or another stage on its instance ends."""
        p, z, start = self.problem, self.rounded, self.start[r]
        everywhere, earliest = [], []
        for i in np.flatnonzero(p.feasible[r]).tolist():
            now = self._hinted(start) if self._hinted(self.on[r, i]) else -1
            causes = []
            for end in np.unique(np.append(z.until[p.busy_instance == i], 0)).tolist():
                if end >= z.release[r, i]:
                    cause = self._new(0, 1, end == now, 0)
                    now = -1 if end == now else now
                    self.model.add(start == end).only_enforce_if(cause)
                    causes.append(cause)
                    earliest.append(end)
            for s in (s for s in self.start if s != r and (s, i) in self.on):
                takes, there = int(z.service[s, i]), self.on[s, i]
                hinted = self._hinted(there) and self._hinted(self.start[s]) + takes == now
                cause = self._new(0, 1, hinted, 0)
                now = -1 if hinted else now
                self.model.add(start == self.start[s] + takes).only_enforce_if(cause)
                self.model.add_implication(cause, there)
                causes.append(cause)
                earliest.append(max(int(z.release[r, i]), int(z.release[s, i]) + takes))
            self.model.add(sum(causes) == self.on[r, i])
            everywhere += causes
        self.model.add(start >= self.sum(everywhere, earliest))

    def _lateness(self, ends: dict[int, tuple[list[Any], list[int]]]) -> None:
        """Tardiness, one for all siblings; lateness; fairness."""
        p, z = self.problem, self.rounded
        q = len(p.due)
        hinted = [0] * q
        for r, end in ends.items():
            hinted[p.workflow[r]] = max(hinted[p.workflow[r]], self._value(*end) + int(z.over[r]))
        tardiness = [self._new(0, z.tardiest[w], hinted[w], z.tardy[w]) for w in range(q)]
        for r, (variables, factors) in ends.items():
            self.model.add(tardiness[p.workflow[r]] >= self.sum(variables, factors) + int(z.over[r]))
        for w in np.flatnonzero((z.late > 0) & (z.tardiest > 0)).tolist():
            late = self._new(0, 1, hinted[w] > 0, z.late[w])
            self.model.add(tardiness[w] <= int(z.tardiest[w]) * late)
        if z.unfair.any():
            self._worst([([tardiness[w] for w in who], [int(z.unfair[w]) for w in who], 0)
                         for who in (np.flatnonzero(p.tenant == t).tolist() for t in range(len(p.share)))])  # fmt: skip

    def _congestion(self) -> None:
        z = self.rounded
        for i, j in np.ndindex(z.above.shape):
            mine = [r for r in range(self.problem.stages) if (r, i) in self.on and z.load[r, i, j] > 0]
            factors = [int(z.load[r, i, j]) for r in mine]
            if sum(factors) + int(z.above[i, j]) > 0:
                self._worst([([self.on[r, i] for r in mine], factors, int(z.above[i, j]))])

    def _worst(self, sums: list[tuple[list[Any], list[int], int]]) -> None:
        """Pay as many units as the largest of the sums, or nothing."""
        high = hinted = 0
        for variables, factors, constant in sums:
            most = sum(f * self.highest[v.index] for v, f in zip(variables, factors, strict=True))
            high = max(high, constant + most)
            hinted = max(hinted, constant + self._value(variables, factors))
        worst = self._new(0, high, hinted, 1)
        for variables, factors, constant in sums:
            self.model.add(worst >= self.sum(variables, factors) + constant)

    def _side_constraints(self) -> None:
        for one, two in self.together:
            for i in range(self.problem.instances):
                self.model.add(self.on.get((one, i), 0) == self.on.get((two, i), 0))
        for one, two in self.apart:
            for i in range(self.problem.instances):
                if (one, i) in self.on and (two, i) in self.on:
                    self.model.add_at_most_one(self.on[one, i], self.on[two, i])
