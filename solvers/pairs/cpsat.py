"""Pairs as a constraint program: prefills that do not overlap, decodes within their memory, solved by CP-SAT.

The program is a relaxation: a decode instance may keep room idle for a call that is yet to come, which the instances'
waiting queues never do, and a call's place among the prefills says nothing about its place among the decodes. Its bound
holds for every plan; its solution becomes a plan whose cost the judge finds. Where both coincide, the plan is optimal.
Numbers are rounded to the plan's advantage, see :mod:`hexopt.solvers.pairs.rounding`.

In a schedule where nothing can be earlier a prefill starts when its instance is free, at its release, or when another
one ends there; a decode when its KV cache arrives or when another one ends there. Some best schedule is like that, and
saying so lets the solver search over which call that is rather than over millions of ticks.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.solvers.extras import extra
from hexopt.solvers.pairs.annealing import anneal_pairs
from hexopt.solvers.pairs.bounds import alone_bound
from hexopt.solvers.pairs.judge import objective_of
from hexopt.solvers.pairs.kernels import arrays_of
from hexopt.solvers.pairs.plan import PairPlan
from hexopt.solvers.pairs.problem import PairProblem
from hexopt.solvers.pairs.rounding import RoundedPairs, Whole, dust, proved, rounded_pairs
from hexopt.solvers.plan import HELD
from hexopt.solvers.problem import ProblemError

_POLISH = 300
"""Annealing moves before, and from a plan that was found: the program's schedule and the judge's may differ."""

_MOST_CAUSES = 8_000
"""Above which the model does not say which call's end starts which: there is no proof to hope for."""


def cpsat_pairs(
    problem: PairProblem,
    *,
    time_limit: float = 10.0,
    warm_start: PairPlan | None = None,
    resolution: float = 1e-6,
    workers: int = 2,
) -> PairPlan:
    """Solve to proof, or as far as ``time_limit`` allows.

    The plan is never worse than ``warm_start``. It is ``optimal`` if its cost is no more above the bound than rounding
    explains.

    Parameters
    ----------
    time_limit
        Seconds, building the model included; importing OR-Tools and compiling the judge are not.
    warm_start
        Where to start; greedy insertion's plan by default. A few moves of annealing improve either.
    resolution
        Seconds of a tick, at least 1e-8; longer where all times are multiples of a longer one.
    workers
        Threads.

    Raises
    ------
    MissingExtraError
        Without OR-Tools.
    ProblemError
        If an argument is none.
    """
    if not time_limit > 0.0:
        raise ProblemError(f"time_limit is {time_limit}, expected more than 0")
    if not 1e-8 <= resolution < math.inf:
        raise ProblemError(f"resolution is {resolution}, expected at least 1e-08")
    if workers < 1:
        raise ProblemError(f"workers is {workers}, expected at least 1")
    cp_model = extra("ortools.sat.python.cp_model")
    a = arrays_of(problem)
    best = anneal_pairs(problem, time_limit=None, moves=_POLISH, warm_start=warm_start)
    least = best.objective
    started = time.perf_counter()
    z = rounded_pairs(problem, resolution, least)
    bound = alone_bound(problem)
    model = _Model(cp_model, problem, z)
    if bound < least and model.build(best, started + time_limit / 2.0):
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = workers
        solver.parameters.linearization_level = 2
        # That part of the presolve of OR-Tools 9.15 cuts off best plans and then calls others optimal.
        solver.parameters.presolve_inclusion_work_limit = 0
        # Large models are slow to read in and to give up as well, which the solver does not count.
        left = started + time_limit - time.perf_counter()
        solver.parameters.max_time_in_seconds = max(1e-3, left - 0.4 * (time_limit - left))
        status = solver.solve(model.model)
        if status == cp_model.MODEL_INVALID:
            raise RuntimeError(f"CP-SAT refuses the model: {model.model.validate()}")
        if status != cp_model.INFEASIBLE:
            bound = max(bound, proved(z, solver.best_objective_bound))
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            found = model.decoded(solver)
            objective = objective_of(problem, a, found)
            if objective > bound + z.slack + 2.0 * dust(z, objective):
                found = anneal_pairs(problem, time_limit=None, moves=_POLISH, warm_start=found)
                objective = objective_of(problem, a, found)
            if objective < least:
                best, least = found, objective
    if bound > least + dust(z, least):
        # The solver denies a plan that there is: nothing that it says can be believed.
        bound = alone_bound(problem)
    bound = min(bound, least)
    optimal = least - bound <= z.slack + 2.0 * dust(z, least)
    return PairPlan(
        best.prefill, best.decode, best.order, least, bound, "cp-sat", time.perf_counter() - started,
        "optimal" if optimal else "feasible",
    )  # fmt: skip


