"""What goes wrong between processes."""

from __future__ import annotations

from typing import Any


class ParallelError(ValueError):
    """Work that could not be done: a cluster that is not there, an item that kills its workers."""


def shortened(item: Any) -> str:
    """An item as an error names it."""
    text = " ".join(repr(item).split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def deadly(position: int, item: Any, deaths: int) -> ParallelError:
    """The error for an item whose worker died again and again."""
    return ParallelError(
        f"item {position}, {shortened(item)}: its worker process died {deaths} times (killed, or out of memory?)"
    )
