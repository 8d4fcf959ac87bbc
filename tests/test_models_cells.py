"""The bundled latency models: what exists, what is refused, and that more work never costs less time."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexopt.models.catalogue import GPUS, LLMS, default_parallelism
from hexopt.models.cells import (
    Cell,
    DoesNotFitError,
    LatencyCell,
    LatencyError,
    UnknownGpuError,
    UnknownLlmError,
    UnknownParallelismError,
    latency,
    load_cells,
)
from hexopt.models.roofline import FEATURE_NAMES, N_FEATURES, step_seconds

SHARED = Path(os.environ.get("HEXOPT_SHARED", Path(__file__).parents[2] / "shared"))
CAPACITIES = SHARED / "profiles" / "aiconfigurator-0.12.0" / "kv_capacity.csv"
CELLS = load_cells()
DEFAULTS = [
    (gpu, llm) for gpu in GPUS for llm in LLMS if not (LLMS[llm].fp8 and not GPUS[gpu].fp8)
]  # an FP8 model needs FP8 units


@pytest.mark.parametrize(("gpu", "llm"), DEFAULTS)
def test_every_default_cell_exists(gpu: str, llm: str) -> None:
    found = latency(gpu, llm)
    assert found.cell == Cell(gpu, llm, *default_parallelism(gpu, llm))
    assert found.cell.gpus == found.cell.tp * found.cell.pp
    assert found.kv_tokens > 8192
    assert found.estimated == (gpu == "a6000")
    assert "aiconfigurator-core 0.12.0" in found.provenance


def test_parallelism_asked_for_is_what_comes_back() -> None:
    assert latency("h100", "llama-3.1-70b", 8).cell == Cell("h100", "llama-3.1-70b", 8, 1)
    assert latency("l40s", "qwen3-32b", 2, 2).cell == Cell("l40s", "qwen3-32b", 2, 2)
    assert latency("h100", "llama-3.1-8b", pp=1).cell == Cell("h100", "llama-3.1-8b", 1, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("v100", "llama-3.1-8b"), UnknownGpuError, "'v100', expected one of a100, h100"),
        (("a100", "gpt-2"), UnknownLlmError, "'gpt-2', expected one of llama-3.1-8b"),
        (("a100", "llama-3.1-70b-fp8"), UnknownLlmError, "which serves llama-3.1-70b, llama-3.1-8b, qwen3-32b"),
        (("a100", "llama-3.1-70b", 3), UnknownParallelismError, "profiled are tp=2 pp=1; tp=4 pp=1; tp=8 pp=1"),
        (("a100", "llama-3.1-70b", 1), DoesNotFitError, "does not fit in memory: 131.4 GiB of weights over 1 x 80 GiB"),
        (("l40s", "llama-3.1-70b", 2, 1), DoesNotFitError, "profiled are tp=2 pp=2"),
        (("l40s", "llama-3.1-70b", 4), UnknownParallelismError, "all-reduce over PCIe"),
    ],
)
def test_refusals_say_what_exists(arguments: tuple[str, str, int], error: type[LatencyError], words: str) -> None:
    with pytest.raises(error) as caught:
        latency(*arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_the_dictionary_is_a_copy_and_the_arrays_are_not_writable() -> None:
    cells = load_cells()
    cells.clear()
    assert load_cells() == CELLS
    with pytest.raises(ValueError, match="read-only"):
        next(iter(CELLS.values())).coef[0] = 1.0


@pytest.mark.parametrize("found", CELLS.values(), ids=str)
def test_coefficients_are_finite_positive_and_calibrated(found: LatencyCell) -> None:
    assert found.coef.shape == found.raw_coef.shape == (N_FEATURES,)
    assert np.isfinite(found.coef).all()
    assert (found.coef >= 0).all() and (found.raw_coef >= 0).all()
    untouched = [i for i, name in enumerate(FEATURE_NAMES) if name not in ("[B>0]", "B") and found.raw_coef[i] > 0]
    scale = found.coef[untouched] / found.raw_coef[untouched]
    np.testing.assert_allclose(scale, scale[0], rtol=1e-6)


whole = st.integers(0, 4096)


@settings(deadline=None)  # the first call compiles
@given(st.sampled_from(list(CELLS.values())), st.lists(whole, min_size=6, max_size=6), st.integers(0, 5))
def test_more_work_never_costs_less_time(found: LatencyCell, work: list[int], which: int) -> None:
    n_prefill, new, cached, n_decode, context, more = work

    def seconds(n_prefill: int, new: int, cached: int, n_decode: int, context: int) -> float:
        tokens = n_prefill * new
        attention = tokens * (cached + new / 2.0)
        return step_seconds(
            found.coef,
            float(n_prefill if tokens else 0),
            float(tokens),
            attention,
            float(tokens and tokens + n_prefill * cached),
            float(n_decode),
            float(n_decode * context),
        )

    base = [n_prefill, new, cached, n_decode, context]
    bigger = list(base)
    bigger[which % 5] += more
    assert seconds(*bigger) >= seconds(*base) * (1 - 1e-12)


def test_a_faster_card_is_faster() -> None:
    def decode(gpu: str) -> float:
        return step_seconds(latency(gpu, "llama-3.1-8b").coef, 0.0, 0.0, 0.0, 0.0, 32.0, 32 * 2048.0)

    assert decode("b200") < decode("h200") < decode("h100") < decode("a100") < decode("l40s") < decode("a6000")


def test_decode_agrees_with_published_orders_of_magnitude() -> None:
    """HexGen-Flow's simulator takes 35 ms a token on A100 for a 70B model (batch not stated)."""
    seconds = step_seconds(latency("a100", "llama-3.1-70b").raw_coef, 0.0, 0.0, 0.0, 0.0, 16.0, 16 * 4096.0)
    assert 0.030 < seconds < 0.036


@pytest.mark.skipif(not CAPACITIES.exists(), reason=f"{CAPACITIES} is not there")
def test_kv_tokens_are_the_published_package_s_times_pipeline_stages() -> None:
    systems = {"a100_sxm": "a100", "h100_sxm": "h100", "h200_sxm": "h200", "b200_sxm": "b200", "l40s": "l40s"}
    models = {"llama31-8b": "llama-3.1-8b", "llama31-70b": "llama-3.1-70b", "llama31-70b-fp8": "llama-3.1-70b-fp8"}
    checked = 0
    with CAPACITIES.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            names = systems.get(row["system"]), models.get(row["model"])
            if None in names:
                continue
            cell = Cell(str(names[0]), str(names[1]), int(row["tp"]), int(row["pp"]))
            if cell in CELLS:
                assert CELLS[cell].kv_tokens == pytest.approx(int(row["kv_tokens"]) * cell.pp, abs=cell.pp)
                checked += 1
    assert checked > 20
