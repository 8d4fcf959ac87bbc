"""What work arrives: workflows of LLM calls, read from trace files, drawn from published distributions, written.

:func:`read_trace` reads any of :data:`FORMATS`, :func:`synthesize` draws one of :data:`FAMILIES`, :func:`with_arrivals`
says when they come, :func:`describe` says what they are, :func:`write_trace` writes them as agentic Mooncake.
"""

from hexopt.traces.arrivals import diurnal, gamma, poisson, rescaled, with_arrivals
from hexopt.traces.reading import FORMATS, iter_trace, read_trace
from hexopt.traces.samples import SAMPLES, sample_path
from hexopt.traces.statistics import TraceSummary, describe
from hexopt.traces.synthesis import FAMILIES, synthesize
from hexopt.traces.workflow import Prefix, Stage, TraceError, Workflow
from hexopt.traces.writing import write_trace

__all__ = [
    "FAMILIES",
    "FORMATS",
    "SAMPLES",
    "Prefix",
    "Stage",
    "TraceError",
    "TraceSummary",
    "Workflow",
    "describe",
    "diurnal",
    "gamma",
    "iter_trace",
    "poisson",
    "read_trace",
    "rescaled",
    "sample_path",
    "synthesize",
    "with_arrivals",
    "write_trace",
]
