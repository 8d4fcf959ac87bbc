"""Throughput tables of other planners: Mélange's configuration and AIBrix's GPU profiles.

Both say how many requests of a size a GPU type serves a second within a service level, measured before. Mélange's file
(github.com/tyler-griggs/melange-release, ``melange/config``; arXiv 2404.14527) holds the workload too. AIBrix
(github.com/vllm-project/aibrix, ``gpu_optimizer/optimizer/profiling/gen_profile.py``) writes a profile a GPU type; the
workload is counted from calls.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hexopt.toml_file import place_of


class TableError(ValueError):
    """A throughput table that cannot be; the message is one line and names the file and the field."""


@dataclass(frozen=True, slots=True, eq=False)
class ThroughputTable:
    """What each GPU type serves of each size of requests, and what is to be served.

    Parameters
    ----------
    gpus
        Names of g GPU types (or instances of several GPUs).
    price
        Money an hour of one, shape (g,).
    buckets
        Names of b sizes of requests.
    throughput
        Requests a second that one GPU serves if it serves nothing else, 0 where it serves none; shape (g, b).
    share
        Of the requests, shape (b,).
    rate
        Requests a second in all.
    source
        Where it was read.
    """

    gpus: tuple[str, ...]
    price: NDArray[np.float64]
    buckets: tuple[str, ...]
    throughput: NDArray[np.float64] = field(repr=False)
    share: NDArray[np.float64] = field(repr=False)
    rate: float
    source: str = ""

    @property
    def demand(self) -> NDArray[np.float64]:
        """Requests a second of each bucket, shape (b,)."""
        return self.rate * self.share


def read_melange(path: str | Path) -> ThroughputTable:
    """Read a configuration file of Mélange.

    Buckets are the cells of its matrices, input sizes down and output sizes across. ``slice_factor`` is not needed, as
    shares are continuous here.

    Raises
    ------
    TableError
        Naming the file and the field.
    """
    parsed = _parse(_MelangeFile, _document(Path(path)), str(path))
    where = str(path)
    shape = _shape(parsed.workload_distribution, f"{where}: workload_distribution")
    for name, gpu in parsed.gpu_info.items():
        found = _shape(gpu.tputs, f"{where}: gpu_info.{name}.tputs")
        if found != shape:
            raise TableError(
                f"{where}: gpu_info.{name}.tputs: is {found[0]} x {found[1]}, "
                f"expected {shape[0]} x {shape[1]} as workload_distribution"
            )
    share = np.array(parsed.workload_distribution).ravel()
    if abs(float(share.sum()) - 1.0) > 0.01:
        raise TableError(f"{where}: workload_distribution: sums to {share.sum():.4g}, expected 1")
    return ThroughputTable(
        gpus=tuple(parsed.gpu_info),
        price=np.array([gpu.cost for gpu in parsed.gpu_info.values()]),
        buckets=tuple(f"input size {i}, output size {o}" for i in range(shape[0]) for o in range(shape[1])),
        throughput=np.array([gpu.tputs for gpu in parsed.gpu_info.values()]).reshape(len(parsed.gpu_info), -1),
        share=share,
        rate=parsed.total_request_rate,
        source=where,
    )


def read_aibrix(
    paths: Sequence[str | Path], calls: Iterable[tuple[int, int]], rate: float, *, clip: bool = False
) -> ThroughputTable:
    """Read AIBrix's GPU profiles, and count ``calls`` into their sizes.

    A call counts as the next larger size of the profiles, in prompt and in output, so that nothing is served faster
    than was measured (AIBrix itself takes the nearest).

    Parameters
    ----------
    paths
        A file a GPU type, as ``gen_profile.py -o`` writes it.
    calls
        Prompt and output tokens of the calls to be served.
    rate
        Calls a second.
    clip
        Whether calls beyond the largest size count as that, as AIBrix has it, rather than being refused.

    Raises
    ------
    TableError
        Naming the file and the field.
    """
    if not paths:
        raise TableError("no AIBrix profile, expected a file a GPU type")
    profiles = [_parse(_AibrixProfile, _document(Path(path)), str(path)) for path in paths]
    first = profiles[0]
    outputs, inputs = first.indexes
    for path, profile in zip(paths, profiles, strict=True):
        for key, values in zip(("output", "input"), profile.indexes, strict=True):
            if not values or any(b <= a for a, b in itertools.pairwise(values)):
                raise TableError(f"{path}: indexes: {key} tokens are {values}, expected ascending numbers")
        if profile.indexes != first.indexes:
            raise TableError(f"{path}: indexes: are {profile.indexes}, but those of {paths[0]} are {first.indexes}")
        shape = _shape(profile.tputs, f"{path}: tputs")
        if shape != (len(outputs), len(inputs)):
            raise TableError(
                f"{path}: tputs: is {shape[0]} x {shape[1]}, "
                f"expected {len(outputs)} x {len(inputs)} as indexes (output tokens down)"
            )
    names = [profile.gpu for profile in profiles]
    for name in names:
        if names.count(name) > 1:
            raise TableError(f"{paths[names.index(name)]}: gpu: {name!r} is the name of another profile too")
    if not (math.isfinite(rate) and rate > 0):
        raise TableError(f"rate is {rate}, expected calls a second > 0")
    lengths = np.array(list(calls), dtype=np.float64).reshape(-1, 2)
    if not lengths.size:
        raise TableError("no calls to be served, expected prompt and output tokens of some")
    beyond = (lengths[:, 0] > inputs[-1]) | (lengths[:, 1] > outputs[-1])
    if beyond.any() and not clip:
        raise TableError(
            f"{paths[0]}: indexes: {beyond.sum()} of {beyond.size} calls are beyond the largest size, "
            f"{inputs[-1]:g} input and {outputs[-1]:g} output tokens"
        )
    column = np.minimum(np.searchsorted(inputs, lengths[:, 0]), len(inputs) - 1)
    row = np.minimum(np.searchsorted(outputs, lengths[:, 1]), len(outputs) - 1)
    counts = np.bincount(row * len(inputs) + column, minlength=len(outputs) * len(inputs))
    return ThroughputTable(
        gpus=tuple(names),
        price=np.array([profile.cost for profile in profiles]),
        buckets=tuple(f"{i:g} input, {o:g} output tokens" for o in outputs for i in inputs),
        throughput=np.array([profile.tputs for profile in profiles]).reshape(len(profiles), -1),
        share=counts / counts.sum(),
        rate=float(rate),
        source=", ".join(map(str, paths)),
    )


_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _MelangeGpu(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    cost: _Amount
    tputs: list[list[_Amount]]


class _MelangeFile(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    gpu_info: dict[str, _MelangeGpu] = Field(min_length=1)
    workload_distribution: list[list[_Amount]]
    total_request_rate: _Positive


class _AibrixProfile(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    gpu: str = Field(min_length=1)
    cost: _Amount
    tputs: list[list[_Amount]]
    indexes: Annotated[list[list[_Positive]], Field(min_length=2, max_length=2)]


_File = TypeVar("_File", bound=BaseModel)


def _document(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise TableError(f"{path}: is not JSON: {error}") from error


def _parse(model: type[_File], document: Any, where: str) -> _File:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise TableError(f"{where}: {place_of(first['loc']) or 'top level'}: {first['msg']}") from error


def _shape(matrix: list[list[float]], where: str) -> tuple[int, int]:
    widths = {len(row) for row in matrix}
    if len(widths) != 1 or widths == {0}:
        raise TableError(f"{where}: expected rows of one length")
    return len(matrix), widths.pop()
