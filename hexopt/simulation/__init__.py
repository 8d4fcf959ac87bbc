"""The simulator: vLLM instances in jumps, exact to the step; runs, their figures and exports.

:class:`Experiment` goes from workflows and a cluster to runs; :func:`summarise` says what a run was worth.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hexopt.simulation.experiment import Experiment, standalone_seconds
    from hexopt.simulation.export import write_chrome_trace, write_json, write_parquet
    from hexopt.simulation.metrics import Summary, attainment_curve, latencies, summarise
    from hexopt.simulation.simulator import Run, SimulationError, simulate
    from hexopt.simulation.workload import Workload

__all__ = [
    "Experiment",
    "Run",
    "SimulationError",
    "Summary",
    "Workload",
    "attainment_curve",
    "latencies",
    "simulate",
    "standalone_seconds",
    "summarise",
    "write_chrome_trace",
    "write_json",
    "write_parquet",
]
_MODULES = ("experiment", "export", "metrics", "simulator", "workload")


def __getattr__(name: str) -> Any:
    # Imported when asked for: kernels of policies and of the simulation call each other.
    if name in __all__:
        for module in _MODULES:
            found = getattr(import_module(f"{__name__}.{module}"), name, None)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
