"""How HexOpt compiles its kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile ``function`` without Python and cache it on disk; it must not allocate.

    No kernel allocates, so none needs Numba's reference counting: without it, passing the state's arrays around costs
    nothing, and the event loop runs three to four times faster. To a type checker it stays the function it was.
    """
    compiler: Any = njit  # its annotations do not know these options
    # Nothing calls a kernel from C: its wrapper for that would take a quarter of the time of compiling.
    return cast(Function, compiler(cache=True, _nrt=False, no_cfunc_wrapper=True)(function))
