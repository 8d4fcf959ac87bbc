"""QLM's virtual queues of request groups (A. Patke et al., arXiv 2407.00047; published code: QLM-project/QLM).

Calls that wait form groups of the same kind and about the same due time; each instance has a virtual queue of groups in
order of their due times and pulls calls from it when it has room. The waiting-time estimator says how long an instance
needs for what waits ahead: expected output tokens over its token throughput; a call then takes its own prefill and its
decode in the company that is there.
When a call comes, it joins the queue where it is estimated to end first. When a call is estimated to be late, a linear
program assigns all groups anew:

``min sum_gi n_g late_gi + EPSILON sum_gi (work_gi + n_g own_gi) x_gi``, such that ``sum_i x_gi = 1`` and for every g, i

``ahead_i + sum over groups h up to g in due order of work_hi x_hi <= due_g - now - min_j own_gj + late_gi``

with x_gi the share of group g on instance i, work_gi its tokens over the throughput there, n_g its calls, own_gi a
call's own seconds: late_gi is work on i that should be done when g is due and is not. Shares become calls by largest
remainders.

Assumed: a call is due its expected tail before its workflow's deadline, where the paper gives every request a target of
its own; due times are the same within 10 s; throughput is that of full batches of mean calls, where the paper profiles
it; the program is solved at most every 5 s.

Deviations: one model, hence no swapping; nothing running is evicted for what is more urgent; the program is this fluid
one with each queue in due order, where the published one is integer, orders slots, and falls back on due order if
it has no solution; means are used, not the estimator's distribution.
"""

# mypy: ignore-errors
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import typeof
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array, diags_array, eye_array, hstack, kron, vstack

from hexopt.models.kernel import kernel
from hexopt.models.roofline import step_seconds
from hexopt.policies.compiled import takes
from hexopt.policies.knowledge import Knowledge, alone_seconds, believe
from hexopt.policies.steps import tokens_left
from hexopt.room import Room
from hexopt.simulation.kvcache import found_blocks
from hexopt.simulation.loop import dispatch
from hexopt.simulation.state import NONE, Simulation

EPSILON = 1e-3
"""Weight of work against lateness: among assignments that are as late as each other, the one with least work."""


@kernel
def throughput(sim, know, tokens):
    """Write the output tokens a second of full batches of mean calls to ``tokens``."""
    prompt = know.weights[0]
    output = know.weights[1]
    for i in range(sim.instance.shape[0]):
        inst = sim.instance[i]
        held = prompt + output / 2.0
        calls = max(min(inst.blocks * inst.block_size / held, float(inst.max_seqs)), 1.0)
        step = know.scale[i] * step_seconds(know.coef[i], 0.0, 0.0, 0.0, 0.0, calls, calls * held)
        prefill = know.scale[i] * alone_seconds(know.coef[i], prompt, 0.0, 1.0, inst.max_batched)
        tokens[i] = output / (prefill + output * step / calls)


@kernel
def backlog(sim, ahead, calls, context):
    """Write what is at each instance: output tokens that wait, calls, and the tokens of these so far."""
    for i in range(sim.instance.shape[0]):
        ahead[i] = calls[i] = context[i] = 0.0
        other = sim.instance[i].first_here
        while other != NONE:
            there = sim.stage[other]
            if there.held == 0:
                ahead[i] += tokens_left(there)
            calls[i] += 1.0
            context[i] += there.prompt + there.generated
            other = there.next_here


