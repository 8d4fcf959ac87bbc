"""What can be rented: GPU types with their prices, and the configurations of LLMs that run on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from hexopt.models.cells import LatencyCell, LatencyError, LatencyModels, bundled_latency, read_latency
from hexopt.toml_file import place_of, read_toml


class CatalogueError(ValueError):
    """A catalogue that cannot be; the message is one line and names the file and the field."""


@dataclass(frozen=True, slots=True)
class GpuOffer:
    """One GPU type as it can be rented.

    Parameters
    ----------
    name
        Canonical name, as the latency models have it.
    price
        Money an hour of one GPU, on demand.
    spot_price
        The same where the provider may take it back, None where it is not rented so.
    per_node
        GPUs of one node.
    max
        GPUs to be had at most, on demand and spot together; None for any number.
    max_spot
        Those of them to be had at the spot price; None for any number.
    whole_nodes
        Whether only whole nodes are rented.
    memory_gib, bandwidth
        Memory (GiB) and its bandwidth (GB/s), None where unknown.
    source, date
        Where and when ``price`` was read.
    spot_source
        Where and when ``spot_price`` was read.
    """

    name: str
    price: float
    spot_price: float | None = None
    per_node: int = 8
    max: int | None = None
    max_spot: int | None = None
    whole_nodes: bool = False
    memory_gib: float | None = None
    bandwidth: float | None = None
    source: str = ""
    date: str = ""
    spot_source: str = ""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """GPU types on offer, at most one offer a type.

    ``source`` is the file that was laid over the bundled catalogue, ``latency`` that of the latency models, both empty
    where there is none; ``models`` are the latency models.
    """

    currency: str
    offers: tuple[GpuOffer, ...]
    source: str = ""
    latency: str = ""
    models: LatencyModels = field(default_factory=bundled_latency, compare=False, repr=False)

    def offer(self, gpu: str) -> GpuOffer:
        """The offer of one GPU type.

        Raises
        ------
        CatalogueError
            Naming what there is.
        """
        for offer in self.offers:
            if offer.name == gpu:
                return offer
        names = ", ".join(offer.name for offer in self.offers)
        raise CatalogueError(f"{self.source or 'catalogue'}: no offer of GPU {gpu!r}, expected one of {names}")


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way to serve an LLM: an instance of ``tp * pp`` GPUs of one type.

    Parameters
    ----------
    gpu, llm, tp, pp
        What it is (:class:`hexopt.models.cells.Cell`).
    gpus
        GPUs of one instance.
    kv_tokens
        Tokens its KV cache holds.
    price, spot_price
        Money an hour of one instance, on demand and as spot (None where there is no spot price).
    cell
        Its latency model.
    """

    gpu: str
    llm: str
    tp: int
    pp: int
    gpus: int
    kv_tokens: int
    price: float
    spot_price: float | None
    cell: LatencyCell = field(repr=False)


def _as_text(value: Any) -> Any:
    """TOML's own dates as their text."""
    return value.isoformat() if type(value) is date else value


