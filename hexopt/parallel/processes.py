"""Workers as processes of this machine (loky, which joblib is built on)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from multiprocessing import resource_tracker
from typing import Any

from loky import ProcessPoolExecutor

from hexopt.parallel import payload
from hexopt.parallel.errors import deadly
from hexopt.parallel.payload import Payload

_ONE_THREAD = dict.fromkeys(
    (
        "BLIS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS", "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    ),
    "1",
)  # fmt: skip


class _Worker:
    """A pool of one process: one that dies takes nothing with it but its own item."""

    def __init__(self) -> None:
        # It unblocks Ctrl-C when it starts, which must not be while a worker is started.
        resource_tracker.ensure_running()
        self._pool = ProcessPoolExecutor(1, env=_ONE_THREAD, initializer=payload.leave_with_parent)
        self._key: str | None = None

    def submit(self, function: Callable[..., Any], shared: Payload | None, item: Any) -> Future[Any]:
        with payload.without_interrupts():
            future: Future[Any]
            if shared is None:
                future = self._pool.submit(payload.call, function, None, item)
            elif shared.key == self._key:
                future = self._pool.submit(payload.call, function, shared.key, item)
            else:
                future = self._pool.submit(payload.keep_and_call, function, shared, item)
                self._key = shared.key
        return future

    def kill(self) -> None:
        self._pool.shutdown(wait=True, kill_workers=True)


class Processes:
    """Worker processes of this machine, started when there is work for them and kept until closed.

    Parameters
    ----------
    jobs
        Processes, each with one thread.
    retries
        How often an item is tried again whose worker died.
    """

    def __init__(self, jobs: int, retries: int) -> None:
        self.workers = jobs
        self._retries = retries
        self._idle: list[_Worker] = []

    def run(
        self, function: Callable[..., Any], shared: Payload | None, tasks: Iterable[tuple[int, Any]]
    ) -> Iterator[tuple[int, Any]]:
        """Positions and results, as they come."""
        waiting = deque(tasks)
        deaths: Counter[int] = Counter()
        running: dict[Future[Any], tuple[_Worker, int, Any]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    position, item = waiting.popleft()
                    worker = self._idle.pop() if self._idle else _Worker()
                    try:
                        running[worker.submit(function, shared, item)] = worker, position, item
                    except BrokenExecutor:  # it died while it had nothing to do
                        worker.kill()
                        waiting.appendleft((position, item))
                future = next(iter(wait(running, return_when=FIRST_COMPLETED).done))
                worker, position, item = running.pop(future)
                try:
                    result = future.result()
                except BrokenExecutor as error:
                    worker.kill()
                    deaths[position] += 1
                    if deaths[position] > self._retries:
                        raise deadly(position, item, deaths[position]) from error
                    waiting.appendleft((position, item))
                    continue
                except BaseException:
                    worker.kill()
                    raise
                self._idle.append(worker)
                yield position, result
        finally:
            for worker, _, _ in running.values():
                worker.kill()

    def close(self) -> None:
        """End the processes."""
        for worker in self._idle:
            worker.kill()
        self._idle.clear()
