"""Frozen profiles: sampled iteration times of one cell, as a CSV with a JSON of its provenance beside it."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexopt.models.cells import Cell

SPLITS = ("train", "test", "extrapolation")
"""``train`` and ``test`` cover the same range; ``extrapolation`` lies beyond it."""
REFUSED = "refused.json"
"""File beside the profiles: which parallelisms were not sampled, and why."""
_INTEGERS = ("n_prefill", "prefill_tokens", "prefill_cached", "n_decode", "decode_context")
COLUMNS = (*_INTEGERS, "seconds", "split")


class ProfileError(ValueError):
    """A profile that cannot be used; the message names the file, the line and what was expected."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a profile comes from.

    Parameters
    ----------
    package, package_version, source, licence
        What produced it, where that is published, and under which licence.
    system
        The package's name of the machine that was measured.
    engine
        The serving engine whose kernels were measured, with its version.
    kv_tokens
        Tokens of KV cache (positive).
    estimated
        False: measured on silicon. True: scaled from another GPU type.
    date
        ISO date of the sampling.
    notes
        Assumptions and warnings, one sentence each.
    running_engine
        Whether the times are a running engine's, with its own overhead, which sums of kernel times lack.
    """

    package: str
    package_version: str
    source: str
    licence: str
    system: str
    engine: str
    kv_tokens: int
    estimated: bool
    date: str
    notes: tuple[str, ...] = ()
    running_engine: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class FrozenProfile:
    """Times of n iterations of one cell; all arrays have shape (n,).

    Parameters
    ----------
    cell
        What was sampled.
    provenance
        Where from.
    n_prefill, prefill_tokens, prefill_cached
        Prefill chunks, their new tokens and their already computed tokens (sums over the chunks).
    n_decode, decode_context
        Decoding sequences and their context lengths (sum), each including the token being computed.
    seconds
        Time of the iteration.
    split
        One of :data:`SPLITS` each.
    """

    cell: Cell
    provenance: Provenance
    n_prefill: NDArray[np.int64]
    prefill_tokens: NDArray[np.int64]
    prefill_cached: NDArray[np.int64]
    n_decode: NDArray[np.int64]
    decode_context: NDArray[np.int64]
    seconds: NDArray[np.float64]
    split: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def name(self) -> str:
        """File name without suffix."""
        return profile_name(self.cell)


def profile_name(cell: Cell) -> str:
    """File name, without suffix, of a cell's profile."""
    return f"{cell.gpu}_{cell.llm}_tp{cell.tp}pp{cell.pp}"


def write_profile(profile: FrozenProfile, folder: Path) -> Path:
    """Write ``<name>.csv`` and ``<name>.json`` into ``folder`` and return the path of the CSV."""
    rows = zip(*(getattr(profile, column).tolist() for column in COLUMNS), strict=True)
    lines = [",".join(COLUMNS)] + [
        ",".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in row) for row in rows
    ]
    path = folder / f"{profile.name}.csv"
    document = {"cell": asdict(profile.cell), "provenance": asdict(profile.provenance)}
    replace_text(path, "\n".join(lines) + "\n")
    replace_text(path.with_suffix(".json"), json.dumps(document, indent=2) + "\n")
    return path


def replace_text(path: Path, text: str) -> None:
    """Write a whole file at once: under a temporary name beside it, then renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_profile(path: Path) -> FrozenProfile:
    """Read the profile whose CSV is ``path``; its JSON lies beside it.

    Raises
    ------
    ProfileError
        Naming the file and the line, for anything that is not what :func:`write_profile` writes.
    """
    cell, provenance = _read_provenance(path.with_suffix(".json"))
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if tuple(header) != COLUMNS:
            raise ProfileError(f"{path}:1: columns are {','.join(header)!r}, expected {','.join(COLUMNS)}")
        rows = [_parse_row(row, f"{path}:{reader.line_num}") for row in reader]
    if not rows:
        raise ProfileError(f"{path}: has no rows")
    columns = list(zip(*rows, strict=True))
    n_prefill, new, cached, n_decode, context = (np.array(c, dtype=np.int64) for c in columns[: len(_INTEGERS)])
    seconds, split = np.array(columns[-2], dtype=np.float64), np.array(columns[-1], dtype=np.str_)
    return FrozenProfile(cell, provenance, n_prefill, new, cached, n_decode, context, seconds, split)


def _parse_row(row: list[str], where: str) -> tuple[int | float | str, ...]:
    if len(row) != len(COLUMNS):
        raise ProfileError(f"{where}: has {len(row)} fields, expected {len(COLUMNS)}")
    try:
        integers = [int(value) for value in row[: len(_INTEGERS)]]
        seconds = float(row[-2])
    except ValueError as error:
        raise ProfileError(f"{where}: {error}") from error
    n_prefill, prefill_tokens, _, n_decode, decode_context = integers
    if min(integers) < 0 or not 0 < seconds < float("inf"):
        raise ProfileError(f"{where}: expected counts of at least 0 and positive seconds, got {','.join(row)!r}")
    if n_prefill > prefill_tokens or n_decode > decode_context or n_prefill + n_decode == 0:
        raise ProfileError(f"{where}: expected at least one sequence, each of at least one token")
    if row[-1] not in SPLITS:
        raise ProfileError(f"{where}: split is {row[-1]!r}, expected one of {', '.join(SPLITS)}")
    return (*integers, seconds, row[-1])


def _read_provenance(path: Path) -> tuple[Cell, Provenance]:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        fields = dict(document["provenance"])
        fields["notes"] = tuple(fields["notes"])
        cell, provenance = Cell(**document["cell"]), Provenance(**fields)
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ProfileError(f"{path}: is not a profile's provenance: {error}") from error
    if provenance.kv_tokens <= 0:
        raise ProfileError(f"{path}: kv_tokens is {provenance.kv_tokens}, expected a positive number")
    return cell, provenance
