"""The processor's cycle counter: cheap enough to time every single decision inside a compiled loop.

A clock cannot be asked there: Numba knows none, and a call into the system would cost as much as the decision.
"""

# mypy: ignore-errors
from __future__ import annotations

import platform

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from hexopt.models.kernel import kernel

COUNTS = platform.machine() in {"x86_64", "AMD64"}
"""Whether there is a counter; other processors do not let programs read theirs, and it stays 0."""


@intrinsic
def cycles(typing_context):
    """Cycles since some moment, as int64."""

    def generate(context, builder, signature, arguments):
        integer = ir.IntType(64)
        if not COUNTS:
            return ir.Constant(integer, 0)
        counter = builder.module.declare_intrinsic("llvm.readcyclecounter", (), ir.FunctionType(integer, ()))
        return builder.call(counter, ())

    return types.int64(), generate


@kernel
def read_cycles():
    """:func:`cycles` for Python."""
    return cycles()