@kernel
def take_in(sim, know, r, calls, context, own, new):
    """Believe what is known of stage ``r``; write its seconds, infinite if too long, and new tokens by instance."""
    believe(sim, know, r)
    stage = sim.stage[r]
    for i in range(sim.instance.shape[0]):
        inst = sim.instance[i]
        if not takes(sim, r, i):
            own[i] = math.inf
            continue
        found = 0
        if inst.prefix_caching == 1:
            found, _ = found_blocks(sim, i, stage.leaf, (stage.prompt - 1) // inst.block_size)
        new[i] = stage.prompt - found * inst.block_size
        prefill = know.scale[i] * alone_seconds(
            know.coef[i], stage.prompt, found * inst.block_size, 1.0, inst.max_batched
        )
        length = context[i] + stage.prompt + stage.expected_output / 2.0
        step = step_seconds(know.coef[i], 0.0, 0.0, 0.0, 0.0, calls[i] + 1.0, length)
        own[i] = prefill + stage.expected_output * know.scale[i] * step


def assign(
    ahead: NDArray[np.float64],
    work: NDArray[np.float64],
    calls: NDArray[np.float64],
    own: NDArray[np.float64],
    left: NDArray[np.float64],
) -> NDArray[np.float64] | None:
    """Shares of g groups on m instances by the module's program, shape (g, m); None if it was not solved.

    Parameters
    ----------
    ahead
        Seconds of work at each instance, shape (m,).
    work, own
        Seconds of each group's work, and of one of its calls, on each instance, infinite where too long; shape (g, m).
    calls, left
        Calls of each group, and seconds until it is due, which ascend; shape (g,).
    """
    groups, instances = work.shape
    pairs = groups * instances
    possible = np.isfinite(own)
    finite = np.where(possible, work, 0.0)
    cost = EPSILON * (finite + calls[:, None] * np.where(possible, own, 0.0))
    # Variables: shares, work done on an instance up to a group, work late there.
    done = eye_array(pairs) - eye_array(pairs, k=-instances)
    nothing = csr_array((pairs, pairs))
    found = linprog(
        np.concatenate((cost.ravel(), np.zeros(pairs), np.repeat(calls, instances))),
        A_ub=hstack((nothing, eye_array(pairs), -eye_array(pairs)), format="csr"),
        b_ub=((left - own.min(axis=1))[:, None] - ahead).ravel(),
        A_eq=vstack(
            (
                hstack((kron(eye_array(groups), np.ones((1, instances))), csr_array((groups, 2 * pairs)))),
                hstack((-diags_array(finite.ravel()), done, nothing)),
            ),
            format="csr",
        ),
        b_eq=np.concatenate((np.ones(groups), np.zeros(pairs))),
        bounds=np.column_stack(
            (np.zeros(3 * pairs), np.concatenate((np.where(possible.ravel(), 1.0, 0.0), np.full(2 * pairs, np.inf))))
        ),
        method="highs",
    )
    return found.x[:pairs].reshape(groups, instances) if found.status == 0 else None


def dealt(shares: NDArray[np.float64], calls: int) -> list[int]:
    """The instance of each of a group's ``calls``, by largest remainders of its shares, shape (m,)."""
    exact = shares / shares.sum() * calls
    counts = np.floor(exact + 1e-9).astype(int)
    for i in np.argsort(counts - exact, kind="stable")[: calls - counts.sum()]:
        counts[i] += 1
    return np.repeat(np.arange(shares.shape[0]), counts).tolist()


class VirtualQueues:
    """Asked by the event loop; holds calls until their instance has room.

    Parameters
    ----------
    granularity
        Seconds within which due times are the same.
    period
        Seconds between two programs at least.
    """

    tally = None
    """What it solves is no epoch problem."""

    def __init__(self, granularity: float, period: float) -> None:
        self._granularity, self._period = granularity, period
        self._held: list[int] = []
        self._place: dict[int, int] = {}
        self._due: dict[int, float] = {}
        self._own: dict[int, NDArray[np.float64]] = {}
        self._new: dict[int, NDArray[np.float64]] = {}
        self._last = -math.inf

    def decide(self, board: Simulation, know: Knowledge) -> None:
        """Let the ready calls join, assign anew if any would be late, and send what there is room for."""
        clock: Any = board.clock[0]
        now = float(clock["now"])
        fresh = board.ready[int(clock["ready_done"]) : int(clock["ready"])].tolist()
        clock["ready_done"] = clock["ready"]
        if fresh:
            instances = board.instance.shape[0]
            self._tokens, ahead = np.zeros(instances), np.zeros(instances)
            self._calls, self._context = np.zeros(instances), np.zeros(instances)
            throughput(board, know, self._tokens)
            backlog(board, ahead, self._calls, self._context)
            for r in fresh:
                self._join(board, know, r, ahead)
            if now >= self._last + self._period and self._any_late(board, ahead, now):
                self._assign(board, ahead, now)
        self._send(board)
        clock["held"] = len(self._held)
        clock["wake"] = math.inf

    def _join(self, board: Simulation, know: Knowledge, r: int, ahead: NDArray[np.float64]) -> None:
        own, new = np.zeros(ahead.shape[0]), np.zeros(ahead.shape[0])
        take_in(board, know, r, self._calls, self._context, own, new)
        stage: Any = board.stage[r]
        due = float(board.workflow[stage["workflow"]]["deadline"] - stage["tail"])
        self._own[r], self._new[r] = own, new
        self._due[r] = math.floor(due / self._granularity) * self._granularity
        before = ahead.copy()
        for other in self._held:
            if self._due[other] <= self._due[r]:
                before[self._place[other]] += float(board.stage["expected_output"][other])
        self._place[r] = int(np.argmin(before / self._tokens + own))
        self._held.append(r)

    def _order(self) -> list[int]:
        """Held calls as the virtual queues order them: by due time, then as they came."""
        return sorted(self._held, key=self._due.__getitem__)

    def _any_late(self, board: Simulation, ahead: NDArray[np.float64], now: float) -> bool:
        before = ahead.copy()
        for r in self._order():
            i = self._place[r]
            if now + before[i] / self._tokens[i] + self._own[r][i] > self._due[r]:
                return True
            before[i] += float(board.stage["expected_output"][r])
        return False

    def _assign(self, board: Simulation, ahead: NDArray[np.float64], now: float) -> None:
        """Solve the program for all that is held; its groups' calls move to their new queues."""
        self._last = now
        groups: dict[tuple[float, int, bytes], list[int]] = {}
        for r in self._order():
            fits = np.isfinite(self._own[r]).tobytes()
            groups.setdefault((self._due[r], int(board.stage["kind"][r]), fits), []).append(r)
        members: Sequence[list[int]] = list(groups.values())
        tokens = np.array([board.stage["expected_output"][rows].sum() for rows in members])
        own = np.array([np.mean([self._own[r] for r in rows], axis=0) for rows in members])
        shares = assign(
            ahead / self._tokens,
            tokens[:, None] / self._tokens,
            np.array([float(len(rows)) for rows in members]),
            own,
            np.array([due - now for due, *_ in groups]),
        )
        if shares is None:
            return
        for rows, share in zip(members, shares, strict=True):
            self._place.update(zip(rows, dealt(share, len(rows)), strict=True))

    def _send(self, board: Simulation) -> None:
        """Send what its instance can admit at its next step, in the order of the queues."""
        if not self._held:
            return
        room = Room(board, [])
        for rank, r in enumerate(self._order()):
            i = self._place[r]
            if room.take(i, rank, float(self._new[r][i])):
                board.stage["expected_new"][r] = self._new[r][i]
                dispatch(board, r, i)
                del self._place[r], self._due[r], self._own[r], self._new[r]
        self._held = [r for r in self._held if r in self._place]


def compile_for(board: Simulation, know: Knowledge) -> None:
    """Compile before a run, so that no decision waits for it."""
    seconds = np.zeros(board.instance.shape[0])
    rules: tuple[tuple[Any, tuple[Any, ...]], ...] = (
        (throughput, (board, know, seconds)),
        (backlog, (board, seconds, seconds, seconds)),
        (take_in, (board, know, 0, seconds, seconds, seconds, seconds)),
        (dispatch, (board, 0, 0)),
    )
    for rule, arguments in rules:
        rule.compile(tuple(typeof(x) for x in arguments))
