"""Which instances a rule may choose from."""

# mypy: ignore-errors
from __future__ import annotations

from hexopt.models.kernel import kernel
from hexopt.simulation.state import DECODE, OPEN


@kernel
def begins(inst):
    """Whether calls may begin on this instance: it is open, and does not only decode."""
    return inst.state == OPEN and inst.role != DECODE
