"""The catalogue: names, sizes and default parallelism."""

from __future__ import annotations

import dataclasses

import pytest

from hexopt.models.catalogue import GPUS, LLMS, default_parallelism

LAYERS_AND_KV_HEADS = {
    "llama-3.1-8b": (32, 8, 2),
    "llama-3.1-70b": (80, 8, 2),
    "llama-3.1-70b-fp8": (80, 8, 1),
    "qwen3-32b": (64, 8, 2),
}


def test_names_are_the_keys() -> None:
    assert list(GPUS) == ["a100", "h100", "h200", "b200", "l40s", "rtx-pro-6000", "a6000"]
    assert list(LLMS) == list(LAYERS_AND_KV_HEADS)
    assert all(name == gpu.name for name, gpu in GPUS.items())
    assert all(name == llm.name for name, llm in LLMS.items())


@pytest.mark.parametrize("name", LLMS)
def test_kv_bytes_follow_from_the_published_configuration(name: str) -> None:
    layers, heads, width = LAYERS_AND_KV_HEADS[name]
    assert LLMS[name].kv_bytes_per_token == 2 * layers * heads * 128 * width


def test_the_default_parallelism_fits_and_avoids_four_way_pcie() -> None:
    for gpu in GPUS.values():
        assert default_parallelism(gpu.name, "llama-3.1-8b") == (1, 1)
        for llm in LLMS.values():
            tp, pp = default_parallelism(gpu.name, llm.name)
            assert llm.weights_gib < 0.92 * gpu.memory_gib * tp * pp
    assert default_parallelism("a100", "llama-3.1-70b") == (4, 1)
    assert default_parallelism("l40s", "llama-3.1-70b") == default_parallelism("a6000", "llama-3.1-70b") == (2, 2)
    assert default_parallelism("l40s", "llama-3.1-70b-fp8") == default_parallelism("a100", "qwen3-32b") == (2, 1)


def test_entries_are_values() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPUS["a100"].memory_gib = 40.0  # type: ignore[misc]
