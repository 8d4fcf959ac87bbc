"""Files that appear whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal


@contextmanager
def atomic_write(path: str | Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a file beside ``path`` that takes its name when the block ends, and vanishes if the block fails.

    Parameters
    ----------
    path
        File to write; an older one of that name stays until the new one is whole. Anything that is there and not a
        plain file (``/dev/stdout``, a pipe) is written directly, as it cannot be replaced.
    mode
        ``"w"``: UTF-8 text with ``\\n`` line ends; ``"wb"``: bytes.

    Raises
    ------
    OSError
        Naming ``path``, if it cannot be written.
    """
    path = Path(path)
    special = path.exists() and not path.is_file()
    target = path.resolve()  # so that a link is followed, not replaced
    unfinished = target if special else target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    text = {"encoding": "utf-8", "newline": "\n"} if mode == "w" else {}
    try:
        try:
            with unfinished.open(mode, **text) as stream:  # type: ignore[call-overload]
                yield stream
            if not special:
                unfinished.replace(target)
        finally:
            if not special:
                unfinished.unlink(missing_ok=True)
    except OSError as error:
        if error.filename == str(unfinished):
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise
