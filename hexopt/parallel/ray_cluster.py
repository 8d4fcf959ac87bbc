"""Workers on a Ray cluster, for users who have outgrown one machine."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hexopt.parallel import payload
from hexopt.parallel.errors import ParallelError, deadly
from hexopt.parallel.payload import Payload

_PATIENCE = 3.0
"""Seconds in which a cluster must answer."""

_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How an HTTP/2 client begins (RFC 9113, section 3.4), with empty settings."""


def _remote_call(function: Callable[..., Any], key: str | None, reference: list[Any], item: Any) -> Any:
    """In a worker: the result for one item; the shared object is fetched where it is not yet held."""
    if key is not None and not payload.holds(key):
        import ray

        payload.keep(Payload(key, ray.get(reference[0])))
    return payload.call(function, key, item)


class RayCluster:
    """A Ray cluster: one processor an item; Ray replaces workers and machines that die.

    Parameters
    ----------
    address
        ``host:port`` of a cluster that this machine is part of (``ray start``), or ``"auto"``.
    jobs
        Items at a time; by default as many as keep all processors busy.
    retries
        How often an item is tried again whose worker or machine died.

    Raises
    ------
    ParallelError
        If Ray is not installed, or no cluster answers.
    """

    def __init__(self, address: str, jobs: int | None, retries: int) -> None:
        try:
            import ray
        except ImportError:
            raise ParallelError("--ray needs Ray: pip install 'hexopt[ray]'") from None
        self._ray: Any = ray
        self._jobs = jobs
        self._retries = retries
        self._ours = not ray.is_initialized()
        if self._ours:
            self._connect(address)
        self._call = ray.remote(_remote_call).options(num_cpus=1, max_retries=retries)
        self._shared: tuple[str, Any] | None = None

    def _connect(self, address: str) -> None:
        host_and_port = self._resolved(address)
        _check_answers(host_and_port)
        try:
            self._ray.init(host_and_port, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise ParallelError(f"--ray {address}: cannot join the cluster: {reason}") from error

    def _resolved(self, address: str) -> str:
        if address != "auto":
            return address
        from ray._private import services  # where Ray keeps what it means by "auto"

        try:
            found = services.canonicalize_bootstrap_address("auto")
        except ConnectionError:
            found = None
        if not found:
            raise ParallelError("--ray auto: no Ray cluster runs on this machine (ray start)")
        return str(found)

    @property
    def workers(self) -> int:
        """Processors of the cluster as it is now, or items at a time where that was given."""
        return self._jobs or max(int(self._ray.cluster_resources().get("CPU", 1)), 1)

    def _reference(self, shared: Payload) -> list[Any]:
        if self._shared is None or self._shared[0] != shared.key:
            self._shared = shared.key, self._ray.put(shared.data)
        # In a list, so that workers that hold the object do not fetch it again.
        return [self._shared[1]]

    def run(
        self, function: Callable[..., Any], shared: Payload | None, tasks: Iterable[tuple[int, Any]]
    ) -> Iterator[tuple[int, Any]]:
        """Positions and results, as they come."""
        waiting = deque(tasks)
        running: dict[Any, tuple[int, Any]] = {}
        key, reference = (None, []) if shared is None else (shared.key, self._reference(shared))
        try:
            while waiting or running:
                # Without a limit, as many again wait on the cluster, so that no processor waits for this process.
                room = self._jobs or 2 * self.workers
                while waiting and len(running) < room:
                    position, item = waiting.popleft()
                    running[self._call.remote(function, key, reference, item)] = position, item
                (done,), _ = self._ray.wait(list(running), num_returns=1)
                position, item = running.pop(done)
                yield position, self._result(done, position, item)
        finally:
            for task in running:
                self._ray.cancel(task, force=True)

    def _result(self, task: Any, position: int, item: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(task)
        except errors.RayTaskError as error:
            if isinstance(error.cause, BaseException):
                raise error.cause from error
            raise ParallelError(f"item {position}: {error}") from error
        except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError) as error:
            raise deadly(position, item, self._retries + 1) from error
        except errors.RayError as error:
            raise ParallelError(f"item {position}: Ray: {error}") from error

    def close(self) -> None:
        """Leave the cluster."""
        self._shared = None
        if self._ours:
            self._ray.shutdown()


def _check_answers(address: str) -> None:
    """Refuse what no Ray cluster listens on; Ray itself would go on trying for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "//" in host:
        raise ParallelError(f"--ray {address}: expected auto or host:port")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE) as connection:
            connection.sendall(_HELLO)
            # Ray speaks gRPC, over HTTP/2: its first frame, too, is one of settings.
            is_grpc = connection.recv(9)[3:4] == b"\x04"
    except (OSError, OverflowError) as error:
        raise ParallelError(f"--ray {address}: no Ray cluster answers there ({error})") from None
    if not is_grpc:
        raise ParallelError(f"--ray {address}: what answers there is no Ray cluster")
