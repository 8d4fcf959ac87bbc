"""Policies compared over a grid of traces, clusters, rates and deadlines: runs, statistics, figures, a report."""

from hexopt.research.definition import Definition, DefinitionError, load_definition
from hexopt.research.grid import run_grid
from hexopt.research.results import Results

__all__ = ["Definition", "DefinitionError", "Results", "load_definition", "run_grid"]
