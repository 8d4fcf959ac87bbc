"""Finished results on disk, so that a run that was broken off continues where it stopped."""

from __future__ import annotations

import hashlib
import inspect
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import joblib

from hexopt import __version__
from hexopt._numba_cache import source_files
from hexopt.atomic import atomic_write

_DIGEST = hashlib.sha256().digest_size


@cache
def _sources() -> str:
    """Digest of this HexOpt's code: an edited one gives other results."""
    digest = hashlib.sha256(__version__.encode())
    for path in source_files():
        digest.update(path.read_bytes())
    return digest.hexdigest()


class ResultStore:
    """A folder with one file a result, each written whole or not at all.

    A result belongs to its function, item, shared object and to HexOpt's code: if any of them changes, it is made anew.

    Parameters
    ----------
    folder
        Made if it is missing. Results are pickles: use no folder that others can write to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: tuple[Any, str] = (None, str(joblib.hash(None)))
        folder.mkdir(parents=True, exist_ok=True)

    def keys(self, function: Callable[..., Any], items: list[Any], shared: Any) -> list[str]:
        """The name of each item's result.

        Raises
        ------
        TypeError
            If ``function`` has no name of its own, so that another could not be told from it.
        """
        name = getattr(function, "__qualname__", "<nameless>")
        if "<" in name:
            raise TypeError(f"results of {function!r} cannot be kept: it is no function of a module")
        source = inspect.getsourcefile(function)
        code = Path(source).read_bytes() if source else b""
        common = joblib.hash(
            (_sources(), hashlib.sha256(code).hexdigest(), function.__module__, name, self._digest(shared))
        )
        return [hashlib.sha256(f"{common}:{joblib.hash(item)}".encode()).hexdigest()[:40] for item in items]

    def _digest(self, shared: Any) -> str:
        if self._last[0] is not shared:  # a large one takes seconds
            self._last = shared, str(joblib.hash(shared))
        return self._last[1]

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.pickle"

    def read(self, key: str) -> tuple[Any] | None:
        """The result in a tuple, or None where there is none that is whole."""
        try:
            data = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
            return None
        return (pickle.loads(data[_DIGEST:]),)

    def write(self, key: str, result: Any) -> None:
        """Keep a result."""
        data = pickle.dumps(result)
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path, "wb") as stream:
            stream.write(hashlib.sha256(data).digest() + data)
