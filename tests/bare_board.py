"""Boards and knowledge with nothing but what a kernel under test reads.

Of the package's own types: a cached kernel names the types that it was compiled for, which all must be able to read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hexopt.models.lengths import empty_lengths
from hexopt.models.successors import no_successors
from hexopt.models.tails import empty_tails
from hexopt.policies.knowledge import Knowledge
from hexopt.simulation.state import CLOCK, ENTRY, EVENT, INSTANCE, NODE, NODE_HERE, STAGE, WORKFLOW, Simulation


def bare_board(**arrays: Any) -> Simulation:
    """A board with these arrays; the others are empty."""
    tables = {"stage": STAGE, "workflow": WORKFLOW, "instance": INSTANCE, "node": NODE}
    nothing: dict[str, Any] = {name: np.zeros(0, dtype=dtype) for name, dtype in tables.items()}
    nothing |= {name: np.zeros(0, dtype=np.int32) for name in ("child", "path", "delayed", "ready")}
    nothing |= {"history": np.zeros((0, 2, 0), dtype=np.int32), "forecast": np.zeros((0, 0), dtype=np.int32)}
    nothing |= {"event": np.zeros(0, dtype=EVENT), "link_latency": np.zeros((0, 0)), "link_seconds": np.zeros((0, 0))}
    nothing |= {"coef": np.zeros((0, 1)), "running": np.zeros((0, 0), dtype=np.int32)}
    nothing |= {"here": np.zeros((0, 0), dtype=NODE_HERE), "entry": np.zeros((0, 0), dtype=ENTRY)}
    return Simulation(**(nothing | {"clock": np.zeros(1, dtype=CLOCK)} | arrays))


def bare_knowledge(**arrays: Any) -> Knowledge:
    """Knowledge with these arrays; the others are empty."""
    nothing: dict[str, Any] = {
        name: np.zeros(0) for name in ("mean_coef", "scale", "speed", "weights", "memory", "length_noise")
    }
    nothing |= {name: np.zeros((0, 0)) for name in ("coef", "table", "programs")}
    nothing |= {"taken_for": np.zeros(0, dtype=np.int64)}
    nothing |= {"counts": np.zeros((0, 0), dtype=np.int16), "successors": no_successors()}
    nothing |= {"lengths": empty_lengths(1), "tails": empty_tails(1)}
    return Knowledge(**(nothing | arrays))
