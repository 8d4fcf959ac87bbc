"""What work arrives: workflows of LLM calls, read from and written to trace files."""

from hexopt.traces.reading import FORMATS, iter_trace, read_trace
from hexopt.traces.workflow import Prefix, Stage, TraceError, Workflow
from hexopt.traces.writing import write_trace

__all__ = [
    "FORMATS",
    "Prefix",
    "Stage",
    "TraceError",
    "Workflow",
    "iter_trace",
    "read_trace",
    "write_trace",
]
