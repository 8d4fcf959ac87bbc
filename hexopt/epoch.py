"""From the board to arrays: the epoch problem of the stages that the scheduler holds.

Service and imposed delay are greedy urgency's predictions (:func:`hexopt.policies.greedy_urgency.predict`), so that the
solver and the rule between its solves judge alike. A stage's weight is its workflow's times its urgency. What the held
stages would mean for *each other* on one instance stands in the congestion term: two of them together cost about as
much as each imposes on the other, which a convex quadratic of the instance's new load approximates in pieces. With a
lookahead, the expected successors of running calls (:mod:`hexopt.expected`) stand behind the held stages.
"""

# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.expected import expected_stages, no_stages
from hexopt.models.kernel import kernel
from hexopt.models.roofline import step_seconds
from hexopt.models.tails import tail_quantile
from hexopt.objective import Objective
from hexopt.policies.compiled import takes
from hexopt.policies.greedy_urgency import appraise, decoded_beside, predict
from hexopt.policies.knowledge import Knowledge, believe
from hexopt.policies.steps import tokens_left
from hexopt.simulation.state import NONE, Simulation
from hexopt.solvers import EpochProblem

_PIECES = 6
"""Pieces of the quadratic."""
_LEAST_SECONDS = 1e-4
"""Predicted service is at least this: the epoch problem wants positive times."""


@dataclass(frozen=True)
class Epoch:
    """An epoch problem and what its numbers stand for.

    Parameters
    ----------
    problem
        Stage k of it is ``stages[k]`` of the board, those behind are expected ones; instances are the board's.
    stages
        Stage indices, shape (n,).
    new
        Prompt tokens that each, expected ones included, would have to compute on each instance.
    """

    problem: EpochProblem
    stages: NDArray[np.int64]
    new: NDArray[np.float64]


