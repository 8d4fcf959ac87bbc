"""Random numbers inside kernels: one state of 64 bits an instance."""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

from hexopt.models.kernel import kernel

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


@kernel
def draw(sim, i):
    """A uniform number in [0, 1) from instance ``i``'s generator: splitmix64 (Steele, Lea, Flood 2014), top 53 bits."""
    inst = sim.instance[i]
    inst.generator += _STEP
    z = inst.generator
    z = (z ^ (z >> _30)) * _FIRST
    z = (z ^ (z >> _27)) * _SECOND
    z = z ^ (z >> _31)
    return np.float64(z >> _11) * 2.0**-53
