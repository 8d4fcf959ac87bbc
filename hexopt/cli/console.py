"""What the commands print with: notes and progress on standard error, results on standard output."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hexopt.traces import Workflow, read_trace
from hexopt.traces.samples import SAMPLES, sample_path

# A pipe or file has no width: give tables the room that they need there.
out = Console() if sys.stdout.isatty() else Console(width=120)
err = Console(stderr=True)

LONG_FILE = 4 * 1024 * 1024
"""Bytes from which reading a trace shows a progress bar."""


def note(text: str, style: str | None = None) -> None:
    """One line on standard error, as it is: paths may be long and hold brackets."""
    err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def check_writable(flag: str, path: Path) -> None:
    """Refuse a file that could not be written, before the work for it begins."""
    if path.is_dir():
        raise ValueError(f"{flag} {path}: is a folder, expected a file to write")
    if not path.parent.is_dir():
        raise ValueError(f"{flag} {path}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"{flag} {path}: cannot be written")


def check_folder(flag: str, path: Path) -> None:
    """Refuse what cannot become a folder to write to, before the work for it begins."""
    there = next((p for p in (path, *path.parents) if p.exists()), Path("/"))
    if not there.is_dir():
        raise ValueError(f"{flag} {path}: {there} is a file, expected a folder")
    if not os.access(there, os.W_OK):
        raise ValueError(f"{flag} {path}: cannot be written")


def load_workflows(source: str, trace_format: str | None = None, flag: str = "--trace") -> list[Workflow]:
    """The workflows of a trace file or folder, or of the bundled sample of that name; ``flag`` names it in errors."""
    path = sample_path(source) if source in SAMPLES else Path(source)
    if source not in SAMPLES and not path.exists():
        raise ValueError(f"{flag} {source}: no such file, and no bundled sample ({', '.join(SAMPLES)})")
    size = sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())
    notes: list[str] = []
    if size < LONG_FILE:
        workflows = read_trace(path, trace_format, on_note=notes.append)
    else:
        with _bar(f"Reading {path.name}") as progress:
            workflows = read_trace(path, trace_format, progress=progress, on_note=notes.append)
    for text in notes:
        note(text, style="dim")
    return workflows


def say_written(workflows: list[Workflow], path: Path) -> None:
    """Say what a written trace holds."""
    calls = sum(len(workflow.stages) for workflow in workflows)
    note(f"Wrote {len(workflows)} workflows, {calls} calls to {path}")


@contextmanager
def _bar(title: str) -> Iterator[Any]:
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def counting_bar(title: str) -> Iterator[Any]:
    """What shows ``(done, total)`` with the time left, on a terminal."""
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def live_line() -> Iterator[Any]:
    """What shows one line that changes, on a terminal."""
    with err.status("Starting (the first run compiles the simulator)") as status:
        yield lambda text: status.update(text)


def ratio(value: float) -> str:
    """A multiple for people."""
    return "∞" if value == float("inf") else f"{value:.2f}"


def plain(value: Any) -> Any:
    """Dataclasses and their like as values that JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value
