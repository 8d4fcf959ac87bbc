"""How long it takes: learned step times of (GPU type, LLM, parallelism), output lengths and remaining work.

:func:`latency` gives a cell's coefficients and KV capacity; :mod:`hexopt.models.roofline` turns them into seconds.
:mod:`hexopt.models.lengths` and :mod:`hexopt.models.tails` predict what a call will be before it ends,
:mod:`hexopt.models.successors` what follows it; :mod:`hexopt.models.online` corrects step times by what instances show.
Profiles are sampled and frozen by :mod:`hexopt.models.profiling`, learned by :mod:`hexopt.models.training`.
"""

from hexopt.models.catalogue import GPUS, LLMS, Gpu, Llm
from hexopt.models.cells import Cell, LatencyCell, LatencyError, LatencyModels, latency, load_cells, read_latency
from hexopt.models.online import OnlineCorrection
from hexopt.models.roofline import FEATURE_NAMES, features, seconds, step_seconds

__all__ = [
    "FEATURE_NAMES",
    "GPUS",
    "LLMS",
    "Cell",
    "Gpu",
    "LatencyCell",
    "LatencyError",
    "LatencyModels",
    "Llm",
    "OnlineCorrection",
    "features",
    "latency",
    "load_cells",
    "read_latency",
    "seconds",
    "step_seconds",
]
