"""Switch what instances can do beyond vLLM V1 on, in their records."""

# mypy: ignore-errors
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.cluster import Instance
from hexopt.memory_rules import RULES, Admission, Swap
from hexopt.models.catalogue import LLMS
from hexopt.simulation.admission import LISTS
from hexopt.simulation.state import FITS, PAST_FUTURE

FIRST_LENGTH = 512
"""Output tokens of the calls that an instance remembers at first."""


def write_facts(row: Any, instance: Instance) -> None:
    """What swapping on ``instance`` depends on: KV bytes and copies of one GPU; 0 for LLMs that are not catalogued."""
    cell = instance.cell.cell
    llm = LLMS.get(cell.llm)
    if llm is not None:
        row["kv_bytes"] = llm.kv_bytes_per_token / (cell.tp * cell.pp)
        row["copy_parts"] = 2 * llm.layers // cell.pp


def switch_swap(row: Any, swap: Swap | None) -> None:
    """Give the instance in INSTANCE record ``row`` host memory, or take it; its facts are there already."""
    row["host_blocks"] = row["host_keep"] = 0
    if swap is None or row["kv_bytes"] == 0:
        return
    row["host_blocks"] = min(swap.gb * 1e9 // (row["kv_bytes"] * row["block_size"]), np.iinfo(np.int32).max)
    row["host_group"] = swap.granularity == "group"
    row["host_overlap"], row["host_reuse"], row["host_keep"] = swap.overlap, swap.reuse, swap.keep
    row["call_seconds"], row["byte_seconds"] = swap.call_us * 1e-6, 1e-9 / swap.gb_per_s


def switch_admission(row: Any, admission: Admission | None) -> None:
    """Let the instance in INSTANCE record ``row`` admit by the rule, or by what fits."""
    row["admission"] = FITS if admission is None else RULES.index(admission.rule)
    if row["admission"] == FITS:
        return
    row["share"] = admission.filled
    row["check_every"] = row["since_check"] = admission.every
    row["max_prefill"], row["max_new"] = admission.max_prefill, admission.max_new
    if row["admission"] == PAST_FUTURE:
        row["window"] = admission.window
        row["remembered"] = admission.window // 2


def switch_redraw(row: Any, every: int, keep: float) -> None:
    """Let the instance in INSTANCE record ``row`` draw priorities anew every so many steps."""
    row["by_priority"] = 1
    row["redraw_every"], row["redraw_keep"] = every, keep


def remembered(instance: NDArray[np.void]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """``history`` and ``forecast`` of a :class:`~hexopt.simulation.state.Simulation`; empty if no rule needs them."""
    history = np.zeros((len(instance), 2, int(instance["window"].max())), dtype=np.int32)
    for row, own in zip(instance, history, strict=True):
        own[:, : row["remembered"]] = FIRST_LENGTH
    calls = int(instance["max_seqs"].max()) + 1 if (instance["admission"] != FITS).any() else 0
    return history, np.zeros((2 * LISTS, calls), dtype=np.int32)
