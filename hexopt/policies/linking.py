"""Rules that the event loop calls by address: each compiles when it is first used, and the loop with none of them.

A rule is a module with kernels, of which all but the first may be missing:

- ``place(sim, know, r, now)``: choose the instance of the ready stage ``r`` and write its priority;
- ``ended(sim, know, r)``: stage ``r`` has ended and was learned from; returns ``r``;
- ``handed(sim, know, r, now)``: choose the decode instance of stage ``r``, which has got its first token on a prefill
  instance; by default the one with the smallest share of its memory promised;
- ``tick(sim, know, now)``: a controller's turn; sets ``clock.tick`` to its next one, and returns anything. The first
  one is at second 0.

The call keeps Numba's own convention, arrays and all; a plain function pointer would keep the loop out of the cache.
"""

# mypy: ignore-errors
from __future__ import annotations

from typing import Any

from numba import typeof, types
from numba.core import cgutils
from numba.extending import intrinsic

from hexopt.simulation.state import PREFILL

PLACE, ENDED, HANDED, TICK = 0, 1, 2, 3
HOOKS = 4
"""Places of the addresses, and how many there are."""
NO_HOOKS = (0,) * HOOKS


def address_of(rule: Any, *arguments: Any) -> int:
    """Where the kernel ``rule`` is in memory, compiled for arguments of these types; 0 without a rule."""
    if rule is None:
        return 0
    given = tuple(x if isinstance(x, types.Type) else typeof(x) for x in arguments)
    rule.compile(given)
    compiled = rule.overloads[given]
    if compiled.signature.return_type != types.int64:
        raise TypeError(
            f"{rule.py_func.__module__}.{rule.__name__} returns {compiled.signature.return_type}, not int64"
        )
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


def hands_over(rule: Any, board: Any, know: Any) -> tuple[int, ...]:
    """Addresses of a policy that is called by none but for ``rule``, which chooses decode instances where there are."""
    if not (board.instance["role"] == PREFILL).any():
        return NO_HOOKS
    handed = address_of(rule, board, know, types.int64, types.float64)
    return 0, 0, handed, 0


@intrinsic
def call_at(typing_context, address, arguments):
    """Call the rule at ``address`` with the tuple ``arguments``; its result, an int64."""
    given = tuple(arguments)

    def generate(context, builder, signature, values):
        convention = context.call_conv
        function = convention.get_function_type(types.int64, given)
        pointer = builder.inttoptr(values[0], function.as_pointer())
        unpacked = cgutils.unpack_tuple(builder, values[1], len(given))
        status, result = convention.call_function(builder, pointer, types.int64, given, unpacked)
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return result

    return types.int64(address, arguments), generate
