"""The store: nothing lost that memory can hold, nothing blocks, and the database's troubles pass."""

import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest
import sqlalchemy as sa
from service_records import decision, eventually, postgres, stage

from hexopt.service import store as store_module
from hexopt.service.database import SCHEMA, decisions, stages
from hexopt.service.store import Store, StoreError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "hexopt.db"


@pytest.fixture
def opened():
    """Opens stores that end with the test."""
    all_of_them = []

    def opener(url, **settings):
        all_of_them.append(Store(f"sqlite:///{url}" if isinstance(url, Path) else url, **settings))
        return all_of_them[-1]

    yield opener
    for store in all_of_them:
        store.close(0.1)


@pytest.fixture(scope="module")
def server():
    with postgres() as running:
        yield running


def names(file):
    with closing(sqlite3.connect(file)) as connection:
        return [name for (name,) in connection.execute("SELECT stage FROM hexopt_stages ORDER BY id")]


def kept_rows(url, table):
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = [dict(row._mapping) for row in connection.execute(sa.select(table))]
    engine.dispose()
    return rows


def as_kept(record):
    row = asdict(record)
    row["parents"] = '["a,b", "c\\"d"]'
    return row


def test_records_come_back_as_they_went_in(file, opened):
    store = opened(file)
    bare = stage(1, instance=None, gpu=None, dispatched=None, first_token=None, deadline=None, prompt_tokens=None,
                 cached_tokens=None, output_tokens=None, prefix=None, decision_id=None, predicted_finish=None,
                 status="rejected")  # fmt: skip
    for record in (stage(0), bare, decision(0), decision(1, solver=None, chosen=None)):
        store.put(record)
    store.close()
    rows = kept_rows(f"sqlite:///{file}", stages)
    assert [row.pop("id") for row in rows] == [1, 2]
    assert rows == [as_kept(stage(0)), as_kept(bare)]
    assert store.decision("d0") == asdict(decision(0))
    assert store.decision("d1") == asdict(decision(1, solver=None, chosen=None))
    assert store.decision("d2") is None
    assert store.stats == store_module.StoreStats(4, 0, 0, 0, False, None)


def test_a_decision_can_be_read_before_it_is_written(file, opened, monkeypatch):
    monkeypatch.setattr(store_module, "GATHER", 30.0)
    store = opened(file)
    store.put(decision(7))
    assert store.stats.pending == 1
    assert store.decision("d7") == asdict(decision(7))
    store.close()
    assert store.decision("d7") == asdict(decision(7))


def test_the_newest_of_two_decisions_of_one_id_counts(file, opened):
    store = opened(file)
    store.put(decision(1, chosen="a"))
    assert eventually(lambda: store.stats.written == 1)
    store.put(decision(1, chosen="b"))
    assert store.decision("d1")["chosen"] == "b"
    store.close()
    assert store.decision("d1")["chosen"] == "b"


