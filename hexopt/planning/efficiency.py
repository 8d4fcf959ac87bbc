"""What a call of each class costs on each option, at best: instance-seconds, seconds and KV tokens.

A decode step of b sequences takes ``D(b)`` seconds and advances each by a token, so that one of them costs ``D(b) / b``
instance-seconds a token and lasts ``D(b)`` seconds; a small batch is fast, a large one cheap. All numbers are what the
call takes if nothing ever waits, prompts are cached as far as they can be, and prefill rides on steps that decodes pay
for. No schedule does better, so that what a fleet cannot do by them it cannot do (:mod:`hexopt.planning.model`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hexopt.cluster import Instance
from hexopt.models.roofline import C_KNOTS, FEATURE_NAMES, token_seconds
from hexopt.planning.fleet import Option
from hexopt.planning.work import Work

BATCHES = (1, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Batch sizes of decode steps that the model chooses from; a step's time bends or jumps at most of them."""

_AT = {name: k for k, name in enumerate(FEATURE_NAMES)}


@dataclass(frozen=True)
class Efficiency:
    """Costs of k classes on m options at p batch sizes, all at best.

    Parameters
    ----------
    batch
        Batch sizes, shape (p,).
    busy
        Instance-seconds of one call, shape (k, m, p); infinite where the option cannot serve it or runs no such batch.
    latency
        Seconds from its start to its end, same shape.
    resident
        KV token-seconds that it holds for itself alone, same shape.
    capacity
        KV tokens of each option, shape (m,).
    """

    batch: NDArray[np.int64]
    busy: NDArray[np.float64]
    latency: NDArray[np.float64]
    resident: NDArray[np.float64]
    capacity: NDArray[np.float64]


def efficiency_of(work: Work, options: Sequence[Option]) -> Efficiency:
    """Costs of ``work``'s classes on ``options``."""
    batch = np.array(BATCHES)
    shape = (len(work), len(options), len(batch))
    busy, latency, resident = (np.full(shape, np.inf) for _ in range(3))
    for j, option in enumerate(options):
        instance = option.instance
        here = work.shortest <= instance.max_model_len
        prefill, alone = _prefill(work, instance)
        context = instance.coef[_AT["C"]] * work.sizes.context
        for p, b in enumerate(BATCHES):
            if b > instance.max_num_seqs:
                break
            step = _decode_step(instance, b)
            decode = work.sizes.decoded * step
            busy[:, j, p] = np.where(here, prefill + decode / b + context, np.inf)
            latency[:, j, p] = np.where(here, alone + decode + context, np.inf)
            resident[:, j, p] = np.where(here, alone * work.sizes.new + decode * work.kv / 2.0, np.inf)
    capacity = np.array([float(option.instance.kv_tokens) for option in options])
    return Efficiency(batch, busy, latency, resident, capacity)


def _decode_step(instance: Instance, batch: int) -> float:
    """Seconds of a decode step of ``batch`` sequences, but for what their contexts add."""
    coef = instance.coef
    fixed = sum(coef[_AT[f"max(C,{int(knot)})[B>0]"]] * knot for knot in C_KNOTS)
    return float(token_seconds(coef, float(batch)) + coef[_AT["[B>0]"]] + coef[_AT["B"]] * batch + fixed)


def _prefill(work: Work, instance: Instance) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Instance-seconds that a prompt adds to steps that run anyway, and its seconds alone, both shape (k,)."""
    coef, budget = instance.coef, float(instance.max_num_batched_tokens)
    sizes = work.sizes
    own = coef[_AT["A"]] * sizes.attention + coef[_AT["K"]] * sizes.prompt + coef[_AT["S"]]
    added, alone = np.empty(len(work)), np.empty(len(work))
    for k, new in enumerate(sizes.new):
        # Prompts of a class may share a step: per token the cheapest filling of the token budget counts.
        chunks = {min(new * n, budget) for n in (1, 2, 4, 8, 16, 32, 64)}
        added[k] = new * min((token_seconds(coef, chunk) - coef[0] + coef[1]) / chunk for chunk in chunks)
        whole, rest = divmod(new, budget)
        alone[k] = whole * (token_seconds(coef, budget) + coef[1])
        alone[k] += token_seconds(coef, rest) + coef[1] if rest > 0 else 0.0
    return added + own, alone + own
