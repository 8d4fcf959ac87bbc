"""Weights as a file that ``hexopt simulate --weights`` and ``hexopt serve --weights`` take."""

from __future__ import annotations

from pathlib import Path

from hexopt.atomic import atomic_write
from hexopt.objective import make_objective, weights_of


def write_weights(path: Path, objective: str, words: str) -> None:
    """Write the weights of ``objective`` as TOML, with ``words`` as its comment."""
    lines = [f"# {line}" for line in words.splitlines()]
    lines += ['preset = "deadline"', *(f"{name} = {value:.6g}" for name, value in _values(objective).items())]
    with atomic_write(path) as stream:
        stream.write("\n".join(lines) + "\n")


def _values(objective: str) -> dict[str, float]:
    return weights_of(make_objective(objective))
