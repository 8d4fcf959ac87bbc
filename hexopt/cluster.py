"""The fleet: which instances serve, and with what limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hexopt.links import DEFAULT_BANDWIDTH, Link, link_times
from hexopt.memory_rules import Admission, Swap
from hexopt.models.catalogue import LLMS, base_llm
from hexopt.models.cells import LatencyCell, LatencyError, LatencyModels, bundled_latency, read_latency
from hexopt.toml_file import place_of, read_toml


class ClusterError(ValueError):
    """A cluster that cannot be; the message names the file and the field."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One model server replica.

    Parameters
    ----------
    name
        Unique in its cluster.
    cell
        Learned latency and KV capacity of its (GPU type, LLM, TP, PP).
    max_num_seqs, max_num_batched_tokens, block_size, max_model_len
        vLLM's options of the same names.
    kv_tokens
        Tokens of KV cache.
    prefix_caching
        Whether automatic prefix caching is on.
    price
        Money an hour for the whole instance.
    speed
        Against the latency model: at 0.8 every step takes 1 / 0.8 of what it says.
    url
        Base URL of the server that is this instance, empty where there is none.
    swap, admission
        Host memory for KV, and the rule that admits; None: recompute, and what fits, as vLLM V1 does.
    role
        ``mixed``; or ``prefill``: hands its calls over after their first token; or ``decode``: takes such calls.
    kv_bytes
        Bytes of KV cache a token, 0 where it is not known.
    """

    name: str
    cell: LatencyCell
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    max_model_len: int
    kv_tokens: int
    prefix_caching: bool
    price: float
    speed: float = 1.0
    url: str = ""
    swap: Swap | None = None
    admission: Admission | None = None
    role: str = "mixed"
    kv_bytes: int = 0

    @property
    def coef(self) -> NDArray[np.float64]:
        """Coefficients of its step time (seconds), shape (``N_FEATURES``,)."""
        return self.cell.coef / self.speed


@dataclass(frozen=True, slots=True)
class Cluster:
    """The instances that one scheduler looks after; all serve the same LLM, or variants of it that do as well.

    ``source`` is the file that it was read from, ``latency`` that of its latency models, empty for the bundled ones.
    """

    name: str
    instances: tuple[Instance, ...]
    source: str = field(default="", compare=False)
    latency: str = field(default="", compare=False)
    links: tuple[Link, ...] = ()

    @property
    def has_roles(self) -> bool:
        """Whether some instances only prefill, and others only decode."""
        return any(i.role != "mixed" for i in self.instances)

    def link_times(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As :func:`hexopt.links.link_times`, of its instances."""
        cells = [i.cell.cell for i in self.instances]
        names, kv_bytes = [i.name for i in self.instances], [i.kv_bytes for i in self.instances]
        return link_times(self.links, names, [cell.gpu for cell in cells], kv_bytes)

    def __len__(self) -> int:
        return len(self.instances)


