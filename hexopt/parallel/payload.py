"""The object that all items share: pickled once, sent to each worker once, kept there."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hexopt import __version__
from hexopt.parallel.errors import ParallelError


@dataclass(frozen=True)
class Payload:
    """A pickled object, and the name that workers keep it under."""

    key: str
    data: bytes

    @classmethod
    def of(cls, value: Any) -> Payload:
        """Pickled in one piece: arrays arrive as writable as they left, so kernels are not compiled again for them."""
        return cls(f"{os.getpid()}-{os.urandom(8).hex()}", pickle.dumps((__version__, value), protocol=5))


_kept: dict[str, Any] = {}


def holds(key: str) -> bool:
    """In a worker: whether it has the object of this name already."""
    return key in _kept


def keep(shared: Payload) -> None:
    """In a worker: hold this object, and no other.

    Raises
    ------
    ParallelError
        If it comes from another version of HexOpt.
    """
    _kept.clear()
    version, value = pickle.loads(shared.data)
    if version != __version__:
        raise ParallelError(f"this is HexOpt {version}, but the workers have {__version__}: install the same on both")
    _kept[shared.key] = value


def call(function: Callable[..., Any], key: str | None, item: Any) -> Any:
    """In a worker: the result for one item."""
    return function(item) if key is None else function(_kept[key], item)


def keep_and_call(function: Callable[..., Any], shared: Payload, item: Any) -> Any:
    """In a worker: the result for the first item that needs this object."""
    keep(shared)
    return call(function, shared.key, item)


def leave_with_parent() -> None:
    """In a worker: end once the process that started it is gone, however that ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            pause.wait(1.0)
        os._exit(1)

    pause = threading.Event()
    threading.Thread(target=watch, name="parent", daemon=True).start()


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes and threads started here never see Ctrl-C: the one that the user talks to ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
