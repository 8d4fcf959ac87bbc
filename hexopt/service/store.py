"""Writes every finished stage and decision to a database, without ever holding up the one who hands them in."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from hexopt.service.database import Database, RefusedError, StoreError, UnavailableError
from hexopt.service.records import DecisionRecord, StageRecord

__all__ = ["DecisionRecord", "StageRecord", "Store", "StoreError", "StoreStats"]

BATCH = 1000
"""Rows of a transaction, at most."""
GATHER = 0.2
"""Seconds that rows wait for company."""
FIRST_RETRY, LAST_RETRY = 0.05, 5.0
"""Seconds until a database that failed is tried again; they double in between."""
PRUNE_EVERY = 60.0
"""Seconds between two looks for rows that are too old."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What the store has done.

    Parameters
    ----------
    written
        Rows in the database.
    dropped
        Rows given up because memory for them was full, or the store closed.
    failed
        Rows that the database refuses for what they hold.
    pending
        Rows in memory.
    degraded
        Whether the database cannot be written to at present.
    last_error
        What it said last; stays after recovery.
    """

    written: int
    dropped: int
    failed: int
    pending: int
    degraded: bool
    last_error: str | None


class Store:
    """Where finished stages and decisions go.

    A thread writes them in batches. While the database cannot be written to (a locked file, a full disk, a server that
    is down) rows wait in memory, and are written once it can. A row may be written twice if a server's connection is
    lost in the moment of its commit.

    Parameters
    ----------
    url
        Database, as SQLAlchemy writes it.
    capacity
        Rows kept in memory at most; more are dropped and counted.
    retain_rows, retain_seconds
        Stages, and decisions, to keep: the last so many, and those that ended within so many seconds.
    clock
        Unix seconds.

    Raises
    ------
    StoreError
        If the URL is wrong, its driver or folder is not there, or the database is of a newer schema. A database that
        merely does not answer is no error.
    """

    def __init__(
        self,
        url: str,
        *,
        capacity: int = 100_000,
        retain_rows: int = 1_000_000,
        retain_seconds: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for name, value in (("capacity", capacity), ("retain_rows", retain_rows)):
            if value < 1:
                raise StoreError(f"{name} is {value}, expected at least 1")
        if retain_seconds is not None and not retain_seconds > 0:
            raise StoreError(f"retain_seconds is {retain_seconds}, expected seconds > 0")
        self._database = Database(url)
        self._capacity, self._retain_rows, self._retain_seconds = capacity, retain_rows, retain_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._queue: deque[StageRecord | DecisionRecord] = deque()
        self._unwritten: dict[str, DecisionRecord] = {}
        self._parts: list[list[StageRecord | DecisionRecord]] = []
        """What the writer has taken from the queue and not yet written, last part first."""
        self._taken = self._lost = 0
        self._written = self._dropped = self._failed = 0
        self._degraded = False
        self._last_error: str | None = None
        self._since_prune = max(BATCH, retain_rows)  # rows: what an earlier run left may be too much already
        self._pruned_at = time.monotonic()
        self._some = threading.Event()
        self._closing = threading.Event()
        self._until = float("inf")
        try:
            self._database.prepare()
        except UnavailableError as error:
            self._degrade(error)
            self._some.set()
        self._thread = threading.Thread(target=self._work, name="hexopt-store", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The database's URL without its password."""
        return self._database.name

    @property
    def stats(self) -> StoreStats:
        """What the store has done until now."""
        with self._lock:
            return StoreStats(
                written=self._written,
                dropped=self._dropped,
                failed=self._failed,
                pending=len(self._queue) + self._taken,
                degraded=self._degraded,
                last_error=self._last_error,
            )

    def put(self, record: StageRecord | DecisionRecord) -> None:
        """Hand in a record; never waits for the database and never raises."""
        with self._lock:
            if self._closing.is_set() or len(self._queue) + self._taken >= self._capacity:
                self._dropped += 1
                return
            self._queue.append(record)
            if isinstance(record, DecisionRecord) and isinstance(record.id, str):
                self._unwritten[record.id] = record
        if not self._some.is_set():
            self._some.set()

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        """Read a decision back, written or not, as the fields of its record; ``None`` if there is none of that id.

        Raises
        ------
        StoreError
            If the database does not answer.
        """
        with self._lock:
            waiting = self._unwritten.get(decision_id)
        return asdict(waiting) if waiting is not None else self._database.decision(decision_id)

    def close(self, timeout: float = 5.0) -> None:
        """Write what is in memory and stop; what cannot be written within ``timeout`` seconds is dropped."""
        with self._lock:
            if self._closing.is_set():
                return
            self._until = time.monotonic() + timeout
            self._closing.set()
        self._some.set()
        self._thread.join(timeout)
        with self._lock:
            lost = len(self._queue) + self._taken + self._lost
            self._dropped += len(self._queue)
            self._queue.clear()
        if lost:
            _log.warning("store %s: closed with %d rows not written (%s)", self.name, lost, self._last_error)
        self._database.close()

    def _work(self) -> None:
        retry = FIRST_RETRY
        while True:
            self._some.wait()
            if len(self._queue) < BATCH and not self._parts:
                self._closing.wait(GATHER)
            try:
                self._database.prepare()
                self._write()
                self._prune()
            except StoreError as error:
                self._degrade(error)
                left = self._until - time.monotonic()
                if left <= 0:
                    with self._lock:
                        self._lost, self._taken = self._taken, 0
                        self._dropped += self._lost
                    return
                if self._closing.is_set():
                    time.sleep(min(FIRST_RETRY, left))
                else:
                    self._closing.wait(retry)
                    retry = min(2 * retry, LAST_RETRY)
                continue
            retry = FIRST_RETRY
            self._recover()
            with self._lock:
                if self._queue:
                    continue
                self._some.clear()
                if self._closing.is_set():
                    return

    def _write(self) -> None:
        """Write what was taken before, then up to a batch of the queue."""
        if not self._parts:
            with self._lock:
                part = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                self._taken = len(part)
            if not part:
                return
            self._parts.append(part)
        while self._parts:
            part = self._parts[-1]
            try:
                self._database.insert(part)
            except RefusedError as error:
                self._parts.pop()
                if len(part) > 1:  # halves find the row at fault, and save the others
                    half = len(part) // 2
                    self._parts += [part[half:], part[:half]]
                    continue
                self._done(part, refused=error)
            else:
                self._parts.pop()
                self._done(part)

    def _done(self, part: list[StageRecord | DecisionRecord], refused: StoreError | None = None) -> None:
        with self._lock:
            self._taken -= len(part)
            if refused is None:
                self._written += len(part)
                self._since_prune += len(part)
            else:
                self._failed += len(part)
                self._last_error = str(refused)
            for record in part:
                if (
                    isinstance(record, DecisionRecord)
                    and isinstance(record.id, str)
                    and self._unwritten.get(record.id) is record
                ):
                    del self._unwritten[record.id]
        if refused is None:
            self._recover()
        elif self._failed == len(part):
            _log.warning("a row is left out, and later ones will be without notice: %s", refused)

    def _prune(self) -> None:
        due = self._since_prune >= max(BATCH, self._retain_rows // 100)
        aged = self._retain_seconds is not None and time.monotonic() >= self._pruned_at + PRUNE_EVERY
        if due or aged:
            before = None if self._retain_seconds is None else self._clock() - self._retain_seconds
            self._database.prune(self._retain_rows, before)
            self._since_prune = 0
            self._pruned_at = time.monotonic()

    def _degrade(self, error: StoreError) -> None:
        with self._lock:
            first = not self._degraded
            self._degraded = True
            self._last_error = str(error)
        if first:
            _log.warning("%s; rows wait in memory, at most %d", error, self._capacity)

    def _recover(self) -> None:
        with self._lock:
            back, self._degraded = self._degraded, False
        if back:
            _log.info("store %s: works again", self.name)