class EpochBuilder:
    """Builds the epoch problems of one run.

    Parameters
    ----------
    objective
        What is minimised.
    price
        Money a second of each instance, shape (m,).
    tail_share
        Due dates are tightened by the tail that this share of workflows stays within; 0: by the expected tail.
    congestion
        Whether the held stages' effect on each other counts.
    lookahead
        Seconds within which a running call must end for its expected successors to be in the problem; 0: none are.
    """

    def __init__(
        self,
        objective: Objective,
        price: NDArray[np.float64],
        tail_share: float,
        congestion: bool,
        lookahead: float = 0.0,
    ) -> None:
        self.objective = objective
        self._price = price
        self._tail_share = tail_share
        self._congestion = congestion
        self._lookahead = lookahead

    def build(self, board: Simulation, know: Knowledge, now: float, held: Sequence[int], queued: Any) -> Epoch:
        """The problem of the ``held`` stages at ``now``.

        Parameters
        ----------
        queued
            Where the last plan has each of them, -1 for nowhere; shape (n,).
        """
        stages = np.asarray(held, dtype=np.int64)
        n, m = stages.shape[0], board.instance.shape[0]
        finish, imposed, new, work = (np.zeros((n, m)) for _ in range(4))
        appraise_all(board, know, stages, now, self._tail_share)
        _predict_all(board, know, stages, now, finish, imposed, new, work)
        instance = board.instance
        busy = np.flatnonzero(instance["running"] + instance["waiting"] > 0)
        calls = int((instance["running"] + instance["waiting"]).sum())
        who, where = np.zeros(calls, dtype=np.int64), np.zeros(calls, dtype=np.int64)
        until, kv = np.zeros(calls), np.zeros(calls)
        _running_calls(board, know, busy, who, where, until, kv)
        soft = no_stages(m)
        if self._lookahead > 0.0:
            soft = expected_stages(board, know, now, who, until, self._lookahead, self._tail_share)
        s = soft.stage.shape[0]
        rows = board.stage[stages]
        workflows, workflow = np.unique(rows["workflow"], return_inverse=True)
        flows = board.workflow[workflows]
        urgency = np.zeros(len(workflows))
        np.maximum.at(urgency, workflow, rows["urgency"])
        # Soft stages that come together share a workflow of their own: it counts only as far as they are likely.
        one = np.unique(soft.group, return_index=True)[1]
        theirs = board.workflow[soft.stage["workflow"][one]]
        weight = [flows["weight"] * urgency, theirs["weight"] * soft.stage["urgency"][one] * soft.probability[one]]
        every = np.concatenate([rows, soft.stage])
        load = np.concatenate([work, soft.work])
        knots, slopes = self._quadratic(load, np.append(rows["urgency"], soft.stage["urgency"] * soft.probability))
        tenants, tenant = np.unique(np.append(flows["tenant"], theirs["tenant"]), return_inverse=True)
        problem = EpochProblem(
            service=np.maximum(np.concatenate([finish, soft.service]), _LEAST_SECONDS),
            release=np.append(np.zeros(n), soft.release),
            tail=every["tail"],
            workflow=np.append(workflow, len(workflows) + soft.group),
            due=np.append(flows["deadline"], theirs["deadline"]) - now,
            weight=np.concatenate(weight),
            seats=instance["max_seqs"],
            kv_capacity=instance["blocks"].astype(float) * instance["block_size"],
            kv=every["prompt"] + every["expected_output"],
            busy_instance=where,
            busy_until=until,
            busy_kv=kv,
            queued=np.append(queued, np.full(s, NONE)),
            move_cost=np.append(np.full(n, self._move_cost(finish)), np.zeros(s)),
            imposed=np.concatenate([imposed, soft.imposed]),
            load=load,
            knots=knots,
            slopes=slopes,
            price=self._price,
            tenant=tenant,
            share=np.ones(len(tenants)),
            weights=self.objective.weights,
        )
        return Epoch(problem, stages, np.concatenate([new, soft.new]))

    def _move_cost(self, finish: NDArray[np.float64]) -> float:
        """A twentieth of the typical service: enough that a plan does not flap, too little to keep a bad place."""
        finite = finish[np.isfinite(finish)]
        return 0.05 * float(np.median(finite)) if finite.size else 0.0

    def _quadratic(
        self, work: NDArray[np.float64], urgency: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
        """Knots and slopes, both shape (m, pieces), of the cost of held stages to each other.

        Two stages of work k each and urgency u that decode together delay each other by k: that costs 2 k u. So c
        stages, a load of L = c k, cost k u c (c - 1): nothing up to L = k, where a slope of 2 u begins, 4 u from
        L = 2 k on, and so forth. With means for k and u, and at most a handful of knots.
        """
        n, m = work.shape
        if n < 2 or not self._congestion:
            return None, None
        mean = work.sum(axis=0) / np.maximum((work > 0.0).sum(axis=0), 1)
        mean = np.maximum(mean, 1e-9)
        steps = np.linspace(1.0, max(float(n), 2.0), _PIECES)
        knots = mean[:, None] * steps[None]
        # Between knots that are further apart the slope is that of the middle.
        middle = np.append((steps[:-1] + steps[1:]) / 2.0, steps[-1])
        rise = np.diff(middle, prepend=0.5)
        slopes = 2.0 * float(urgency.mean()) * np.tile(rise, (m, 1))
        return knots, slopes


@kernel
def appraise_all(sim, know, stages, now, tail_share):
    """Write slack and urgency of ``stages`` at ``now``, after the tail that ``tail_share`` of workflows stay within.

    0: after the expected tail.
    """
    for r in stages:
        believe(sim, know, r)
        stage = sim.stage[r]
        if tail_share > 0.0 and stage.told_final == 0:
            stage.tail = tail_quantile(know.tails, stage.kind, stage.occurrence, tail_share)
        appraise(sim, know, r, now, stage.tail)


@kernel
def _predict_all(sim, know, stages, now, finish, imposed, new, work):
    for k in range(stages.shape[0]):
        r = stages[k]
        stage = sim.stage[r]
        for i in range(sim.instance.shape[0]):
            if not takes(sim, r, i):
                finish[k, i] = np.inf
                continue
            seconds, others, fresh, memory = predict(sim, know, i, r, now)
            # Waiting for memory is the problem's own affair: it knows what the running calls hold, and until when.
            finish[k, i] = seconds - memory
            imposed[k, i] = others
            new[k, i] = fresh
            work[k, i] = decoded_beside(know.coef[i], stage, fresh, sim.instance[i].max_batched)


@kernel
def _running_calls(sim, know, busy, who, where, until, kv):
    """Write the calls on the instances: who, where, when they end in today's company, what they hold then."""
    k = 0
    for i in busy:
        inst = sim.instance[i]
        decodes = 0.0
        context = 0.0
        other = inst.first_here
        while other != NONE:
            there = sim.stage[other]
            decodes += 1.0
            context += there.prompt + there.generated
            other = there.next_here
        step = step_seconds(know.coef[i], 0.0, 0.0, 0.0, 0.0, decodes, context) * know.scale[i]
        other = inst.first_here
        while other != NONE:
            there = sim.stage[other]
            left = tokens_left(there)
            who[k] = other
            where[k] = i
            until[k] = left * step
            kv[k] = there.prompt + there.generated + left
            k += 1
            other = there.next_here