def test_threads_lose_nothing_and_keep_their_order(file, opened):
    store = opened(file)

    def work(t):
        for k in range(800):
            store.put(stage(k, workflow=f"t{t}", stage=str(k)))

    threads = [threading.Thread(target=work, args=(t,)) for t in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close(60)
    assert store.stats.written == 4800
    with closing(sqlite3.connect(file)) as connection:
        for t in range(6):
            found = connection.execute("SELECT stage FROM hexopt_stages WHERE workflow = ? ORDER BY id", (f"t{t}",))
            assert [int(name) for (name,) in found] == list(range(800))


def test_a_restart_keeps_rows(file, opened):
    for k in range(3):
        store = opened(file)
        store.put(stage(k))
        store.close()
    assert names(file) == ["s0", "s1", "s2"]


def test_the_file_is_a_write_ahead_log_so_that_readers_never_wait(file, opened):
    store = opened(file)
    store.put(stage())
    assert eventually(lambda: store.stats.written == 1)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.execute("BEGIN")
        assert connection.execute("SELECT count(*) FROM hexopt_stages").fetchone() == (1,)
        store.put(stage(1))
        assert eventually(lambda: store.stats.written == 2)


def test_a_locked_database_degrades_with_one_warning_and_recovers(file, opened, monkeypatch, caplog):
    monkeypatch.setattr("hexopt.service.database.SQLITE_WAIT", 0.05)
    store = opened(file)
    with closing(sqlite3.connect(file, isolation_level=None)) as other, caplog.at_level(logging.WARNING):
        other.execute("BEGIN EXCLUSIVE")
        for k in range(5):
            store.put(stage(k))
        assert eventually(lambda: store.stats.degraded)
        first = store.stats
        assert (first.pending, first.written, first.dropped) == (5, 0, 0)
        assert "database is locked" in first.last_error and str(file) in first.last_error
        store.put(stage(5))
        time.sleep(0.5)
        other.execute("ROLLBACK")
        assert eventually(lambda: store.stats.written == 6 and not store.stats.degraded)
    assert names(file) == [f"s{k}" for k in range(6)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_database_locked_at_the_start_is_awaited(file, opened, monkeypatch):
    monkeypatch.setattr("hexopt.service.database.SQLITE_WAIT", 0.05)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        store = opened(file)
        assert store.stats.degraded
        store.put(stage())
    assert eventually(lambda: store.stats.written == 1 and not store.stats.degraded)
    assert names(file) == ["s0"]


def test_memory_holds_no_more_than_its_capacity_and_the_rest_is_counted(file, opened, monkeypatch):
    monkeypatch.setattr("hexopt.service.database.SQLITE_WAIT", 0.05)
    store = opened(file, capacity=50)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for k in range(120):
            store.put(stage(k))
        assert eventually(lambda: store.stats.degraded)
        assert (store.stats.pending, store.stats.dropped) == (50, 70)
    store.close()
    assert names(file) == [f"s{k}" for k in range(50)]
    assert (store.stats.pending, store.stats.written, store.stats.dropped) == (0, 50, 70)


def test_closing_ends_in_time_though_the_database_is_locked_and_says_what_is_lost(file, opened, monkeypatch, caplog):
    monkeypatch.setattr("hexopt.service.database.SQLITE_WAIT", 0.05)
    store = opened(file)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for k in range(3):
            store.put(stage(k))
        started = time.monotonic()
        store.close(0.5)
        assert time.monotonic() - started < 20
        assert "closed with 3 rows not written" in caplog.text
        store.put(stage(9))
        assert eventually(lambda: store.stats.dropped == 4)
        assert (store.stats.pending, store.stats.written) == (0, 0)
    assert names(file) == []


FULL_DISK = """
import resource, sys, time
from service_records import eventually, stage
from hexopt.service.store import Store
store = Store("sqlite:///" + sys.argv[1])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (131_072, hard))
text = "x" * 10_000
for k in range(100):
    store.put(stage(k, model=text))
assert eventually(lambda: store.stats.degraded), store.stats
print(store.stats.last_error)
assert store.stats.pending == 100, store.stats
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert eventually(lambda: store.stats.written == 100 and not store.stats.degraded), store.stats
store.close()
"""


def test_a_file_that_cannot_grow_is_written_to_once_it_can(file):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", FULL_DISK, file]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "full" in done.stdout or "disk I/O error" in done.stdout
    assert names(file) == [f"s{k}" for k in range(100)]


def test_a_file_that_is_moved_away_is_made_anew(file, opened):
    store = opened(file)
    store.put(stage(0))
    assert eventually(lambda: store.stats.written == 1)
    for suffix in ("", "-wal", "-shm"):
        old = file.with_name(file.name + suffix)
        if old.exists():
            old.rename(file.with_name("old.db" + suffix))
    store.put(stage(1))
    assert eventually(lambda: store.stats.written == 2)
    store.close()
    assert names(file) == ["s1"] and names(file.with_name("old.db")) == ["s0"]


def test_tables_that_vanish_are_made_anew(file, opened):
    store = opened(file)
    with closing(sqlite3.connect(file)) as other:
        other.execute("DROP TABLE hexopt_stages")
    store.put(stage(1))
    assert eventually(lambda: store.stats.written == 1 and not store.stats.degraded)
    assert names(file) == ["s1"]


def test_a_row_that_no_database_takes_is_left_out_and_the_others_are_written(file, opened):
    store = opened(file)
    bad = {3: {"prompt_tokens": 2**70}, 5: {"weight": float("nan")}, 6: {"model": "\ud800"}, 8: {"parents": {1}}}
    for k in range(10):
        store.put(stage(k, **bad.get(k, {})))
    store.put("not a record")
    store.put(decision(1, id=["not an id"]))
    store.put(decision(1))
    store.close()
    assert names(file) == ["s0", "s1", "s2", "s4", "s7", "s9"]
    stats = store.stats
    assert (stats.written, stats.failed, stats.pending, stats.degraded) == (7, 6, 0, False)
    assert store.decision("d1") == asdict(decision(1))


@pytest.mark.parametrize(("rows", "expected"), [(5, range(15, 20)), (100, range(20))])
def test_only_the_last_rows_are_kept(file, opened, monkeypatch, rows, expected):
    monkeypatch.setattr(store_module, "BATCH", 1)
    store = opened(file, retain_rows=rows)
    for k in range(20):
        store.put(stage(k))
        store.put(decision(k))
    store.close()
    assert names(file) == [f"s{k}" for k in expected]
    assert {k for k in range(20) if store.decision(f"d{k}")} == set(expected)


def test_an_earlier_runs_surplus_is_pruned_too(file, opened):
    store = opened(file)
    for k in range(20):
        store.put(stage(k))
    store.close()
    again = opened(file, retain_rows=5)
    again.put(stage(20))
    again.close()
    assert names(file) == [f"s{k}" for k in range(16, 21)]


def test_only_what_ended_lately_is_kept(file, opened):
    store = opened(file, retain_seconds=10.0, clock=lambda: 120.0)
    for k in range(20):  # end at 103 + k
        store.put(stage(k))
        store.put(decision(k))  # made at 101.5 + k
    store.close()
    assert names(file) == [f"s{k}" for k in range(7, 20)]
    assert {k for k in range(20) if store.decision(f"d{k}")} == set(range(9, 20))


def test_a_newer_schema_is_refused_by_name_and_left_as_it_is(file, opened):
    opened(file).close()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE hexopt_schema SET version = ?", (SCHEMA + 1,))
        connection.execute("DROP TABLE hexopt_stages")
        connection.commit()
    with pytest.raises(StoreError, match=rf"hexopt\.db: its schema is version {SCHEMA + 1}, expected at most {SCHEMA}"):
        Store(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert "hexopt_stages" not in tables


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "store 'nonsense': not a URL, expected one like sqlite:///hexopt.db"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:////no/such/folder/x.db", "there is no folder /no/such/folder"),
        ("sqlite:////proc/self/x.db", "/proc/self cannot be written to"),
        ("sqlite:////tmp", "/tmp is a folder, expected a file"),
        ("oracle+nothing://u:secret@h/x", r"store oracle\+nothing://u:\*\*\*@h/x: .*expected the URL of a database"),
        ("mysql://u:secret@h/x", "No module named 'MySQLdb', expected the URL of a database whose driver is installed"),
    ],
)
def test_a_store_that_can_never_work_is_refused_at_the_start(url, message):
    before = threading.active_count()
    with pytest.raises(StoreError, match=message) as error:
        Store(url)
    assert "secret" not in str(error.value)
    assert threading.active_count() == before


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(StoreError, match=f"{tmp_path} cannot be written to"):
            Store(f"sqlite:///{tmp_path}/x.db")
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"capacity": 0}, "capacity is 0"),
        ({"retain_rows": 0}, "retain_rows is 0"),
        ({"retain_seconds": float("nan")}, "retain_seconds is nan"),
    ],
)
def test_settings_out_of_range_are_refused(file, settings, message):
    with pytest.raises(StoreError, match=message):
        Store(f"sqlite:///{file}", **settings)
    assert not file.exists()


