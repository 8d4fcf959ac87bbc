"""Small traces that come with the package, drawn by ``scripts/make-samples``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from hexopt.traces.workflow import TraceError

SAMPLES: Mapping[str, Path] = MappingProxyType(
    {
        name: Path(str(files(__name__).joinpath(file)))
        for name, file in (
            ("text-to-sql", "text_to_sql.jsonl.gz"),
            ("coding-agent", "coding_agent.jsonl.gz"),
        )
    }
)
"""Files of the sample traces, by name: 300 Text-to-SQL workflows at 0.25/s (1.9 revisions each in the mean) and 200
short coding sessions at 0.05/s, a quarter of them with sub-agents. Poisson arrivals."""


def sample_path(name: str) -> Path:
    """Return the file of a sample trace.

    Raises
    ------
    TraceError
        On a name that is not in ``SAMPLES``.
    """
    if name not in SAMPLES:
        raise TraceError(f"sample is {name!r}, expected one of {', '.join(SAMPLES)}")
    return SAMPLES[name]
