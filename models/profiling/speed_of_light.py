"""Estimate a GPU that nobody measured from a similar one that somebody did: silicon time times a roofline ratio.

``t(A6000) = t_silicon(L40S) * sol(A6000) / sol(L40S)``, iteration by iteration, where the speed of light ``sol`` of an
iteration is the sum over its matrix products and its attention of the slower of computing and of reading memory:

- matrix products: ``max(2 W Q / F, W b / M)`` for ``W`` weights of ``b`` bytes, ``Q`` tokens computed, ``F`` FLOP/s and
  ``M`` bytes/s;
- prefill attention: ``max(4 L H A / F, k K / M)`` for ``L`` layers of width ``H``, ``A`` and ``K`` as in
  :mod:`hexopt.models.roofline`, ``k`` bytes of KV cache a token; decode attention: ``k C / M``.

All-reduce has no term: both cards sit on PCIe 4, so it should not scale, and the ratio (1.1 to 2.3) overstates it. That
is small at TP1 and TP2 and large beyond, so no more than TP2 is estimated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hexopt.models.catalogue import Llm
from hexopt.models.profiling.compositions import Compositions


@dataclass(frozen=True, slots=True)
class Peak:
    """Datasheet peak of a GPU: dense bfloat16 FLOP/s and memory bytes/s."""

    flops: float
    bandwidth: float


PEAKS = {"l40s": Peak(362.05e12, 864e9), "a6000": Peak(154.8e12, 768e9)}
"""NVIDIA's datasheets of the L40S and the RTX A6000 (tensor cores, without sparsity)."""
_SHAPES = {"llama-3.1-8b": (32, 4096), "llama-3.1-70b": (80, 8192), "qwen3-32b": (64, 8192)}
"""Layers and attention width (heads times 128) of the models' published configurations."""


def speed_of_light(peak: Peak, llm: Llm, compositions: Compositions) -> NDArray[np.float64]:
    """Seconds, shape (n,), below which no single GPU of this peak computes each iteration of a bfloat16 model."""
    layers, width = _SHAPES[llm.name]
    weight_bytes = llm.weights_gib * 2.0**30
    chunks = np.maximum(compositions.n_prefill, 1)
    new, cached = compositions.prefill_tokens, compositions.prefill_cached
    attention = new * (cached + new / 2.0) / chunks
    products = np.maximum(
        weight_bytes * (new + compositions.n_decode) / peak.flops,
        np.full(len(compositions), weight_bytes) / peak.bandwidth,
    )
    prefill = np.maximum(
        4.0 * layers * width * attention / peak.flops, llm.kv_bytes_per_token * (new + cached) / peak.bandwidth
    )
    seconds: NDArray[np.float64] = (
        products + prefill + llm.kv_bytes_per_token * compositions.decode_context / peak.bandwidth
    )
    return seconds


def scale_ratio(gpu: str, measured: str, llm: Llm, compositions: Compositions) -> NDArray[np.float64]:
    """What the times of ``measured``'s iterations are multiplied by, shape (n,); names are those of :data:`PEAKS`."""
    return speed_of_light(PEAKS[gpu], llm, compositions) / speed_of_light(PEAKS[measured], llm, compositions)