class _InstanceRow(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    gpu: str
    name: str | None = None
    count: int = Field(default=1, ge=1, le=4096)
    llm: str | None = None
    tp: int | None = Field(default=None, ge=1)
    pp: int | None = Field(default=None, ge=1)
    max_num_seqs: int | None = Field(default=None, ge=1, le=65536)
    max_num_batched_tokens: int | None = Field(default=None, ge=16, le=1 << 20)
    block_size: int | None = Field(default=None, ge=1, le=1024)
    max_model_len: int | None = Field(default=None, ge=1)
    kv_tokens: int | None = Field(default=None, ge=1)
    prefix_caching: bool | None = None
    price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    # Beyond what GPUs differ by: emulated servers run faster than the clock.
    speed: float = Field(default=1.0, ge=0.01, le=1000)
    url: str | None = Field(default=None, pattern=r"^https?://[^/?#\s]+[^?#\s]*$")
    swap: Swap | None = None
    admission: Admission | None = None
    role: Literal["mixed", "prefill", "decode"] = "mixed"


class _LinkRow(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    sender: str = Field(default="", alias="from")
    receiver: str = Field(default="", alias="to")
    bandwidth: float = Field(default=DEFAULT_BANDWIDTH, gt=0, allow_inf_nan=False)
    latency: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class _ClusterFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = None
    llm: str | None = None
    latency: str | None = None
    max_num_seqs: int | None = Field(default=None, ge=1, le=65536)
    max_num_batched_tokens: int | None = Field(default=None, ge=16, le=1 << 20)
    block_size: int | None = Field(default=None, ge=1, le=1024)
    max_model_len: int | None = Field(default=None, ge=1)
    prefix_caching: bool | None = None
    kv_bytes_per_token: int | None = Field(default=None, ge=1)
    link: list[_LinkRow] = []
    instance: list[_InstanceRow] = Field(min_length=1)


# vLLM's defaults for its OpenAI server (vllm/engine/arg_utils.py, get_batch_defaults): larger batches on GPUs with at
# least 70 GiB other than the A100.
_SMALL = {"max_num_batched_tokens": 2048, "max_num_seqs": 256}
_LARGE = {"max_num_batched_tokens": 8192, "max_num_seqs": 1024}
_LARGE_GPUS = frozenset({"h100", "h200", "b200", "rtx-pro-6000"})


def bundled_clusters() -> dict[str, Path]:
    """The clusters that come with HexOpt, by name."""
    folder = Path(str(resources.files("hexopt.clusters")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_cluster(source: str | Path) -> Cluster:
    """Read a cluster from a TOML file, or the bundled one of that name.

    Raises
    ------
    ClusterError
        Naming the file and field, for anything unreadable, unknown, or that does not fit in memory.
    """
    path = Path(source)
    if not path.suffix and not path.exists():
        known = bundled_clusters()
        if str(source) not in known:
            raise ClusterError(f"cluster {str(source)!r} is neither a file nor a bundled cluster ({', '.join(known)})")
        path = known[str(source)]
    return parse_cluster(read_toml(path, ClusterError), str(path), default_name=path.stem)


def parse_cluster(document: dict[str, Any], where: str, default_name: str = "cluster") -> Cluster:
    """Check a cluster document (the contents of a TOML file); ``where`` names it in errors."""
    try:
        parsed = _ClusterFile.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise ClusterError(f"{where}: {place_of(first['loc'])}: {first['msg']}") from error
    try:
        # Relative to the cluster's file, wherever the command is run.
        own = None if parsed.latency is None else read_latency(Path(where).parent / parsed.latency)
    except LatencyError as error:
        raise ClusterError(f"{where}: latency: {error}") from error
    rows = [
        instance
        for number, row in enumerate(parsed.instance)
        for instance in _replicas(parsed, row, own or bundled_latency(), f"{where}: instance[{number}]")
    ]
    names = [instance.name for instance in rows]
    for name in names:
        if names.count(name) > 1:
            raise ClusterError(f"{where}: instance: two are named {name!r}, give each a name of its own")
    llms = {instance.cell.cell.llm for instance in rows}
    if len({base_llm(llm) for llm in llms}) > 1:
        raise ClusterError(
            f"{where}: llm: instances serve {', '.join(sorted(llms))}, expected one LLM, or variants of one, for all"
        )
    links = tuple(_link(row, rows, f"{where}: link[{number}]") for number, row in enumerate(parsed.link))
    _check_roles(rows, where)
    latency = "" if parsed.latency is None else str((Path(where).parent / parsed.latency).resolve())
    return Cluster(parsed.name or default_name, tuple(rows), where, latency, links)


def refuse_roles(cluster: Cluster, who: str) -> None:
    """Refuse a cluster some of whose instances only prefill or decode; ``who`` cannot use them.

    Raises
    ------
    ClusterError
        Naming the first of them.
    """
    for instance in cluster.instances:
        if instance.role != "mixed":
            raise ClusterError(
                f"{cluster.source}: instance {instance.name!r} has role {instance.role!r}: {who} takes only instances "
                "that prefill and decode; prefill and decode roles are simulated"
            )


def _link(row: _LinkRow, instances: Sequence[Instance], where: str) -> Link:
    known = dict.fromkeys([*(i.cell.cell.gpu for i in instances), *(i.name for i in instances)])
    for key, end in (("from", row.sender), ("to", row.receiver)):
        if end and end not in known:
            raise ClusterError(f"{where}: {key} is {end!r}, expected one of {', '.join(known)}")
    return Link(row.sender, row.receiver, row.bandwidth, row.latency)


def _check_roles(instances: Sequence[Instance], where: str) -> None:
    """Refuse roles that lead nowhere, and KV that cannot be handed over."""
    apart = [i for i in instances if i.role != "mixed"]
    for role, other in (("prefill", "decode"), ("decode", "prefill")):
        if any(i.role == role for i in apart) and not any(i.role == other for i in apart):
            raise ClusterError(f"{where}: instance: there are {role} instances, but no {other} instances")
    llms = sorted({i.cell.cell.llm for i in apart})
    if len(llms) > 1:
        raise ClusterError(f"{where}: llm: prefill and decode instances serve {', '.join(llms)}: their KV differs")
    if any(i.kv_bytes == 0 for i in apart):
        raise ClusterError(f"{where}: kv_bytes_per_token is missing: {llms[0]} is not in the catalogue")


def cluster_toml(cluster: Cluster, urls: Sequence[str] = (), speed_up: float = 1.0) -> str:
    """The cluster as the text of a file that :func:`load_cluster` reads, with every setting written out.

    Parameters
    ----------
    urls
        Base URLs of the servers that are its instances, where there are some.
    speed_up
        How much faster than the cluster those are.
    """
    lines = [f"name = {json.dumps(cluster.name)}"]
    if cluster.latency:
        lines.append(f"latency = {json.dumps(cluster.latency)}")
    own = next((i.kv_bytes for i in cluster.instances if i.kv_bytes != _catalogue_kv(i.cell.cell.llm)), 0)
    if own:
        lines.append(f"kv_bytes_per_token = {own}")
    for link in cluster.links:
        ends = {"from": link.sender, "to": link.receiver}
        row = {key: end for key, end in ends.items() if end} | {"bandwidth": link.bandwidth, "latency": link.latency}
        lines += ["", "[[link]]", *_entries(row)]
    for k, instance in enumerate(cluster.instances):
        cell = instance.cell.cell
        row = {
            "name": instance.name,
            **({"url": urls[k]} if urls else {}),
            "gpu": cell.gpu,
            "llm": cell.llm,
            "tp": cell.tp,
            "pp": cell.pp,
            "max_num_seqs": instance.max_num_seqs,
            "max_num_batched_tokens": instance.max_num_batched_tokens,
            "block_size": instance.block_size,
            "max_model_len": instance.max_model_len,
            "kv_tokens": instance.kv_tokens,
            "prefix_caching": instance.prefix_caching,
            "price": instance.price,
            "speed": instance.speed * speed_up,
            **({"role": instance.role} if instance.role != "mixed" else {}),
        }
        tables = {"swap": instance.swap, "admission": instance.admission}
        lines += ["", "[[instance]]", *_entries(row)]
        lines += [f"{key} = {_inline(table)}" for key, table in tables.items() if table is not None]
    return "\n".join(lines) + "\n"


def _entries(row: dict[str, Any]) -> list[str]:
    # JSON's strings, numbers and booleans are TOML's.
    return [f"{key} = {json.dumps(value)}" for key, value in row.items()]


def _inline(table: BaseModel) -> str:
    """An inline table of TOML."""
    return "{ " + ", ".join(_entries(table.model_dump(exclude_none=True))) + " }"


def _catalogue_kv(llm: str) -> int:
    return LLMS[llm].kv_bytes_per_token if llm in LLMS else 0


def _replicas(cluster: _ClusterFile, row: _InstanceRow, models: LatencyModels, where: str) -> list[Instance]:
    llm = row.llm or cluster.llm
    if llm is None:
        raise ClusterError(f"{where}: llm is missing, here and at the top")
    try:
        cell = models.of(row.gpu, llm, row.tp, row.pp)
    except ValueError as error:
        raise ClusterError(f"{where}: {error}") from error

    def limit(
        key: Literal["max_num_seqs", "max_num_batched_tokens", "block_size", "max_model_len"], default: int
    ) -> int:
        value = getattr(row, key) if getattr(row, key) is not None else getattr(cluster, key)
        return default if value is None else int(value)

    defaults = _LARGE if row.gpu in _LARGE_GPUS else _SMALL
    kv_tokens = row.kv_tokens if row.kv_tokens is not None else cell.kv_tokens
    if kv_tokens > cell.kv_tokens:
        raise ClusterError(
            f"{where}: kv_tokens is {kv_tokens}, but {llm} on {row.gpu} leaves memory for {cell.kv_tokens}"
        )
    block_size = limit("block_size", 16)
    if kv_tokens < 2 * block_size:
        raise ClusterError(f"{where}: kv_tokens is {kv_tokens}, expected at least two blocks of {block_size}")
    if row.url is not None and row.count > 1:
        raise ClusterError(f"{where}: url is one server's, but count is {row.count}: give each a row of its own")
    if row.swap is not None and cell.cell.llm not in LLMS:
        raise ClusterError(f"{where}: swap: the KV bytes of {llm} are not known, expected one of {', '.join(LLMS)}")
    caching = row.prefix_caching if row.prefix_caching is not None else cluster.prefix_caching
    base = row.name or (row.gpu if row.role == "mixed" else f"{row.role}-{row.gpu}")
    return [
        Instance(
            name=base if row.count == 1 and row.name else f"{base}-{k}",
            cell=cell,
            max_num_seqs=limit("max_num_seqs", defaults["max_num_seqs"]),
            max_num_batched_tokens=limit("max_num_batched_tokens", defaults["max_num_batched_tokens"]),
            block_size=block_size,
            max_model_len=min(limit("max_model_len", 131072), kv_tokens),
            kv_tokens=kv_tokens,
            prefix_caching=True if caching is None else caching,
            price=row.price or 0.0,
            speed=row.speed,
            url=(row.url or "").rstrip("/"),
            swap=row.swap,
            admission=row.admission,
            role=row.role,
            kv_bytes=cluster.kv_bytes_per_token or _catalogue_kv(llm),
        )
        for k in range(row.count)
    ]