def test_a_server_that_is_down_is_awaited_without_its_password_in_the_log(caplog):
    store = Store("postgresql://hexopt:secret@127.0.0.1:1/x")
    store.put(stage())
    assert store.stats.degraded
    with pytest.raises(StoreError, match=r"hexopt:\*\*\*@127.0.0.1:1/x"):
        store.decision("d0")
    store.close(0.1)
    assert "secret" not in caplog.text and "rows wait in memory" in caplog.text


def test_postgresql_takes_the_same_records(server, opened):
    store = opened(server.url)
    store.put(stage(0))
    store.put(decision(0))
    store.put(stage(1, model="a\x00b"))  # no text to PostgreSQL
    store.put(stage(2, parents=()))
    assert eventually(lambda: store.stats.pending == 0)
    assert (store.stats.written, store.stats.failed) == (3, 1)
    assert store.decision("d0") == asdict(decision(0))
    url = server.url.replace("postgresql", "postgresql+psycopg")
    assert as_kept(stage(0)) in [{k: v for k, v in row.items() if k != "id"} for row in kept_rows(url, stages)]
    store.close()
    again = opened(server.url, retain_rows=1)
    again.put(stage(3))
    again.put(decision(3))
    again.close()
    assert [row["stage"] for row in kept_rows(url, stages)] == ["s3"]
    assert [row["id"] for row in kept_rows(url, decisions)] == ["d3"]


def test_postgresql_may_stop_and_start_again(server, opened):
    store = opened(server.url)
    before = store.stats.written
    server.stop()
    for k in range(4):
        store.put(stage(k, workflow="while down"))
    assert eventually(lambda: store.stats.degraded)
    server.start()
    assert eventually(lambda: store.stats.written == before + 4)
    assert eventually(lambda: not store.stats.degraded)
    rows = kept_rows(server.url.replace("postgresql", "postgresql+psycopg"), stages)
    assert sum(row["workflow"] == "while down" for row in rows) == 4