class _Model:
    """The constraint program; each variable comes with its value in the plan that is there already."""

    def __init__(self, cp_model: Any, problem: PairProblem, z: RoundedPairs) -> None:
        self.problem: Any = problem
        self.z = z
        self.model = cp_model.CpModel()
        self.sum = cp_model.LinearExpr.weighted_sum
        self.begin: dict[int, Any] = {}
        self.start: dict[int, Any] = {}
        self.on_prefill: dict[tuple[int, int], Any] = {}
        self.on_decode: dict[tuple[int, int], Any] = {}
        self.pair: dict[tuple[int, int, int], Any] = {}
        self.terms: list[Any] = []
        self.prices: list[int] = []

    def build(self, first: PairPlan, deadline: float) -> bool:
        """Write the model, with ``first`` as its hint; false if the deadline comes first."""
        begin, start = self._schedule(first)
        ends = {}
        for r in range(self.problem.calls):
            if time.perf_counter() > deadline:
                return False
            ends[r] = self._call(r, int(first.prefill[r]), int(first.decode[r]), int(begin[r]), int(start[r]))
        for i in range(self.problem.prefills):
            self._serial(i)
        for j in range(self.problem.decodes):
            self._memory(j)
        if (len(self.on_prefill) + len(self.on_decode)) * self.problem.calls <= _MOST_CAUSES:
            for r in range(self.problem.calls):
                if time.perf_counter() > deadline:
                    return False
                self._causes(r)
        self._lateness(ends)
        self.model.minimize(self.sum(self.terms, self.prices))
        return time.perf_counter() < deadline

    def decoded(self, solver: Any) -> PairPlan:
        """The solution as a plan."""
        n = self.problem.calls
        prefill, decode = np.full(n, HELD), np.full(n, HELD)
        begin, ready, start = np.full(n, -1.0), np.zeros(n), np.zeros(n)
        for where, on in ((prefill, self.on_prefill), (decode, self.on_decode)):
            for (r, k), chosen in on.items():
                if solver.boolean_value(chosen):
                    where[r] = k
        for r in range(n):
            if decode[r] == HELD:
                continue
            start[r] = solver.value(self.start[r])
            ready[r] = self.z.arrival[r, max(prefill[r], 0), decode[r]]
            if prefill[r] != HELD:
                begin[r] = solver.value(self.begin[r])
                ready[r] += begin[r]
        return PairPlan(prefill, decode, order_of(prefill, decode, begin, ready, start))

    def _schedule(self, first: PairPlan) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ticks at which the calls of a plan start to prefill and to decode."""
        z, a = self.z, arrays_of(self.problem)
        order = np.lexsort((self.problem.busy_until, self.problem.busy_instance))
        # Nothing is infinite in ticks, and no pair of the plan is impossible.
        a = a._replace(
            prefill=_read_only(z.prefill), decode=_read_only(z.decode), arrival=z.arrival.astype(float),
            release=_read_only(z.release), prefill_free=_read_only(z.free),
            hold=_read_only(z.hold), busy_until=z.until[order].astype(float),
        )  # fmt: skip
        objective_of(self.problem, a, first)
        return a.begin, a.start

    def _new(self, low: int, high: int, hinted: int, price: int) -> Any:
        variable = self.model.new_int_var(int(low), int(high), "")
        self.model.add_hint(variable, min(max(int(hinted), int(low)), int(high)))
        if price:
            self.terms.append(variable)
            self.prices.append(int(price))
        return variable

    def _call(self, r: int, i0: int, j0: int, begin: int, start: int) -> tuple[list[Any], list[int]]:
        """One call; returns the variables and factors whose sum is its end."""
        p, z = self.problem, self.z
        settled, latest = bool(p.settled[r]), int(z.latest[r])
        decodes = np.flatnonzero(p.possible[r].any(axis=0)).tolist()
        self.start[r] = self._new(0, latest, start if j0 >= 0 else 0, z.end[r])
        variables, factors = [self.start[r]], [1]
        for j in decodes:
            price = z.end[r] * z.decode[r, j] + z.imposed[r, j]
            self.on_decode[r, j] = self._new(0, 1, j == j0, price)
            variables.append(self.on_decode[r, j])
            factors.append(int(z.decode[r, j]))
        held = []
        if np.isfinite(p.hold[r]):
            held = [self._new(0, 1, j0 == HELD, z.end[r] * z.hold[r])]
            factors.append(int(z.hold[r]))
            self.model.add(self.start[r] == 0).only_enforce_if(held[0])
        self.model.add_exactly_one(variables[1:] + held)
        if settled:
            here = [self.on_decode[r, j] for j in decodes]
            earliest = [int(max(z.arrival[r, 0, j], z.room[r, j])) for j in decodes]
            self.model.add(self.start[r] >= self.sum(here, earliest))
            return variables + held, factors
        pairs = {
            (i, j): self._new(0, 1, (i, j) == (i0, j0), 0) for i, j in zip(*np.nonzero(p.possible[r]), strict=True)
        }
        self.pair.update({(r, int(i), int(j)): pair for (i, j), pair in pairs.items()})
        for i in sorted({i for i, _ in pairs}):
            self.on_prefill[r, int(i)] = chosen = self._new(0, 1, i == i0, 0)
            self.model.add(sum(pair for (k, _), pair in pairs.items() if k == i) == chosen)
        for j in decodes:
            self.model.add(sum(pair for (_, k), pair in pairs.items() if k == j) == self.on_decode[r, j])
        self.begin[r] = self._new(0, latest, begin if j0 >= 0 else 0, 0)
        here = list(pairs.values())
        if here:
            earliest = np.maximum(z.free, z.release[r])
            takes = [int(z.arrival[r, i, j]) for i, j in pairs]
            soonest = [int(max(earliest[i] + z.arrival[r, i, j], z.room[r, j])) for i, j in pairs]
            self.model.add(self.start[r] >= self.begin[r] + self.sum(here, takes))
            self.model.add(self.start[r] >= self.sum(here, soonest))
            self.model.add(self.begin[r] >= self.sum(here, [int(earliest[i]) for i, _ in pairs]))
        if held:
            self.model.add(self.begin[r] == 0).only_enforce_if(held[0])
        return variables + held, factors

    def _causes(self, r: int) -> None:
        """What call ``r``'s prefill and decode start at: see the module."""
        p, z = self.problem, self.z
        for i in [i for (s, i) in self.on_prefill if s == r]:
            first = self.model.new_bool_var("")
            self.model.add(self.begin[r] == int(max(z.free[i], z.release[r]))).only_enforce_if(first)
            causes = [first, *self._ends(r, i, self.on_prefill, self.begin, self.begin[r], z.prefill)]
            self.model.add(sum(causes) == self.on_prefill[r, i])
        for j in [j for (s, j) in self.on_decode if s == r]:
            arrived, causes = self.model.new_bool_var(""), []
            if p.settled[r]:
                self.model.add(self.start[r] == int(z.arrival[r, 0, j])).only_enforce_if(arrived)
            else:
                for i in [i for (s, i, k) in self.pair if s == r and k == j]:
                    self.model.add(self.start[r] == self.begin[r] + int(z.arrival[r, i, j])).only_enforce_if(
                        arrived, self.pair[r, i, j]
                    )
            for end in np.unique(z.until[p.busy_instance == j]).tolist():
                if end >= z.room[r, j]:
                    causes.append(self.model.new_bool_var(""))
                    self.model.add(self.start[r] == end).only_enforce_if(causes[-1])
            causes += [arrived, *self._ends(r, j, self.on_decode, self.start, self.start[r], z.decode)]
            self.model.add(sum(causes) == self.on_decode[r, j])

    def _ends(self, r: int, k: int, on: Any, starts: Any, start: Any, takes: Whole) -> list[Any]:
        """For each other call that instance ``k`` may have: whether call ``r`` starts when it ends there."""
        causes = []
        for s in [s for (s, m) in on if m == k and s != r]:
            cause = self.model.new_bool_var("")
            self.model.add(start == starts[s] + int(takes[s, k])).only_enforce_if(cause)
            self.model.add_implication(cause, on[s, k])
            causes.append(cause)
        return causes

    def _serial(self, i: int) -> None:
        self.model.add_no_overlap([
            self.model.new_optional_fixed_size_interval_var(self.begin[r], int(self.z.prefill[r, i]), chosen, "")
            for (r, k), chosen in self.on_prefill.items() if k == i
        ])  # fmt: skip

    def _memory(self, j: int) -> None:
        """Seats and tokens of decode instance ``j``; running calls that exceed them leave none."""
        p, z = self.problem, self.z
        mine = [r for r in range(p.calls) if (r, j) in self.on_decode]
        intervals = [
            self.model.new_optional_fixed_size_interval_var(
                self.start[r], int(z.decode[r, j]), self.on_decode[r, j], ""
            )
            for r in mine
        ]
        running = np.flatnonzero(p.busy_instance == j)
        seats, tokens = [1] * len(mine), [int(p.kv[r]) for r in mine]
        previous = 0
        for end in np.unique(z.until[running]).tolist():
            there = running[z.until[running] >= end]
            if end > 0:
                intervals.append(self.model.new_fixed_size_interval_var(previous, end - previous, ""))
                seats.append(min(len(there), int(p.seats[j])))
                tokens.append(min(int(p.busy_kv[there].sum()), int(p.kv_capacity[j])))
            previous = end
        for demands, capacity in ((seats, int(p.seats[j])), (tokens, int(p.kv_capacity[j]))):
            if sum(demands[: len(mine)]) + max(demands[len(mine) :], default=0) > capacity:
                self.model.add_cumulative(intervals, demands, capacity)

    def _lateness(self, ends: dict[int, tuple[list[Any], list[int]]]) -> None:
        """Tardiness, one for all siblings, and the step."""
        p, z = self.problem, self.z
        tardiness = [self._new(0, z.tardiest[w], 0, z.tardy[w]) for w in range(len(p.due))]
        for r, (variables, factors) in ends.items():
            self.model.add(tardiness[p.workflow[r]] >= self.sum(variables, factors) + int(z.over[r]))
        for w in np.flatnonzero((z.late > 0) & (z.tardiest > 0)).tolist():
            late = self._new(0, 1, 0, z.late[w])
            self.model.add(tardiness[w] <= int(z.tardiest[w]) * late)


