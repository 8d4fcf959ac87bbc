"""HexOpt: schedules multi-stage LLM workflows on mixed GPU fleets.

Four rooms: :mod:`hexopt.traces` (what work arrives), :mod:`hexopt.models` (how long it takes),
:mod:`hexopt.solvers` (what is the best decision) and :mod:`hexopt` itself, the product built on the three.
"""

from hexopt._numba_cache import use_cache_of_these_sources

__version__ = "0.1.0"

use_cache_of_these_sources()
