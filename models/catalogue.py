"""The GPU types and LLMs that HexOpt has learned, under their canonical names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU type.

    Parameters
    ----------
    name
        Canonical name.
    title
        The maker's name.
    memory_gib
        Usable memory (GiB).
    fp8
        Whether its matrix units take FP8.
    """

    name: str
    title: str
    memory_gib: float
    fp8: bool


@dataclass(frozen=True, slots=True)
class Llm:
    """One model as it is served.

    Parameters
    ----------
    name
        Canonical name.
    huggingface_id
        Checkpoint.
    weights_gib
        Memory of the weights (GiB), as served.
    fp8
        Whether weights and activations of the matrix products are FP8.
    kv_bytes_per_token
        Bytes of KV cache of one token over all layers: ``2 * layers * kv_heads * 128`` values of two bytes, or of one
        where the cache is FP8.
    layers
        Layers that keep KV.
    variant_of
        The model that this one is another precision of, empty where it is itself.
    """

    name: str
    huggingface_id: str
    weights_gib: float
    fp8: bool
    kv_bytes_per_token: int
    layers: int
    variant_of: str = ""


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("a100", "NVIDIA A100 SXM 80GB", 80.0, fp8=False),
        Gpu("h100", "NVIDIA H100 SXM 80GB", 80.0, fp8=True),
        Gpu("h200", "NVIDIA H200 SXM 141GB", 141.0, fp8=True),
        Gpu("b200", "NVIDIA B200 SXM 180GB", 180.0, fp8=True),
        Gpu("l40s", "NVIDIA L40S 48GB", 45.0, fp8=True),
        Gpu("rtx-pro-6000", "NVIDIA RTX PRO 6000 Blackwell Server 96GB", 95.6, fp8=True),
        Gpu("a6000", "NVIDIA RTX A6000 48GB", 48.0, fp8=False),
    )
}
"""GPU types by canonical name."""

LLMS = {
    llm.name: llm
    for llm in (
        Llm("llama-3.1-8b", "meta-llama/Meta-Llama-3.1-8B", 15.0, fp8=False, kv_bytes_per_token=131072, layers=32),
        Llm("llama-3.1-70b", "meta-llama/Meta-Llama-3.1-70B", 131.4, fp8=False, kv_bytes_per_token=327680, layers=80),
        Llm("llama-3.1-70b-fp8", "nvidia/Llama-3.1-70B-Instruct-FP8", 67.7, True, 163840, 80, "llama-3.1-70b"),
        Llm("qwen3-32b", "Qwen/Qwen3-32B", 61.0, fp8=False, kv_bytes_per_token=262144, layers=64),
    )
}
"""LLMs by canonical name."""

_DEFAULT_PARALLELISM = {
    "llama-3.1-8b": (1, 1),
    "llama-3.1-70b": (4, 1),
    "llama-3.1-70b-fp8": (2, 1),
    "qwen3-32b": (2, 1),
}
# Small cards on a plain PCIe box: four-way tensor parallelism would spend most of a step in all-reduce.
_DEFAULT_BY_GPU = {("l40s", "llama-3.1-70b"): (2, 2), ("a6000", "llama-3.1-70b"): (2, 2)}


def base_llm(llm: str) -> str:
    """The model that ``llm`` is, or is a variant of; itself where it is not in the catalogue."""
    return (LLMS[llm].variant_of or llm) if llm in LLMS else llm


def default_parallelism(gpu: str, llm: str) -> tuple[int, int]:
    """(Tensor, pipeline) parallelism used where none is asked for; both names must be known."""
    return _DEFAULT_BY_GPU.get((gpu, llm), _DEFAULT_PARALLELISM[llm])