def order_of(
    prefill: NDArray[np.int64],
    decode: NDArray[np.int64],
    begin: NDArray[np.float64],
    ready: NDArray[np.float64],
    start: NDArray[np.float64],
) -> NDArray[np.int64]:
    """One order for a schedule: that of the prefills, and of the decodes of calls that wait for the same room.

    Where these contradict each other, the prefills are followed.
    """
    n = len(decode)
    ahead: list[set[int]] = [set() for _ in range(n)]
    first: list[set[int]] = [set() for _ in range(n)]
    for r in range(n):
        for s in range(n):
            if r == s or decode[r] == HELD or decode[s] == HELD:
                continue
            if prefill[r] == prefill[s] != HELD and begin[r] < begin[s]:
                first[s].add(r)
            if decode[r] == decode[s] and start[r] < start[s] and ready[s] <= start[r]:
                ahead[s].add(r)
    left, order = set(range(n)), []
    while left:
        free = [r for r in left if not first[r] & left]
        nice = [r for r in free if not ahead[r] & left] or free
        chosen = min(nice, key=lambda r: (start[r] if begin[r] < 0 else begin[r], start[r], r))
        order.append(chosen)
        left.remove(chosen)
    return np.array(order, dtype=np.int64)


def _read_only(array: NDArray[Any]) -> NDArray[np.float64]:
    """As floats of the kind that a problem's arrays are: kernels would be compiled anew for others."""
    result = np.ascontiguousarray(array, dtype=np.float64)
    result.flags.writeable = False
    return result
