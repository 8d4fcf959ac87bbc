"""How HexOpt compiles its kernels."""

from __future__ import annotations

from functools import partial

from numba import njit

# No kernel allocates, so none needs Numba's reference counting: without it, passing the state's arrays around costs
# nothing, and the event loop runs three to four times faster.
kernel = partial(njit, cache=True, _nrt=False)
"""Decorator: compile without Python, cache on disk, no reference counting (a kernel must not allocate)."""
