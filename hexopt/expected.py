"""Expected successors of the calls that are about to end: soft stages, for which a plan leaves room.

A call that is predicted to end within the horizon's ``lookahead`` brings what followed such calls in training, on
average (:mod:`hexopt.models.successors`); what truly follows is never looked at. Service and imposed delay are those of
a call that comes into today's company. Weight, load and imposed delay count by the probability that it comes. How much
of its prompt a prefix cache will hold is taken from training too.
"""

# mypy: ignore-errors
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hexopt.models.kernel import kernel
from hexopt.models.lengths import expected_output
from hexopt.models.tails import expected_tail, tail_quantile
from hexopt.policies.greedy_urgency import AFFINITY, appraise_call, decoded_beside, predict_cached
from hexopt.policies.knowledge import Knowledge
from hexopt.policies.serving import begins
from hexopt.simulation.state import NONE, STAGE, Simulation

_UNLIKELY = 0.1
"""Probability below which a successor is not expected."""
_MOST = 8
"""Calls of a kind that one call brings at most."""


@dataclass(frozen=True)
class Expected:
    """Soft stages, s of them.

    Parameters
    ----------
    stage
        STAGE records that hold what is expected, shape (s,).
    group
        Soft stages of the same number come together, from 0 on; shape (s,).
    probability, release
        That it comes; seconds from now until it would be ready. Shape (s,).
    service, new, imposed, work
        As those of the held stages, shape (s, m); the latter two by probability.
    """

    stage: NDArray[np.void]
    group: NDArray[np.int64]
    probability: NDArray[np.float64]
    release: NDArray[np.float64]
    service: NDArray[np.float64]
    new: NDArray[np.float64]
    imposed: NDArray[np.float64]
    work: NDArray[np.float64]


def no_stages(instances: int) -> Expected:
    """Nothing is expected."""
    whole, real, pairs = np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros((0, instances))
    return Expected(np.zeros(0, dtype=STAGE), whole, real, real, pairs, pairs, pairs, pairs)


def expected_stages(
    board: Simulation,
    know: Knowledge,
    now: float,
    calls: NDArray[np.int64],
    until: NDArray[np.float64],
    lookahead: float,
    tail_share: float,
) -> Expected:
    """What the ``calls`` on instances bring that end within ``lookahead`` seconds.

    Parameters
    ----------
    calls, until
        Stage indices, and seconds until each ends, shape (c,).
    """
    near = (until <= lookahead) & (board.stage["told_final"][calls] == 0)
    calls, until = calls[near], until[near]
    parents = board.stage[calls]
    successors = know.successors
    whose, rows = successors.after(parents["kind"].astype(np.int64), parents["occurrence"].astype(np.int64))
    likely = successors.probability[rows] >= _UNLIKELY
    whose, rows = whose[likely], rows[likely]
    copies = np.clip(np.rint(successors.number[rows]), 1, _MOST).astype(np.int64)
    group = np.repeat(np.arange(rows.size), copies)
    whose, rows = whose[group], rows[group]
    delay, prompt, shared, kept, occurrence = successors.traits[rows].T
    n, m = rows.size, board.instance.shape[0]
    stage = np.zeros(n, dtype=STAGE)
    stage["prompt"] = np.maximum(np.rint(prompt), 1)
    stage["kind"], stage["workflow"] = successors.kind[rows], parents["workflow"][whose]
    stage["occurrence"] = np.rint(occurrence)
    release = until[whose] + delay
    # A cache never holds the prompt's last token: it is read to produce the first one of the output.
    cached = np.minimum(np.repeat(shared[:, None], m, axis=1), stage["prompt"][:, None] - 1.0)
    began = np.where(parents["prefill_instance"] == NONE, parents["instance"], parents["prefill_instance"])
    own = np.arange(n), began[whose]
    cached[own] = np.minimum(kept, stage["prompt"] - 1.0)
    service, new, imposed, work = (np.zeros((n, m)) for _ in range(4))
    _predict_expected(board, know, stage, cached, now + release, tail_share, service, new, imposed, work)
    probability = successors.probability[rows]
    return Expected(
        stage, group, probability, release, service, new, imposed * probability[:, None], work * probability[:, None]
    )


@kernel
def _predict_expected(sim, know, soft, cached, ready, tail_share, service, new, imposed, work):
    for k in range(soft.shape[0]):
        stage = soft[k]
        stage.expected_output = expected_output(know.lengths, stage.kind, stage.prompt)
        stage.tail = expected_tail(know.tails, stage.kind, stage.occurrence)
        if tail_share > 0.0:
            stage.tail = tail_quantile(know.tails, stage.kind, stage.occurrence, tail_share)
        appraise_call(sim, know, stage, ready[k], stage.tail)
        for i in range(sim.instance.shape[0]):
            inst = sim.instance[i]
            if not begins(inst) or stage.prompt + stage.expected_output > inst.max_len:
                service[k, i] = np.inf
                continue
            here = cached[k, i] if inst.prefix_caching == 1 and know.weights[AFFINITY] == 1.0 else 0.0
            seconds, others, fresh, memory = predict_cached(sim, know, i, stage, here)
            service[k, i] = seconds - memory
            new[k, i] = fresh
            imposed[k, i] = others
            work[k, i] = decoded_beside(know.coef[i], stage, fresh, inst.max_batched)
