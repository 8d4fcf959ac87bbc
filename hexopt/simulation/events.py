"""What happens to instances in a run: they start late, drain, go down and come back."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hexopt.cluster import Cluster
from hexopt.simulation.state import DOWN, DRAINING, EVENT, OPEN
from hexopt.toml_file import read_toml

_UNITS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_TIME = r"(\d+(?:\.\d+)?)\s*(ms|s|min|h)"
_EVENT = re.compile(rf"(\S+)\s+(?:(down|drains)\s+at\s+{_TIME}(?:\s+for\s+{_TIME})?|(starts)\s+at\s+{_TIME})")


class EventError(ValueError):
    """An event that cannot be; the message quotes it."""


@dataclass(frozen=True)
class FleetEvent:
    """One instance that is down, or takes no new calls, for a while.

    Parameters
    ----------
    instance
        Its name.
    state
        ``down``: its calls and its memory are lost, and the calls begin anew elsewhere; or ``draining``: it works off
        the calls that it has.
    begin, end
        Seconds; infinite where it does not open again.
    """

    instance: str
    state: Literal["down", "draining"]
    begin: float
    end: float = math.inf

    def __str__(self) -> str:
        lasts = f" for {self.end - self.begin:g}s" if math.isfinite(self.end) else ""
        return f"{self.instance} {'down' if self.state == 'down' else 'drains'} at {self.begin:g}s{lasts}"


def parse_event(text: str) -> FleetEvent:
    """Read ``NAME down at TIME [for TIME]``, ``NAME drains at TIME [for TIME]`` or ``NAME starts at TIME``.

    Times have units: ``500ms``, ``300s``, ``5min``, ``1h``.

    Raises
    ------
    EventError
        Quoting the text.
    """
    found = _EVENT.fullmatch(text.strip())
    if found is None:
        raise EventError(
            f"event {text!r}: expected 'NAME down at 300s for 120s', 'NAME drains at 300s' or 'NAME starts at 60s'"
        )
    name, what, at, unit, lasts, unit_lasts, starts, at_start, unit_start = found.groups()
    if starts:
        return FleetEvent(name, "down", 0.0, float(at_start) * _UNITS[unit_start])
    begin = float(at) * _UNITS[unit]
    end = begin + float(lasts) * _UNITS[unit_lasts] if lasts else math.inf
    return FleetEvent(name, "down" if what == "down" else "draining", begin, end)


def parse_events(texts: Iterable[str]) -> list[FleetEvent]:
    """Read events; a text that ends in ``.toml`` names a file with a list of them, ``events``.

    Raises
    ------
    EventError
        Quoting the event, or naming the file.
    """
    events: list[FleetEvent] = []
    for text in texts:
        if not text.endswith(".toml"):
            events.append(parse_event(text))
            continue
        listed = read_toml(Path(text), EventError).get("events")
        if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
            raise EventError(f"{text}: events: expected a list of texts such as 'NAME down at 300s for 120s'")
        events += map(parse_event, listed)
    return events


def event_table(events: Sequence[FleetEvent], cluster: Cluster) -> NDArray[np.void]:
    """EVENT records of ``events`` by time.

    Raises
    ------
    EventError
        If one names no instance of ``cluster``, lasts no time, or overlaps another of the same instance.
    """
    names = [instance.name for instance in cluster.instances]
    rows: list[tuple[float, int, int]] = []
    last: dict[str, FleetEvent] = {}
    for event in sorted(events, key=lambda e: e.begin):
        if event.instance not in names:
            raise EventError(f"event '{event}': {cluster.name} has no such instance; it has {', '.join(names)}")
        if not 0.0 <= event.begin < event.end:
            raise EventError(f"event '{event}': expected it to last")
        before = last.get(event.instance)
        if before is not None and event.begin < before.end:
            raise EventError(f"event '{event}' begins before '{before}' is over")
        last[event.instance] = event
        i = names.index(event.instance)
        rows.append((event.begin, i, DOWN if event.state == "down" else DRAINING))
        if math.isfinite(event.end):
            rows.append((event.end, i, OPEN))
    # One that ends as another begins comes first.
    rows.sort(key=lambda row: (row[0], row[2] != OPEN))
    return np.array(rows, dtype=EVENT)
