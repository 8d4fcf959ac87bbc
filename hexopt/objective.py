"""What is wanted: named presets of the objective, every weight of which can be set."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path

from hexopt.solvers import ObjectiveWeights


class ObjectiveError(ValueError):
    """An unknown preset or weight, or a value out of range; the message says which and what there is."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What the scheduler minimises each epoch.

    Parameters
    ----------
    weights
        What a unit of each term costs, as solvers take it. A stage's weight is its workflow's times its urgency, so
        ``completion`` weighs urgent seconds.
    urgency
        Exponent of the urgency, :mod:`hexopt.policies.greedy_urgency`; 0 treats all workflows alike.
    lost
        Factor on the urgency of workflows that cannot make their deadline any more, 0 to 1.
    """

    weights: ObjectiveWeights
    urgency: float = 0.75
    lost: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.urgency <= 10.0:
            raise ObjectiveError(f"weight urgency is {self.urgency}, expected 0 to 10")
        if not 0.0 <= self.lost <= 1.0:
            raise ObjectiveError(f"weight lost is {self.lost}, expected 0 to 1")

    def changed(self, values: dict[str, float]) -> Objective:
        """This objective with some weights set by name.

        Raises
        ------
        ObjectiveError
            If a name is unknown or a value out of range.
        """
        for name, value in values.items():
            if name not in WEIGHTS:
                raise ObjectiveError(f"weight {name!r} is unknown; there are {', '.join(WEIGHTS)}")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ObjectiveError(f"weight {name} is {value!r}, expected a number")
        own = {name: float(value) for name, value in values.items() if name in ("urgency", "lost")}
        rest = {name: float(value) for name, value in values.items() if name not in own}
        try:
            return replace(self, weights=replace(self.weights, **rest), **own)
        except ObjectiveError:
            raise
        except ValueError as error:
            raise ObjectiveError(str(error)) from None


WEIGHTS = (*(field.name for field in fields(ObjectiveWeights)), "urgency", "lost")
"""Every weight that can be set."""


def hexgen_flow(alpha: float) -> Objective:
    """The trade-off of HexGen-Flow's dispatch score: alpha for the own speed, 1 - alpha for the work already there.

    For that work stands what it matters for, the delay that the call imposes on it; the published rule's sum of all
    work ever sent to an instance (:mod:`hexopt.policies.hexgen_flow`) is not repeated. Nothing else counts.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ObjectiveError(f"alpha is {alpha}, expected 0 to 1")
    nothing = dict.fromkeys((field.name for field in fields(ObjectiveWeights)), 0.0)
    weights = ObjectiveWeights(**(nothing | {"completion": alpha, "imposed": 1.0 - alpha, "congestion": 1.0 - alpha}))
    return Objective(weights, urgency=0.0)


_DEADLINE = ObjectiveWeights(tardiness=0.0, late=20.0, completion=1.0, imposed=1.0, congestion=1.0, move=1.0)

PRESETS: dict[str, Objective] = {
    "deadline": Objective(_DEADLINE),
    "attainment": Objective(_DEADLINE, lost=0.1),
    "latency": Objective(_DEADLINE, urgency=0.0),
    "throughput": Objective(replace(_DEADLINE, completion=0.2), urgency=0.0),
    "cost": Objective(replace(_DEADLINE, price=1000.0)),
    "fair": Objective(replace(_DEADLINE, fairness=1.0, tardiness=0.5)),
    "hexgen-flow": hexgen_flow(0.2),
}
"""Objectives by name: few and short misses; as many workflows in time as possible; short workflows; as little delay to
others as possible; cheap GPUs where the deadline allows; no tenant much later than the others per share; the trade-off
of HexGen-Flow's dispatch rule."""


def make_objective(text: str) -> Objective:
    """The objective that ``text`` names.

    ``attainment``, ``deadline:price=20,move=0``, ``hexgen-flow:alpha=0.3``, or a TOML file with ``preset`` and weights.

    Raises
    ------
    ObjectiveError
        Naming what is unknown or out of range, and what there is.
    """
    if text.endswith(".toml"):
        return _from_toml(Path(text))
    name, _, rest = text.partition(":")
    values: dict[str, float] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        try:
            values[key] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise ObjectiveError(f"objective {name!r}: {item!r} is not a weight=number")
    return _preset(name, values)


def objective_text(objective: Objective) -> str:
    """The shortest text from which :func:`make_objective` makes this objective."""
    for name, preset in PRESETS.items():
        if objective == preset:
            return name
    values, usual = weights_of(objective), weights_of(PRESETS["deadline"])
    return "deadline:" + ",".join(f"{name}={value:.6g}" for name, value in values.items() if value != usual[name])


def weights_of(objective: Objective) -> dict[str, float]:
    """Every weight by its name."""
    return {name: getattr(objective if name in ("urgency", "lost") else objective.weights, name) for name in WEIGHTS}


def _preset(name: str, values: dict[str, float]) -> Objective:
    if name not in PRESETS:
        raise ObjectiveError(f"objective {name!r} is unknown; there are {', '.join(PRESETS)}, or a TOML file")
    if name == "hexgen-flow" and "alpha" in values:
        values = dict(values)
        return hexgen_flow(values.pop("alpha")).changed(values)
    return PRESETS[name].changed(values)


def _from_toml(path: Path) -> Objective:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ObjectiveError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ObjectiveError(f"{path}: {error}") from None
    name = table.pop("preset", "deadline")
    try:
        return _preset(name, table)
    except ObjectiveError as error:
        raise ObjectiveError(f"{path}: {error}") from None
