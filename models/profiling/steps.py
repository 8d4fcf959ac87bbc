"""Steps that a running engine was seen to make, and the profile that they freeze into.

A CSV of steps has a header and these columns:

- ``group``: steps of one group were measured together (integer); a group is learned from or held out as a whole.
- ``beyond``: 1 if the step lies beyond the range of those learned from, else 0.
- ``n_prefill``, ``prefill_tokens``, ``prefill_cached``: prefill chunks, their new and their already computed tokens.
- ``n_decode``, ``decode_context``: decoding sequences and their contexts (sum, tokens), the computed token included.
- ``seconds``: how long the step took.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hexopt.models.cells import Cell
from hexopt.models.profiling.frozen import FrozenProfile, ProfileError, Provenance
from hexopt.models.profiling.vllm_engine import COLUMNS

HELD_OUT = 0.25
"""Share of the groups that is tested on."""


class Step(NamedTuple):
    """One measured step; fields as the columns above."""

    group: int
    beyond: bool
    n_prefill: int
    prefill_tokens: int
    prefill_cached: int
    n_decode: int
    decode_context: int
    seconds: float


class About(NamedTuple):
    """What the JSON beside a CSV of steps says: engine, model, parallelism, tokens of KV cache, clock."""

    engine: str
    model: str
    tp: int
    pp: int
    kv_tokens: int
    clock: str


def read_about(steps: Path) -> About:
    """Read the JSON beside a CSV of steps.

    Raises
    ------
    ProfileError
        Naming the file and what is wrong with it.
    """
    path = steps.with_suffix(".json")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        about = About(
            str(document["engine"]),
            str(document["model"]),
            int(document["tp"]),
            int(document["pp"]),
            int(document["kv_tokens"]),
            str(document["clock"]),
        )
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ProfileError(f"{path}: does not say what was measured: {error}") from error
    if about.kv_tokens <= 0:
        raise ProfileError(f"{path}: kv_tokens is {about.kv_tokens}, expected a positive number")
    return about


def read_steps(path: Path) -> list[Step]:
    """Read a CSV of steps.

    Raises
    ------
    ProfileError
        Naming the file and line, for anything else.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if tuple(header) != COLUMNS:
                raise ProfileError(f"{path}:1: columns are {','.join(header)!r}, expected {','.join(COLUMNS)}")
            return [_parse(row, f"{path}:{reader.line_num}") for row in reader]
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from error


def _parse(row: list[str], where: str) -> Step:
    if len(row) != len(COLUMNS):
        raise ProfileError(f"{where}: has {len(row)} fields, expected {len(COLUMNS)}")
    try:
        group, beyond, *counts = (int(value) for value in row[:-1])
        chunks, new, done, decodes, context = counts
        step = Step(group, bool(beyond), chunks, new, done, decodes, context, float(row[-1]))
    except ValueError as error:
        raise ProfileError(f"{where}: {error}") from error
    if min(counts) < 0 or beyond not in (0, 1) or not 0 < step.seconds < float("inf"):
        raise ProfileError(f"{where}: expected counts of at least 0, 0 or 1, positive seconds, got {','.join(row)!r}")
    if (
        step.n_prefill > step.prefill_tokens
        or step.n_decode > step.decode_context
        or step.n_prefill + step.n_decode == 0
    ):
        raise ProfileError(f"{where}: expected at least one sequence, each of at least one token")
    return step


def freeze(steps: Sequence[Step], cell: Cell, provenance: Provenance, seed: int = 0) -> FrozenProfile:
    """A profile of measured steps: a quarter of the groups held out, those beyond the range apart.

    Parameters
    ----------
    steps
        At least four groups within the range, and a step beyond it.
    cell, provenance
        What they are of, and where from.
    seed
        Of the choice of the groups.

    Raises
    ------
    ProfileError
        If there are fewer.
    """
    within = sorted({step.group for step in steps if not step.beyond})
    if len(within) < 4 or all(not step.beyond for step in steps):
        raise ProfileError(
            f"the steps of {cell} are {len(within)} groups and {sum(step.beyond for step in steps)} steps beyond the "
            "range, expected at least 4 and 1: measure longer, or at more points"
        )
    shuffled = np.random.default_rng(seed).permutation(within)
    held_out = set(shuffled[: max(round(HELD_OUT * len(within)), 1)].tolist())
    split = ["extrapolation" if step.beyond else "test" if step.group in held_out else "train" for step in steps]
    chunks, new, done, decodes, context = np.array([step[2:7] for step in steps], dtype=np.int64).T
    seconds = np.array([step.seconds for step in steps])
    return FrozenProfile(cell, provenance, chunks, new, done, decodes, context, seconds, np.array(split, dtype=np.str_))
