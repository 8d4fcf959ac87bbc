"""Lagrangian bound: prices for seat-seconds and KV token-seconds make the stages choose for themselves.

With any prices, what the stages' cheapest options cost, less what the capacity is worth, is at most what any plan
costs; subgradient steps look for prices that make it large. Siblings share their workflow's tardiness and step by
multipliers of their own; congestion and fairness are linearised by theirs (``docs/formulation.md``).
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.judge import evaluate
from hexopt.solvers.kernels import LATE, arrays_of
from hexopt.solvers.plan import HELD, Plan
from hexopt.solvers.problem import EpochProblem
from hexopt.solvers.relaxation import (
    Options,
    Prices,
    Sums,
    choose,
    integrate,
    relaxation_of,
    slopes_of,
    stages_cost,
)

_SAFETY = 1e-9
"""Share of the sum of all costs by which a bound is lowered, for the rounding of its sums."""
_FIRST, _PATIENCE, _SHORTER, _PROGRESS = 0.5, 5, 0.7, 0.03
"""Length of the first step against Polyak's; steps become shorter when in so many the bound did not come closer to the
target by this share."""
_MEMORY = 0.5
"""Share of the last direction that the next one keeps: plain subgradients zigzag."""
_SHORTEST = 1e-3
_FINEST = 384
"""Buckets beyond which nothing is refined."""


def lower_bound(
    problem: EpochProblem,
    plan: Plan,
    *,
    time_limit: float | None = 0.02,
    iterations: int | None = None,
    buckets: int = 24,
    gap: float = 0.0,
) -> float:
    """A number that no plan's objective is below.

    Parameters
    ----------
    plan
        A good plan: first prices come from it, and steps aim at its objective.
    time_limit
        Seconds; None for no limit in time.
    iterations
        Subgradient steps; with ``time_limit`` None the result depends on nothing else.
    buckets
        Of time, at first; they are halved whenever steps no longer help.
    gap
        Stop when the plan is proven to be within this share of the optimum.
    """
    search = Lagrangian(problem, plan, buckets)
    search.ascend(plan.objective, time_limit=time_limit, iterations=iterations, gap=gap)
    return search.bound


class Lagrangian:
    """A search for prices; ``bound`` is the best bound so far, ``prices`` are those that gave it.

    Parameters
    ----------
    plan
        A good plan.
    buckets
        Of time, from now to the plan's end.
    """

    def __init__(self, problem: EpochProblem, plan: Plan, buckets: int) -> None:
        self.problem = problem
        self.arrays = arrays_of(problem)
        found = evaluate(problem, plan.instance, plan.order)
        ends = found.completion[np.isfinite(found.completion)]
        self._horizon = float(ends.max(initial=1e-3))
        first = _first_prices(problem, self._horizon / buckets, buckets, plan, found.completion, found.tardiness)
        self._prepare(buckets, first)
        n = problem.stages
        self._options = Options(np.full(n, HELD, dtype=np.int64), np.zeros(n), np.zeros(n))
        self.bound = -math.inf

    def ascend(
        self, target: float, *, time_limit: float | None = None, iterations: int | None = None, gap: float = 0.0
    ) -> None:
        """Take steps towards ``target``, an upper bound, until a limit or the gap is reached."""
        if time_limit is None and iterations is None:
            raise ValueError("time_limit or iterations must be given")
        started = time.perf_counter()
        length, since, done, longest = _FIRST, 0, 0, 0.0
        reference, before = -math.inf, None
        while iterations is None or done < iterations:
            begun = time.perf_counter()
            if time_limit is not None and begun - started + longest > time_limit and done > 0:
                break
            value = self._value()
            if value > self.bound:
                self.bound = value
                _write(self._now, self.prices)
            done += 1
            if target - self.bound <= gap * abs(target):
                break
            since += 1
            if self.bound > reference + _PROGRESS * (target - self.bound):
                reference, since = self.bound, 0
            elif since >= _PATIENCE:
                length, reference, since = length * _SHORTER, self.bound, 0
            if length < _SHORTEST:
                if self.buckets >= _FINEST:
                    break
                self.refine()
                length, before = _SHORTER**4, None
                continue
            slopes_of(self.arrays, self.relaxation, self._now, self._options, self._slope)
            if before is not None:
                for now, last in zip(self._slope, before, strict=True):
                    now += _MEMORY * last
            before = _copy(self._slope)
            self._steps.take(self._now, self._slope, length * (target - value))
            longest = max(longest, time.perf_counter() - begun)

    def refine(self) -> None:
        """Halve the buckets; the best prices stay, and so does the bound."""
        old = self.prices
        self._prepare(2 * self.buckets, old._replace(seat=old.seat.repeat(2, 1), token=old.token.repeat(2, 1)))

    def _prepare(self, buckets: int, prices: Prices) -> None:
        self.buckets = buckets
        self.relaxation = relaxation_of(self.problem, self.arrays, self._horizon, buckets)
        self._now, self.prices, self._slope = prices, _copy(prices), _copy(prices)
        shape = (self.problem.instances, buckets + 1)
        self._sums = Sums(np.zeros(shape), np.zeros(shape))
        self._steps = _Steps(self.problem, self.relaxation.width)

    def _value(self) -> float:
        """The bound that the prices of now give."""
        integrate(self.relaxation, self._now, self._sums)
        value = choose(self.arrays, self.relaxation, self._now, self._sums, self._options)
        size = float(np.abs(self._options.cost[np.isfinite(self._options.cost)]).sum())
        return value - _SAFETY * (size + abs(value))

    def regrets(self, i: int, t: float) -> NDArray[np.float64]:
        """By how much the bound would grow if a stage had to start on instance ``i`` at ``t``, shape (n,).

        Infinite where it cannot. If bound and regret together exceed a known plan's objective, no better plan does so.
        """
        cost = np.full(self.problem.stages, np.inf)
        stages_cost(self.arrays, self.relaxation, self._now, self._sums, i, t, cost)
        return cost - np.where(np.isfinite(self._options.cost), self._options.cost, 0.0)

    def settle(self) -> None:
        """Go back to the best prices, for :meth:`regrets`."""
        _write(self.prices, self._now)
        self._value()


class _Steps:
    """Subgradient steps (Polyak's length), each kind of price in units in which steps of all kinds are alike."""

    def __init__(self, problem: EpochProblem, width: float) -> None:
        p: Any = problem
        self._width = width
        self._tokens = (np.maximum(p.kv_capacity, 1e-12) / p.seats)[:, None]
        self._steepness = np.maximum(p.slopes * problem.weights.congestion, 1e-12)
        self._workflow = p.workflow
        self._siblings = np.maximum(np.bincount(p.workflow, minlength=p.due.shape[0]), 1)

    def take(self, now: Prices, slope: Prices, aim: float) -> None:
        """Change ``now`` so that the bound would rise by ``aim`` were it linear."""
        seat = np.where((now.seat <= 0.0) & (slope.seat < 0.0), 0.0, slope.seat)
        token = np.where((now.token <= 0.0) & (slope.token < 0.0), 0.0, slope.token) / self._tokens
        inside = ((now.over > 0.0) | (slope.over > 0.0)) & ((now.over < 1.0) | (slope.over < 0.0))
        over = np.where(inside, slope.over, 0.0) * self._steepness
        tardy = slope.tardy - self._mean(slope.tardy)
        late = slope.late - self._mean(slope.late)
        tenant = slope.tenant - slope.tenant.mean()
        # A bucket's use grows with its width, and one token of many weighs little.
        by_time, by_token, by_share = 1.0 / self._width, 0.2 / self._width, 0.5
        size = by_time * float((seat**2).sum()) + by_token * float((token**2).sum()) + float((over**2).sum())
        size += by_share * float((tardy**2).sum() + (late**2).sum() + (tenant**2).sum())
        if size <= 0.0:
            return
        step = aim / size
        np.maximum(now.seat + step * by_time * seat, 0.0, out=now.seat)
        np.maximum(now.token + step * by_token * token / self._tokens, 0.0, out=now.token)
        np.clip(now.over + step * over, 0.0, 1.0, out=now.over)
        now.tardy[:] = self._shares(now.tardy + step * by_share * tardy)
        now.late[:] = self._shares(now.late + step * by_share * late)
        now.tenant[:] = _at_most_one(now.tenant + step * by_share * tenant)

    def _mean(self, of: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(self._workflow, of, minlength=self._siblings.shape[0])
        result: NDArray[np.float64] = (sums / self._siblings)[self._workflow]
        return result

    def _shares(self, wanted: NDArray[np.float64]) -> NDArray[np.float64]:
        """The shares scaled so that siblings' sum is at most 1."""
        wanted = np.maximum(wanted, 0.0)
        sums = np.bincount(self._workflow, wanted, minlength=self._siblings.shape[0])
        result: NDArray[np.float64] = wanted / (np.maximum(sums, 1.0) * (1.0 + 1e-15))[self._workflow]
        return result


def _at_most_one(wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    wanted = np.maximum(wanted, 0.0)
    result: NDArray[np.float64] = wanted / (max(float(wanted.sum()), 1.0) * (1.0 + 1e-15))
    return result


def _write(prices: Prices, to: Prices) -> None:
    for field, old in zip(prices, to, strict=True):
        old[...] = field


def _copy(prices: Prices) -> Prices:
    return Prices(*(field.copy() for field in prices))


def _first_prices(
    problem: EpochProblem,
    width: float,
    buckets: int,
    plan: Plan,
    completion: NDArray[np.float64],
    tardiness: NDArray[np.float64],
) -> Prices:
    """Prices under which the plan would be almost the stages' own choice.

    A stage that starts at t minimises its cost plus the price of [t, t + p] only if the price falls by its cost's slope
    over that time; so the price at a moment would be the sum of the slopes of the stages yet to run, over the seats.
    Half of it is taken: a first bound that is far too low makes first steps that are far too long.
    """
    p: Any = problem
    weights = problem.weights
    w = p.workflow
    late = completion + p.tail - p.due[w]
    critical = (late > LATE) & (late >= tardiness[w] - 1e-9)
    count = np.bincount(w, critical, minlength=p.due.shape[0])[w]
    siblings = np.bincount(w, minlength=p.due.shape[0])[w]
    share = np.where(count > 0, critical / np.maximum(count, 1), 1.0 / siblings)
    slope = p.weight[w] * (weights.completion + np.where(late > LATE, weights.tardiness * share, 0.0))
    seat = np.zeros((problem.instances, buckets))
    load = p.backlog.copy()
    middle = (np.arange(buckets) + 0.5) * width
    for r in np.flatnonzero(plan.instance != HELD):
        i = plan.instance[r]
        left = np.clip((completion[r] - middle) / p.service[r, i], 0.0, 1.0)
        left[middle < p.release[r]] = 0.0
        seat[i] += 0.5 * slope[r] / p.seats[i] * left
        load[i] += p.load[r, i]
    k = p.share.shape[0]
    return Prices(
        seat=seat,
        token=np.zeros_like(seat),
        tardy=share.copy(),
        late=share.copy(),
        over=(load[:, None] > p.knots).astype(np.float64),
        tenant=np.full(k, 1.0 / k),
    )
