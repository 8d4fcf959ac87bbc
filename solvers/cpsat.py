"""The whole epoch problem as a constraint program: intervals on instances, solved to proof by CP-SAT.

CP-SAT counts in whole numbers. Times become ticks, costs become units, and everything is rounded to the plan's
advantage: durations, releases and tails down, due times up, costs down, KV capacity up. Shorter calls dispatched in the
same order never start later, so each plan costs at most as much in ticks and units as it truly does: any lower bound of
the rounded problem bounds the true one. What is left is the rounding of floats
(:func:`hexopt.solvers.cpsat_rounding.dust`).

In a best plan's schedule a stage starts now, at its release, or when another call ends. Saying so keeps such a plan,
and lets the solver search over which call that is rather than over millions of ticks; proofs are many times faster for
it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.cpsat_rounding import FINEST, Rounded, Whole, alone, dust, proved, rounded_problem
from hexopt.solvers.extras import extra
from hexopt.solvers.insertion import greedy
from hexopt.solvers.judge import evaluate
from hexopt.solvers.kernels import arrays_of, schedule
from hexopt.solvers.plan import HELD, Plan
from hexopt.solvers.problem import EpochProblem, ProblemError

_MOST_CAUSES = 8_000
"""Above which the model does not say which call's end starts which: there is no proof to hope for."""


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
    MissingExtraError
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
    cp_model = extra("ortools.sat.python.cp_model")
    first = warm_start or greedy(problem)
    least = evaluate(problem, first.instance, first.order).objective
    started = time.perf_counter()
    usable = _obeys(first.instance, together, apart)
    best = (first.instance, first.order) if usable else None
    rounded = rounded_problem(problem, resolution, least if usable else math.inf)
    bound, proven = alone(problem, rounded), False
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
            bound = max(bound, proved(rounded, solver.best_objective_bound))
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            found = model.decode(solver)
            objective = evaluate(problem, *found).objective
            if best is None or objective < least:
                best, least = found, objective
    if best is None:
        raise TimeoutError(f"no plan that obeys together and apart was found in {time_limit:g} s")
    if bound > least:
        # The solver denies a plan that there is: nothing that it says can be believed.
        bound, proven = alone(problem, rounded), False
    optimal = proven and least - bound <= rounded.slack + 2.0 * dust(rounded, least)
    return Plan(
        *best, least, bound, "cp-sat", time.perf_counter() - started, status="optimal" if optimal else "feasible"
    )


def _check(time_limit: float, resolution: float, workers: int) -> None:
    if not time_limit > 0.0:
        raise ProblemError(f"time_limit is {time_limit}, expected more than 0")
    if not FINEST <= resolution < math.inf:
        raise ProblemError(f"resolution is {resolution}, expected at least {FINEST:g}")
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


class _Model:
    """The constraint program; each variable comes with its value in the plan that is there already."""

    def __init__(
        self, cp_model: Any, problem: EpochProblem, rounded: Rounded, together: list[Any], apart: list[Any]
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
            release=rounded.release.astype(float), kv=rounded.kv.astype(float),
            kv_capacity=rounded.kv_capacity.astype(float), busy_kv=rounded.busy_kv[order].astype(float),
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
        variables, factors, earliest = [start], [1], [0]
        for i in np.flatnonzero(self.problem.feasible[r]).tolist():
            chosen = self._new(0, 1, where == i, z.end[r] * z.service[r, i] + z.linear[r, i])
            self.on[r, i] = chosen
            variables.append(chosen)
            factors.append(int(z.service[r, i]))
            earliest.append(int(z.earliest[r, i]))
        if np.isfinite(self.problem.hold[r]):
            held = self._new(0, 1, where == HELD, z.end[r] * z.hold[r])
            variables.append(held)
            factors.append(int(z.hold[r]))
            earliest.append(0)
            self.model.add(start == 0).only_enforce_if(held)
        self.model.add_exactly_one(variables[1:])
        self.model.add(start >= self.sum(variables[1:], earliest[1:]))
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
        """Stage ``r`` starts now, at its release, or when a running call or another stage on its instance ends."""
        p, z, start = self.problem, self.rounded, self.start[r]
        everywhere, earliest = [], []
        for i in np.flatnonzero(p.feasible[r]).tolist():
            now = self._hinted(start) if self._hinted(self.on[r, i]) else -1
            causes = []
            for end in np.unique(np.append(z.until[p.busy_instance == i], z.release[r])).tolist():
                if end >= z.earliest[r, i]:
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
                earliest.append(max(int(z.earliest[r, i]), int(z.earliest[s, i]) + takes))
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
