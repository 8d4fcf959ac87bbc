"""Small demands and options for the tests of planning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hexopt.planning.catalogue import configurations, load_catalogue
from hexopt.planning.demand import Demand, Service
from hexopt.planning.fleet import Limits, Option, options_of
from hexopt.planning.proof import Prover, Setting
from hexopt.policies.policy import GreedyUrgency
from hexopt.traces import synthesize
from hexopt.traces.workflow import Workflow

CATALOGUE = load_catalogue()


def workflows(count: int = 30, seed: int = 0, family: str = "text-to-sql") -> tuple[Workflow, ...]:
    """Synthetic workflows."""
    return tuple(synthesize(family, count, np.random.default_rng(seed)))


def demand(rate: float = 0.3, slo: float | None = 90.0, seed: int = 0, count: int = 30) -> Demand:
    """One service."""
    return Demand((Service("sql", workflows(count, seed), rate, slo),))


def options(names: Sequence[str], llms: Sequence[str] = ("llama-3.1-70b",)) -> tuple[Option, ...]:
    """The bundled catalogue's options of those names."""
    every = options_of(configurations(CATALOGUE, llms))
    return tuple(next(o for o in every if o.name == name) for name in names)


def limits(**changes: object) -> Limits:
    """The bundled catalogue's limits: none."""
    return Limits({offer.name: offer for offer in CATALOGUE.offers}, **changes)  # type: ignore[arg-type]


def priced(option: Option, price: float) -> Option:
    """The same at another price."""
    return replace(option, instance=replace(option.instance, price=price))


def prover(of: Demand, among: Sequence[Option], seconds: float | None = 900.0, seeds: int = 2) -> Prover:
    """A judge with short runs."""
    return Prover(Setting.of(of, among, GreedyUrgency(), seconds), seeds, seeds)
