"""Capacity planning: the cheapest fleet that keeps a promise, proven by simulation.

:class:`Demand` is what arrives, :func:`load_catalogue` what can be rented, :func:`options_of` what fleets are made of;
:class:`Search` finds the cheapest fleet, :class:`Prover` simulates it. ``docs/planning.md`` has the mathematics.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hexopt.planning.catalogue import Catalogue, CatalogueError, Configuration, configurations, load_catalogue
    from hexopt.planning.demand import Demand, DemandError, Service, single
    from hexopt.planning.fleet import Limits, Option, bill_of, cluster_of, options_of
    from hexopt.planning.proof import Prover, Setting, Verdict
    from hexopt.planning.search import NoFleetError, Plan, Question, Search

_MODULES = {
    "catalogue": ("Catalogue", "CatalogueError", "Configuration", "configurations", "load_catalogue"),
    "demand": ("Demand", "DemandError", "Service", "single"),
    "fleet": ("Limits", "Option", "bill_of", "cluster_of", "options_of"),
    "proof": ("Prover", "Setting", "Verdict"),
    "search": ("NoFleetError", "Plan", "Question", "Search"),
}

__all__ = [
    "Catalogue",
    "CatalogueError",
    "Configuration",
    "Demand",
    "DemandError",
    "Limits",
    "NoFleetError",
    "Option",
    "Plan",
    "Prover",
    "Question",
    "Search",
    "Service",
    "Setting",
    "Verdict",
    "bill_of",
    "cluster_of",
    "configurations",
    "load_catalogue",
    "options_of",
    "single",
]


def __getattr__(name: str) -> Any:
    # Imported when asked for: reading a catalogue needs no simulator.
    from importlib import import_module

    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
