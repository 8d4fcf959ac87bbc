"""The store's traffic as workflows, so that yesterday can be simulated today.

A stage's tool delay runs from the latest finish of its parents, or from its workflow's arrival, until it was ready.
Parents are those that the client named. A stage whose client named none waited for all that had ended before it was
ready, less those that others of these had waited for themselves.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from hexopt.service.database import Database, stages
from hexopt.traces.workflow import Prefix, Stage, Workflow

_BY_WORKFLOW = attrgetter("arrival", "workflow")


@dataclass
class Traffic:
    """The finished workflows of a store.

    Only stages that ended well and whose tokens are known are part of it. A parent that is not is passed over in favour
    of its own parents; a workflow of which nothing is left is left out. Two workflows of one id, by arrival, stay two.

    Parameters
    ----------
    database
        The store.
    since, until
        Unix seconds between which workflows arrived, the end excluded; ``None`` is without limit.
    tenant
        Whose; ``None`` is everybody's.
    """

    database: Database
    since: float | None = None
    until: float | None = None
    tenant: str | None = None
    left_out: int = field(default=0, init=False)
    """Stages left out until now: failed, or of unknown length."""

    def workflows(self) -> Iterator[Workflow]:
        """Yield the workflows in the order of their arrival, which counts from the first one's."""
        self.database.check()
        shared = self._shared_prefixes()
        query = sa.select(stages).where(*self._wanted())
        query = query.order_by(stages.c.arrival, stages.c.workflow, stages.c.ready, stages.c.id)
        start: float | None = None
        names = _Names()
        for (arrival, name), rows in groupby(self.database.rows(query), _BY_WORKFLOW):
            calls = _calls(rows)
            good = [call for call in calls if call.good]
            self.left_out += len(calls) - len(good)
            if not good:
                continue
            start = arrival if start is None else start
            last = good[-1].row
            deadline = next((c.row.deadline for c in reversed(good) if c.row.deadline is not None), None)
            yield Workflow(
                id=names.unique(name),
                stages=tuple(_stages(calls, arrival, shared)),
                arrival=arrival - start,
                deadline=None if deadline is None or deadline <= arrival else deadline - arrival,
                weight=last.weight,
                tenant=last.tenant,
            )

    def _wanted(self) -> list[Any]:
        conditions: list[Any] = []
        if self.since is not None:
            conditions.append(stages.c.arrival >= self.since)
        if self.until is not None:
            conditions.append(stages.c.arrival < self.until)
        if self.tenant is not None:
            conditions.append(stages.c.tenant == self.tenant)
        return conditions

    def _shared_prefixes(self) -> dict[str, tuple[int, bool]]:
        """Of every prefix hint: the most tokens found in a cache under it, and whether only one workflow has it.

        That many tokens, as far as a prompt has them, are what calls of the hint share: all of a template, and of a
        growing history as much as the shorter of two prompts holds.
        """
        query = (
            sa.select(
                stages.c.prefix,
                sa.func.max(stages.c.cached_tokens),
                sa.func.min(stages.c.workflow) == sa.func.max(stages.c.workflow),
            )
            .where(*self._wanted(), stages.c.prefix.is_not(None), stages.c.cached_tokens > 0)
            .group_by(stages.c.prefix)
        )
        return {hint: (int(tokens), bool(alone)) for hint, tokens, alone in self.database.rows(query)}


@dataclass
class _Call:
    """A row of the store as a stage."""

    row: Any
    id: str
    good: bool
    parents: list[int] = field(default_factory=list)


def _calls(rows: Iterator[Any]) -> list[_Call]:
    """The stages of one workflow in the order in which they became ready, each with its parents' places."""
    calls: list[_Call] = []
    named: dict[str, int] = {}
    names = _Names()
    ended = _Ended()
    for place, row in enumerate(rows):
        good = row.status == "ok" and (row.prompt_tokens or 0) >= 1 and (row.output_tokens or 0) >= 1
        call = _Call(row, names.unique(row.stage) if good else row.stage, good)
        # Later names only: nobody waits for what was not yet there, and so there are no cycles.
        declared = [named[name] for name in json.loads(row.parents) if name in named]
        call.parents = declared or ended.last_before(row.ready)
        calls.append(call)
        ended.add(row.finish, call.parents)
        if good or row.stage not in named:
            named[row.stage] = place
    return calls


class _Ended:
    """Which stages of a workflow have ended, and which of these no other of them waited for."""

    def __init__(self) -> None:
        self._ancestors: list[int] = []  # of each stage, a bit a stage
        self._running: list[tuple[float, int]] = []
        self._waited_for = 0
        self._last = 0

    def add(self, finish: float, parents: Sequence[int]) -> None:
        """Take in the next stage."""
        ancestors = 0
        for parent in parents:
            ancestors |= self._ancestors[parent] | 1 << parent
        heapq.heappush(self._running, (finish, len(self._ancestors)))
        self._ancestors.append(ancestors)

    def last_before(self, ready: float) -> list[int]:
        """The stages that had ended at ``ready``, less the ancestors of others of them."""
        while self._running and self._running[0][0] <= ready:
            _, place = heapq.heappop(self._running)
            self._waited_for |= self._ancestors[place]
            self._last |= 1 << place
        self._last &= ~self._waited_for
        places, left = [], self._last
        while left:
            places.append((left & -left).bit_length() - 1)
            left &= left - 1
        return places


class _Names:
    """Makes the names of a file or a workflow unique: the second ``a`` becomes ``a#2``."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}

    def unique(self, name: str) -> str:
        """``name``, or the first numbered form of it that was not given out."""
        found = name
        while found in self._times:
            self._times[name] += 1
            found = f"{name}#{self._times[name]}"
        self._times[found] = 1
        return found


def _stages(calls: list[_Call], arrival: float, shared: dict[str, tuple[int, bool]]) -> Iterator[Stage]:
    """The good ones of ``calls``, with parents among themselves."""
    standing_in: list[list[int]] = []  # of each call: itself, or the good ones that it waited for
    for place, call in enumerate(calls):
        parents = list(dict.fromkeys(p for parent in call.parents for p in standing_in[parent]))
        standing_in.append([place] if call.good else parents)
        if not call.good:
            continue
        row = call.row
        began = max((calls[p].row.finish for p in parents), default=arrival)
        tokens, alone = shared.get(row.prefix, (0, False))
        tokens = min(tokens, row.prompt_tokens)
        yield Stage(
            id=call.id,
            kind=row.kind,
            prompt_tokens=row.prompt_tokens,
            output_tokens=row.output_tokens,
            parents=tuple(calls[p].id for p in parents),
            prefixes=(Prefix(row.prefix, tokens, local=alone),) if tokens else (),
            tool_delay=max(0.0, row.ready - began),
        )
