"""The options of every command that runs many simulations."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hexopt.parallel import Runner

Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Simulations at a time; one a processor.")]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="auto|HOST:PORT", help="Run them on the Ray cluster that this machine is part of."),
]
Resume = Annotated[
    Path | None,
    typer.Option("--resume", metavar="FOLDER", help="Keep finished simulations there; continue from those it has."),
]


@contextmanager
def runner(
    title: str, jobs: int | None, ray: str | None, resume: Path | None, total: int | None = None
) -> Iterator[Runner]:
    """What runs the command's simulations, with a bar of that title while it does.

    ``total`` is how many there are in all where they come in several lots, which the bar then counts through.
    """
    from hexopt.cli import console
    from hexopt.parallel import Runner

    if resume is not None:
        console.check_folder("--resume", resume)
    # As at Ctrl-C: what is finished is kept, and the workers end.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with (
        console.counting_bar(title) as progress,
        Runner(jobs, ray=ray, store=resume, progress=progress if total is None else Lots(progress, total)) as made,
    ):
        yield made


class Lots:
    """Several lots of work as one: each begins with a report of none done."""

    def __init__(self, progress: Callable[[int, int], None], total: int) -> None:
        self._progress = progress
        self._total = total
        self._before = 0
        self._lot = 0

    def __call__(self, done: int, lot: int) -> None:
        if done == 0:
            self._before += self._lot
            self._lot = lot
        self._progress(self._before + done, self._total)
