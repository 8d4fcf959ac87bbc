"""The one place through which everything goes that runs many simulations."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import joblib

from hexopt.parallel.payload import Payload
from hexopt.parallel.processes import Processes
from hexopt.parallel.ray_cluster import RayCluster
from hexopt.parallel.results import ResultStore

Progress = Callable[[int, int], None]
"""Called with how many items are done, and how many there are."""


class Backend(Protocol):
    """Where the work is done."""

    @property
    def workers(self) -> int:
        """Items that are worked on at a time."""

    def run(
        self, function: Callable[..., Any], shared: Payload | None, tasks: Iterable[tuple[int, Any]]
    ) -> Iterator[tuple[int, Any]]:
        """Positions and results, as they come."""

    def close(self) -> None:
        """End what was started."""


class Runner:
    """Applies a function to many items, in processes of this machine or on a Ray cluster.

    A result depends on the function, the item and the shared object only: items that draw random numbers carry their
    seed. The results are then the same bit for bit wherever they are made, on processors of the same kind. A worker
    that dies is replaced and its item tried again; Ctrl-C and errors end the workers.

    Parameters
    ----------
    jobs
        Worker processes, on Ray items at a time; by default one a processor. 1 works in this process, without Ray.
    ray
        Address of a Ray cluster, ``"auto"`` for the one that this machine belongs to; None works on this machine.
    store
        Folder in which finished results are kept, so that the same work continues where it stopped.
    progress
        Called with how many items are done, and how many there are.
    retries
        How often an item is tried again whose worker died.

    Raises
    ------
    ValueError
        If ``jobs`` or ``retries`` is too small.
    """

    def __init__(
        self,
        jobs: int | None = None,
        *,
        ray: str | None = None,
        store: Path | None = None,
        progress: Progress | None = None,
        retries: int = 3,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"jobs is {jobs}, expected at least 1")
        if retries < 0:
            raise ValueError(f"retries is {retries}, expected at least 0")
        self._jobs = jobs
        self._ray = ray
        self._progress = progress
        self._retries = retries
        self._store = None if store is None else ResultStore(store)
        self.finished = 0
        """Results given until now, those kept from before included."""
        self._backend: Backend | None = None
        self._shared: tuple[Any, Payload] | None = None

    def __enter__(self) -> Runner:
        if self._ray is not None:
            self._connected()  # to an address that does not answer, before there is any work
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        if self._backend is not None:
            self._backend.close()
        self._backend = self._shared = None

    @property
    def workers(self) -> int:
        """Items that are worked on at a time."""
        if self._ray is not None:
            return self._connected().workers
        return self._jobs or int(joblib.cpu_count())

    def map(self, function: Callable[..., Any], items: Iterable[Any], shared: Any = None) -> list[Any]:
        """The results in the order of the items: ``function(item)``, or ``function(shared, item)``.

        Parameters
        ----------
        function
            A function of a module that the workers can import.
        items
            Small objects that can be pickled.
        shared
            What all items need, such as a compiled workload: sent to each worker once. It must not change between
            calls, nor be changed by the function.

        Raises
        ------
        ParallelError
            If an item's workers die again and again, naming it, or the cluster is not there.
        Exception
            What the function raised, as it was.
        """
        items = list(items)
        results: list[Any] = [None] * len(items)
        for position, result in self.unordered(function, items, shared):
            results[position] = result
        return results

    def unordered(
        self, function: Callable[..., Any], items: Iterable[Any], shared: Any = None
    ) -> Iterator[tuple[int, Any]]:
        """Positions and results as they are finished, the kept ones first; as :meth:`map` otherwise."""
        items = list(items)
        keys = None if self._store is None else self._store.keys(function, items, shared)
        done = 0
        left: list[tuple[int, Any]] = []
        self._report(0, len(items))
        for position, item in enumerate(items):
            kept = None if keys is None or self._store is None else self._store.read(keys[position])
            if kept is None:
                left.append((position, item))
                continue
            done += 1
            self.finished += 1
            self._report(done, len(items))
            yield position, kept[0]
        with closing(self._run(function, shared, left)) as fresh:
            for position, result in fresh:
                if keys is not None and self._store is not None:
                    self._store.write(keys[position], result)
                done += 1
                self.finished += 1
                self._report(done, len(items))
                yield position, result

    def _report(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(done, total)

    def _run(
        self, function: Callable[..., Any], shared: Any, tasks: list[tuple[int, Any]]
    ) -> Generator[tuple[int, Any], None, None]:
        if not tasks:
            return
        if self._ray is None and self.workers == 1:
            for position, item in tasks:
                yield position, function(item) if shared is None else function(shared, item)
            return
        yield from self._connected().run(function, self._payload(shared), tasks)

    def _payload(self, shared: Any) -> Payload | None:
        if shared is None:
            return None
        if self._shared is None or self._shared[0] is not shared:
            self._shared = shared, Payload.of(shared)
        return self._shared[1]

    def _connected(self) -> Backend:
        if self._backend is None:
            self._backend = (
                Processes(self.workers, self._retries)
                if self._ray is None
                else RayCluster(self._ray, self._jobs, self._retries)
            )
        return self._backend
