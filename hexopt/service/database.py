"""The tables of the store, in any database that SQLAlchemy knows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, make_url

from hexopt.service.records import DecisionRecord, StageRecord

SCHEMA = 1
"""Version of the tables."""
SQLITE_WAIT = 1.0
"""Seconds that SQLite waits for another's lock before it gives up."""
CONNECT_WAIT = 5
"""Seconds that PostgreSQL may take to accept a connection."""

T = TypeVar("T")

_tables = sa.MetaData()
_schema = sa.Table("hexopt_schema", _tables, sa.Column("version", sa.Integer, nullable=False))
_key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
stages = sa.Table(
    "hexopt_stages",
    _tables,
    sa.Column("id", _key, primary_key=True, autoincrement=True),
    sa.Column("workflow", sa.Text, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("parents", sa.Text, nullable=False),  # a JSON array
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("weight", sa.Double, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("instance", sa.Text),
    sa.Column("gpu", sa.Text),
    sa.Column("arrival", sa.Double, nullable=False, index=True),
    sa.Column("ready", sa.Double, nullable=False),
    sa.Column("dispatched", sa.Double),
    sa.Column("first_token", sa.Double),
    sa.Column("finish", sa.Double, nullable=False, index=True),
    sa.Column("deadline", sa.Double),
    sa.Column("prompt_tokens", sa.BigInteger),
    sa.Column("cached_tokens", sa.BigInteger),
    sa.Column("output_tokens", sa.BigInteger),
    sa.Column("prefix", sa.Text),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("retries", sa.Integer, nullable=False),
    sa.Column("decision_id", sa.String(255)),
    sa.Column("predicted_finish", sa.Double),
    sa.Column("policy", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
decisions = sa.Table(
    "hexopt_decisions",
    _tables,
    sa.Column("key", _key, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(255), nullable=False, index=True),
    sa.Column("time", sa.Double, nullable=False, index=True),
    sa.Column("workflow", sa.Text, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("solver", sa.Text),
    sa.Column("chosen", sa.Text),
    sa.Column("receipt", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)


_STAGE = tuple(field.name for field in fields(StageRecord))
_DECISION = tuple(field.name for field in fields(DecisionRecord))
# dataclasses.asdict copies every value: ten times slower, in a thread that shares the interpreter with the gateway.
_of_stage, _of_decision = attrgetter(*_STAGE), attrgetter(*_DECISION)


class StoreError(ValueError):
    """A database that cannot serve as the store; the message names it and what was expected."""


class UnavailableError(StoreError):
    """The database does not answer or cannot write now; it may later."""


class RefusedError(StoreError):
    """The database will never take these rows."""


class Database:
    """The store's tables behind one URL.

    Parameters
    ----------
    url
        As SQLAlchemy writes them: ``sqlite:///hexopt.db``, ``postgresql://user@host/name``.

    Raises
    ------
    StoreError
        If the URL cannot be read, needs a driver that is not there, or names no file.
    """

    def __init__(self, url: str) -> None:
        parsed = _parsed(url)
        self.name = parsed.render_as_string(hide_password=True)
        self.file = _sqlite_file(parsed, self.name)
        arguments: dict[str, Any] = {}
        if self.file is not None:
            arguments = {"timeout": SQLITE_WAIT}
        elif parsed.drivername == "postgresql+psycopg":
            arguments = {"connect_timeout": CONNECT_WAIT}
        try:
            self._engine = sa.create_engine(parsed, connect_args=arguments, pool_pre_ping=self.file is None)
        except (ImportError, exc.ArgumentError) as error:
            raise StoreError(f"store {self.name}: {error}, expected the URL of a database whose driver is installed") \
                from None  # fmt: skip
        if self.file is not None:
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
        self._prepared: tuple[int, int] | None = None

    def prepare(self) -> None:
        """Create the tables where they are not there, unless this was done already.

        Raises
        ------
        StoreError
            If they are of a newer schema, or the file cannot be written to.
        UnavailableError
            If the database does not answer.
        """
        if self._prepared is not None:
            if self._identity() == self._prepared:
                return
            # Another file, or none, has the name now; open connections still write to the old one.
            self._engine.dispose()
        self._prepared = None

        def create(connection: sa.Connection) -> None:
            if sa.inspect(connection).has_table(_schema.name):
                self._check_version(connection)
            if self.file is not None:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # stays with the file
            _tables.create_all(connection)
            if connection.scalar(sa.select(sa.func.max(_schema.c.version))) is None:
                connection.execute(_schema.insert().values(version=SCHEMA))

        if self.file is not None:
            for path in (self.file.parent, self.file):
                if path.exists() and not os.access(path, os.W_OK):
                    raise StoreError(f"store {self.name}: {path} cannot be written to")
        self._transaction(create)
        self._prepared = self._identity()

    def check(self) -> None:
        """Refuse a database that holds no store, or one of a newer schema; for readers, which create nothing."""
        if self.file is not None and not self.file.exists():
            raise StoreError(f"store {self.name}: no such file")

        def look(connection: sa.Connection) -> None:
            if not sa.inspect(connection).has_table(_schema.name):
                raise StoreError(f"store {self.name}: holds no table {_schema.name}, expected a database of HexOpt's")
            self._check_version(connection)

        self._transaction(look)

    def insert(self, records: Sequence[StageRecord | DecisionRecord]) -> None:
        """Write ``records`` in one transaction.

        Raises
        ------
        RefusedError
            If one of them can never be written.
        UnavailableError
            If the database cannot be written to now.
        """
        try:
            rows = [_stage_row(r) for r in records if not isinstance(r, DecisionRecord)]
            made = [
                dict(zip(_DECISION, _of_decision(r), strict=True)) for r in records if isinstance(r, DecisionRecord)
            ]
        except (TypeError, ValueError, AttributeError) as error:
            raise RefusedError(f"store {self.name}: not a record: {error}") from None

        def write(connection: sa.Connection) -> None:
            if rows:
                connection.execute(stages.insert(), rows)
            if made:
                connection.execute(decisions.insert(), made)

        self._transaction(write)

    def prune(self, rows: int, before: float | None) -> int:
        """Delete all but the last ``rows`` of each table, and what ended before unix second ``before``.

        Returns
        -------
        int
            Rows deleted.
        """

        def delete(connection: sa.Connection) -> int:
            gone = 0
            for table, key, when in (
                (stages, stages.c.id, stages.c.finish),
                (decisions, decisions.c.key, decisions.c.time),
            ):
                last = connection.scalar(sa.select(key).order_by(key.desc()).offset(rows).limit(1))
                if last is not None:
                    gone += connection.execute(table.delete().where(key <= last)).rowcount
                if before is not None:
                    gone += connection.execute(table.delete().where(when < before)).rowcount
            return gone

        return self._transaction(delete)

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        """The newest decision of that id, as the fields of its record."""
        columns = [column for column in decisions.c if column.name != "key"]
        wanted = sa.select(*columns).where(decisions.c.id == decision_id).order_by(decisions.c.key.desc()).limit(1)
        row = self._transaction(lambda connection: connection.execute(wanted).first())
        return None if row is None else dict(row._mapping)

    def rows(self, query: sa.Select[Any]) -> Iterable[Any]:
        """The rows of ``query``, a thousand at a time."""
        try:
            with self._engine.connect().execution_options(yield_per=1000) as connection:
                yield from connection.execute(query)
        except exc.SQLAlchemyError as error:
            raise UnavailableError(f"store {self.name}: {_reason(error)}") from None

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _check_version(self, connection: sa.Connection) -> None:
        version = connection.scalar(sa.select(sa.func.max(_schema.c.version)))
        if version is not None and version > SCHEMA:
            raise StoreError(
                f"store {self.name}: its schema is version {version}, expected at most {SCHEMA}: "
                "a newer HexOpt made it; upgrade, or name another database"
            )

    def _transaction(self, work: Callable[[sa.Connection], T]) -> T:
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except StoreError:
            raise
        except Exception as error:
            message = f"store {self.name}: {_reason(error)}"
            if not _is_passing(error):
                raise RefusedError(message) from None
            self._prepared = None  # its tables may be what is gone
            raise UnavailableError(message) from None

    def _identity(self) -> tuple[int, int]:
        """Which file has the database's name, if it is one."""
        if self.file is None:
            return (0, 0)
        try:
            about = self.file.stat()
        except OSError:
            return (-1, -1)
        return (about.st_dev, about.st_ino)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise StoreError(f"store {url!r}: not a URL, expected one like sqlite:///hexopt.db") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed


def _sqlite_file(url: URL, name: str) -> Path | None:
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database.startswith((":memory:", "file:")):
        raise StoreError(f"store {name}: names no file, expected one like sqlite:///hexopt.db")
    file = Path(url.database)
    if file.is_dir():
        raise StoreError(f"store {name}: {file} is a folder, expected a file")
    if not file.parent.is_dir():
        raise StoreError(f"store {name}: there is no folder {file.parent}")
    return file


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # NORMAL with a write-ahead log never corrupts; only a power cut may lose the last transactions.
    connection.execute("PRAGMA synchronous=NORMAL")


def _is_passing(error: Exception) -> bool:
    """Whether a failed transaction may work later."""
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    lasting = (exc.DataError, exc.IntegrityError, exc.ProgrammingError, exc.NotSupportedError)
    return isinstance(error, exc.DatabaseError | exc.InterfaceError | exc.TimeoutError | OSError) and not isinstance(
        error, lasting
    )


def _reason(error: Exception) -> str:
    """The database's own words, in one line."""
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    return " ".join(str(cause).split()) or type(cause).__name__


def _stage_row(record: Any) -> dict[str, Any]:
    row = dict(zip(_STAGE, _of_stage(record), strict=True))
    row["parents"] = json.dumps(row["parents"])
    return row


def _decision_row(record: DecisionRecord) -> dict[str, Any]:
    return dict(zip(_DECISION, _of_decision(record), strict=True))
