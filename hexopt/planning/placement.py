"""Which work ran where in a run: calls and seconds by stage kind and option."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hexopt.planning.fleet import Fleet
from hexopt.planning.proof import Setting, run_of


@dataclass(frozen=True)
class Placement:
    """Where the calls of a run went.

    Parameters
    ----------
    kinds
        Stage kinds.
    options
        Options of the fleet, by their place.
    share
        Share of a kind's calls that ran on each option, shape (kinds, options).
    seconds
        Mean seconds from ready to end of a kind's calls on each option, NaN where there are none, same shape.
    wait
        Mean seconds from ready to start, same shape.
    busy
        Share of the time that each option's instances were busy, shape (options,).
    """

    kinds: tuple[str, ...]
    options: tuple[int, ...]
    share: np.ndarray
    seconds: np.ndarray
    wait: np.ndarray
    busy: np.ndarray


def placement(setting: Setting, fleet: Fleet, seed: int = 0) -> Placement:
    """Where the calls go when ``fleet`` is simulated with ``seed``."""
    run, _ = run_of(setting, fleet, seed)
    used = [j for j, n in enumerate(fleet) if n]
    option_of = np.repeat(np.arange(len(used)), [fleet[j] for j in used])
    done = np.isfinite(run.stage["finish"])
    kind, where = run.stage["kind"][done], option_of[run.stage["instance"][done]]
    shape = (len(run.kinds), len(used))
    index = np.ravel_multi_index((kind, where), shape)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(index, weights=values, minlength=shape[0] * shape[1]).reshape(shape)

    count = total(np.ones(len(index)))
    with np.errstate(invalid="ignore"):
        return Placement(
            run.kinds,
            tuple(used),
            count / np.maximum(count.sum(axis=1, keepdims=True), 1.0),
            total((run.stage["finish"] - run.stage["ready"])[done]) / np.where(count > 0, count, np.nan),
            total((run.stage["start"] - run.stage["ready"])[done]) / np.where(count > 0, count, np.nan),
            np.bincount(option_of, weights=run.instance["busy_seconds"]) / (run.end * np.bincount(option_of)),
        )