class _GpuRow(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    spot_price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    per_node: int | None = Field(default=None, ge=1, le=1024)
    max: int | None = Field(default=None, ge=0)
    max_spot: int | None = Field(default=None, ge=0)
    whole_nodes: bool | None = None
    memory_gib: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    bandwidth: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    source: str | None = None
    date: Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$")] | None = None
    spot_source: str | None = None


class _CatalogueFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")
    latency: str | None = None
    bundled: bool = True
    gpu: list[_GpuRow] = Field(default_factory=list)


def bundled_catalogue() -> Catalogue:
    """The catalogue that comes with HexOpt: list prices, each with its source and date."""
    path = Path(str(resources.files("hexopt.planning").joinpath("gpus.toml")))
    parsed = _parse(read_toml(path, CatalogueError), str(path))
    return Catalogue(parsed.currency, tuple(GpuOffer(**row.model_dump(exclude_none=True)) for row in parsed.gpu))


def load_catalogue(path: str | Path | None = None) -> Catalogue:
    """The bundled catalogue, with a file of one's own laid over it.

    A row of the file overrides what it gives of the bundled row of that name. A price of its own brings its own spot
    price, source and date, or none. With ``bundled = false`` only the GPU types of the file are on offer, and so with
    another currency than the bundled one, where each needs a price. ``latency`` names a file of latency models
    (``hexopt train``), relative to the catalogue, used instead of the bundled ones; other GPU names must be in it.

    Raises
    ------
    CatalogueError
        Naming the file and field.
    """
    base = bundled_catalogue()
    if path is None:
        return base
    where = str(path)
    parsed = _parse(read_toml(Path(path), CatalogueError), where)
    try:
        models = None if parsed.latency is None else read_latency(Path(path).parent / parsed.latency)
    except LatencyError as error:
        raise CatalogueError(f"{where}: latency: {error}") from error
    models = models or bundled_latency()
    known = list(dict.fromkeys(cell.gpu for cell in models.cells))
    rows = _unique(parsed, where)
    for name, (number, _) in rows.items():
        if name not in known:
            raise CatalogueError(
                f"{where}: gpu[{number}].name: unknown GPU {name!r}, expected one with a latency model: "
                f"{', '.join(known)}; give models of others by latency"
            )
    same_money = parsed.currency == base.currency
    under = {offer.name: offer for offer in base.offers}
    beside = parsed.bundled and same_money
    offers = {name: offer for name, offer in under.items() if beside and name in known}
    for name, (number, row) in rows.items():
        offers[name] = _merged(under.get(name), same_money, row, f"{where}: gpu[{number}]")
    if not offers:
        raise CatalogueError(f"{where}: gpu: nothing is on offer, expected a [[gpu]] with a price")
    latency = "" if parsed.latency is None else str((Path(path).parent / parsed.latency).resolve())
    return Catalogue(parsed.currency, tuple(offers.values()), where, latency, models)


def configurations(catalogue: Catalogue, llms: Sequence[str]) -> list[Configuration]:
    """Every configuration that can serve one of ``llms`` on a GPU type on offer, and fits one of its nodes.

    ``llms`` are variants that a user takes for equal (``llama-3.1-70b``, ``llama-3.1-70b-fp8``).

    Raises
    ------
    CatalogueError
        If no latency model is of one of ``llms``, naming those that there are.
    """
    where = catalogue.source or "catalogue"
    known = sorted({cell.llm for cell in catalogue.models.cells})
    for llm in llms:
        if llm not in known:
            raise CatalogueError(f"{where}: no latency model of LLM {llm!r}, expected one of {', '.join(known)}")
    offers = {offer.name: offer for offer in catalogue.offers}
    return [
        Configuration(
            gpu=cell.gpu,
            llm=cell.llm,
            tp=cell.tp,
            pp=cell.pp,
            gpus=cell.gpus,
            kv_tokens=model.kv_tokens,
            price=cell.gpus * offer.price,
            spot_price=None if offer.spot_price is None else cell.gpus * offer.spot_price,
            cell=model,
        )
        for cell, model in sorted(catalogue.models.cells.items())
        if (offer := offers.get(cell.gpu)) is not None and cell.llm in llms and cell.gpus <= offer.per_node
    ]


def _parse(document: dict[str, Any], where: str) -> _CatalogueFile:
    try:
        return _CatalogueFile.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise CatalogueError(f"{where}: {place_of(first['loc'])}: {first['msg']}") from error


def _unique(parsed: _CatalogueFile, where: str) -> dict[str, tuple[int, _GpuRow]]:
    rows: dict[str, tuple[int, _GpuRow]] = {}
    for number, row in enumerate(parsed.gpu):
        if row.name in rows:
            raise CatalogueError(f"{where}: gpu[{number}].name: a second row of {row.name!r}, expected one a GPU type")
        rows[row.name] = number, row
    return rows


def _merged(base: GpuOffer | None, same_money: bool, row: _GpuRow, where: str) -> GpuOffer:
    """One row laid over the bundled offer of its name."""
    given = row.model_dump(exclude_none=True)
    under: dict[str, Any] = {} if base is None else {key: getattr(base, key) for key in GpuOffer.__slots__}
    file = where.partition(": gpu[")[0]
    if row.price is not None or not same_money:
        # Prices are of one market: a bundled spot price says nothing beside another price on demand.
        for key in ("price", "spot_price", "source", "date", "spot_source"):
            under.pop(key, None)
        given.setdefault("source", file)
    if row.spot_price is not None:
        given.setdefault("spot_source", given.get("source", file))
    if "price" not in {**under, **given}:
        raise CatalogueError(f"{where}.price: is missing for {row.name!r}")
    return GpuOffer(**{**under, **given})
