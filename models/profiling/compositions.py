"""Which iterations a profile samples: random batches, and what one pipeline micro-batch of them holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROWS = {"train": 500, "test": 150, "extrapolation": 150}
"""Iterations of a profile, by split."""

_MAX_CHUNKS = 8
_MAX_NEW = 8192
_MAX_CACHED = 32768
_MAX_DECODE = 512
_MAX_CONTEXT = 32768
_BEYOND_NEW = 16384
_BEYOND_CACHED = 131072
_BEYOND_DECODE = 1024
_BEYOND_CONTEXT = 131072
_DECODE_ONLY, _PREFILL_ONLY = 0.4, 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Compositions:
    """What n iterations compute; arrays of shape (n,) as in :class:`~hexopt.models.profiling.frozen.FrozenProfile`."""

    n_prefill: NDArray[np.int64]
    prefill_tokens: NDArray[np.int64]
    prefill_cached: NDArray[np.int64]
    n_decode: NDArray[np.int64]
    decode_context: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.n_prefill)

    @property
    def kv_tokens(self) -> NDArray[np.int64]:
        """Tokens of KV cache that each iteration's sequences hold, shape (n,)."""
        return self.prefill_tokens + self.prefill_cached + self.decode_context

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Compositions:
        """Some of them."""
        return Compositions(*(column[rows] for column in self.columns()))

    def columns(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The arrays, in the order of the fields."""
        return self.n_prefill, self.prefill_tokens, self.prefill_cached, self.n_decode, self.decode_context


def draw(rng: np.random.Generator, rows: int, kv_tokens: int) -> Compositions:
    """Draw iterations that fit a KV cache of ``kv_tokens``: log-uniform sizes, equal chunks, equal contexts.

    Two in five only decode, one in five only prefills. At most 8 chunks, 8192 new tokens, 32,768 cached tokens a chunk,
    512 decodes with contexts up to 32,768 tokens.
    """
    drawn = [_draw(rng, rows, _MAX_NEW, _MAX_CACHED, _MAX_DECODE, _MAX_CONTEXT)]
    while sum(int((batch.kv_tokens <= kv_tokens).sum()) for batch in drawn) < rows:
        drawn.append(_draw(rng, rows, _MAX_NEW, _MAX_CACHED, _MAX_DECODE, _MAX_CONTEXT))
    columns = zip(*(batch.take(batch.kv_tokens <= kv_tokens).columns() for batch in drawn), strict=True)
    return Compositions(*(np.concatenate(column)[:rows] for column in columns))


def draw_beyond(rng: np.random.Generator, rows: int) -> Compositions:
    """Draw iterations beyond the range of :func:`draw`, whatever the KV cache holds.

    Up to 16,384 new tokens, 131,072 cached ones a chunk, 1024 decodes and contexts of 131,072 tokens, at least one of
    them above :func:`draw`'s limit.
    """
    limits = (_BEYOND_NEW, _BEYOND_CACHED, _BEYOND_DECODE, _BEYOND_CONTEXT)
    found: list[Compositions] = []
    while sum(map(len, found)) < rows:
        batch = _draw(rng, 8 * rows, *limits)
        chunks, decodes = np.maximum(batch.n_prefill, 1), np.maximum(batch.n_decode, 1)
        beyond = (
            (batch.prefill_tokens > _MAX_NEW)
            | (batch.prefill_cached > chunks * _MAX_CACHED)
            | (batch.n_decode > _MAX_DECODE)
            | (batch.decode_context > decodes * _MAX_CONTEXT)
        )
        found.append(batch.take(beyond))
    columns = zip(*(batch.columns() for batch in found), strict=True)
    return Compositions(*(np.concatenate(column)[:rows] for column in columns))


def micro_batch(compositions: Compositions, pp: int) -> Compositions:
    """The largest of the ``pp`` even micro-batches of each iteration, with at least one sequence of each kind it has.

    Sequences are shared out; where a prefill has fewer chunks than there are stages, its chunks are cut, and the cached
    tokens of a piece are the mean over the pieces, so that the attention work of all pieces together is unchanged.
    """
    chunks = -(-compositions.n_prefill // pp)
    tokens = np.maximum(-(-compositions.prefill_tokens // pp), chunks)
    whole = np.maximum(compositions.n_prefill, 1)
    piece = tokens / np.maximum(chunks, 1)
    cached = compositions.prefill_cached / whole + (compositions.prefill_tokens / whole - piece) / 2.0
    decodes = -(-compositions.n_decode // pp)
    context = compositions.decode_context / np.maximum(compositions.n_decode, 1)
    return Compositions(
        chunks,
        tokens,
        np.rint(np.maximum(cached, 0.0) * chunks).astype(np.int64),
        decodes,
        np.rint(context * decodes).astype(np.int64),
    )


def _draw(
    rng: np.random.Generator, rows: int, max_new: int, max_cached: int, max_decode: int, max_context: int
) -> Compositions:
    kind = rng.random(rows)
    prefills = kind >= _DECODE_ONLY
    decodes = (kind < _DECODE_ONLY) | (kind >= _DECODE_ONLY + _PREFILL_ONLY)
    chunks = _log_uniform(rng, rows, 1, _MAX_CHUNKS)
    new = np.minimum(_log_uniform(rng, rows, 16, max_new), max_new // chunks)
    cached = np.where(rng.random(rows) < 0.4, 0, _log_uniform(rng, rows, 16, max_cached))
    sequences = _log_uniform(rng, rows, 1, max_decode)
    context = _log_uniform(rng, rows, 32, max_context)
    return Compositions(
        chunks * prefills,
        chunks * new * prefills,
        chunks * cached * prefills,
        sequences * decodes,
        sequences * context * decodes,
    )


def _log_uniform(rng: np.random.Generator, rows: int, low: int, high: int) -> NDArray[np.int64]:
    return np.floor(np.exp(rng.uniform(np.log(low), np.log(high + 1), rows))).astype(np.int64)
