"""What every reader reads from: possibly compressed files, progress, remarks, errors that say where."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TextIO

from hexopt.traces.workflow import TraceError

_GZIP_MAGIC = b"\x1f\x8b"
_LINES_PER_PROGRESS = 2048


def _refuse_constant(name: str) -> float:
    raise TraceError(f"not valid JSON: {name} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_json(text: str) -> Any:
    """Decode one JSON document.

    Raises
    ------
    TraceError
        On anything that RFC 8259 does not allow, ``NaN`` and ``Infinity`` included, and on absurd nesting.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise TraceError(f"not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise TraceError("not valid JSON: nested too deeply") from None
    except TraceError:
        raise
    except ValueError as error:
        raise TraceError(f"not valid JSON: {error}") from None


class _Place:
    """Puts file and place in front of a ``TraceError``; swallows it where the source is not strict."""

    __slots__ = ("_source", "_where")

    def __init__(self, source: Source, where: str) -> None:
        self._source = source
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, RecursionError):
            error = TraceError("nested too deeply")
        if not isinstance(error, TraceError):
            return False
        if self._source.strict:
            raise TraceError(f"{self._source.path}: {self._where}: {error}") from None
        self._source.tally("skipped {n} malformed records")
        return True


class Source:
    """The files of one trace, read once, in order.

    Parameters
    ----------
    paths
        Files to read, at least one; each may be gzip-compressed (told by content, not by name).
    progress
        Called with (bytes read, bytes in all), compressed bytes where the file is compressed.
    on_note
        Called with remarks in plain words.
    strict
        Whether the first malformed record ends the reading; otherwise such records are skipped and counted.
    chain_sessions
        Whether readers of single calls join the calls of one session to a workflow.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        progress: Callable[[int, int], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        strict: bool = True,
        chain_sessions: bool = True,
    ) -> None:
        self.path = paths[0]
        self.strict = strict
        self.chain_sessions = chain_sessions
        self._paths = tuple(paths)
        self._progress = progress
        self._on_note = on_note
        self._tallies: Counter[str] = Counter()
        self._done = 0
        try:
            self._total = sum(path.stat().st_size for path in self._paths)
        except OSError as error:
            raise TraceError(f"{error.filename}: cannot be read: {error.strerror}") from None

    def at(self, where: str) -> _Place:
        """Context in which a ``TraceError`` belongs to the record ``where`` of the present file."""
        return _Place(self, where)

    def error(self, message: str) -> TraceError:
        """Build a ``TraceError`` on the present file as a whole."""
        return TraceError(f"{self.path}: {message}")

    def note(self, remark: str) -> None:
        """Hand on a remark."""
        if self._on_note is not None:
            self._on_note(remark)

    def tally(self, remark: str, count: int = 1) -> None:
        """Count a remark that recurs; ``{n}`` in it becomes the count when the reading ends."""
        self._tallies[remark] += count

    def finish(self) -> None:
        """Hand on the counted remarks and full progress."""
        for remark, count in self._tallies.items():
            self.note(remark.format(n=f"{count:,}"))
        if self._progress is not None:
            self._progress(self._total, self._total)

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield (line number from 1, line) of every non-blank line of every file."""
        for path in self._paths:
            with self._opened(path) as (raw, stream):
                for number, line in enumerate(self._guarded(stream), start=1):
                    if self._progress is not None and number % _LINES_PER_PROGRESS == 0:
                        self._progress(self._done + raw.tell(), self._total)
                    if not line.isspace():
                        yield number, line

    def rows(self, required: Sequence[str]) -> Iterator[tuple[int, dict[str, int], list[str]]]:
        """Yield (line number, column places by lower-case name, cells) of every row of a CSV with a header.

        Raises
        ------
        TraceError
            Where the header lacks one of ``required`` (lower-case names).
        """
        for path in self._paths:
            with self._opened(path) as (raw, stream):
                columns: dict[str, int] = {}
                for number, cells in self._table(self._guarded(stream)):
                    if not columns:
                        columns = {name.strip().lower(): place for place, name in enumerate(cells)}
                        missing = [name for name in required if name not in columns]
                        if missing:
                            raise self.error(
                                f"line {number}: the header lacks the column {missing[0]!r}; "
                                f"it reads {','.join(cells)[:200]}"
                            )
                    elif len(cells) < len(columns):
                        with self.at(f"line {number}"):
                            raise TraceError(f"has {len(cells)} cells, expected {len(columns)}")
                    else:
                        yield number, columns, cells
                    if self._progress is not None and number % _LINES_PER_PROGRESS == 0:
                        self._progress(self._done + raw.tell(), self._total)
                if not columns:
                    raise self.error("is empty")

    def documents(self) -> Iterator[tuple[str, Any]]:
        """Yield (place, JSON document): a file holds either one document or one document a line."""
        for path in self._paths:
            with self._opened(path) as (raw, stream):
                lines = self._guarded(stream)
                head: list[str] = []
                filled: list[str] = []
                for line in lines:
                    head.append(line)
                    if not line.isspace():
                        filled.append(line)
                    if len(filled) == 2:
                        break
                if not filled:
                    raise self.error("is empty")
                if len(filled) == 1 or not _is_document(filled[0]):
                    yield from self._parsed("file", "".join(chain(head, lines)))
                    continue
                for number, line in enumerate(chain(head, lines), start=1):
                    if not line.isspace():
                        yield from self._parsed(f"line {number}", line)
                    if self._progress is not None and number % _LINES_PER_PROGRESS == 0:
                        self._progress(self._done + raw.tell(), self._total)

    def head(self, characters: int) -> str:
        """Return the first ``characters`` characters of the first file."""
        with self._opened(self._paths[0]) as (_, stream), self._reading():
            text = stream.read(characters)
        self._done = 0
        return text

    def _parsed(self, where: str, text: str) -> Iterator[tuple[str, Any]]:
        documents: list[Any] = []
        with self.at(where):
            documents.append(parse_json(text))
        for document in documents:
            yield where, document

    @contextmanager
    def _opened(self, path: Path) -> Iterator[tuple[BinaryIO, TextIO]]:
        self.path = path
        with self._reading():
            raw: BinaryIO = path.open("rb")
        with raw:
            with self._reading():
                packed = raw.read(2) == _GZIP_MAGIC
                raw.seek(0)
            plain = gzip.GzipFile(fileobj=raw) if packed else raw
            yield raw, io.TextIOWrapper(plain, encoding="utf-8-sig", newline="")
        self._done += path.stat().st_size

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self.error(f"is a damaged gzip file: {error}") from None
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise self.error(f"is no UTF-8 text: {error.reason} at byte {error.start}") from None

    def _guarded(self, stream: TextIO) -> Iterator[str]:
        with self._reading():
            yield from stream

    def _table(self, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
        table = csv.reader(lines)
        try:
            for cells in table:
                if cells:
                    yield table.line_num, cells
        except csv.Error as error:
            raise self.error(f"line {table.line_num}: not valid CSV: {error}") from None


def _is_document(line: str) -> bool:
    try:
        return isinstance(parse_json(line), dict | list)
    except TraceError:
        return False
