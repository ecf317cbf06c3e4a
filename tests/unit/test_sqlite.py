"""The sink of rows: what a row says, which rows go, and others at the database."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.handlers import sqlite
from exporter.handlers.sqlite import Sqlite
from exporter.model import NS, Outcome
from tests.unit.handler_child import record
from tests.unit.sink_files import MIB, count, private, rows_to


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with private(tmp_path) as folder:
        yield folder


def test_rows_are_exact_and_indexed(folder: Path) -> None:
    """Times are whole nanoseconds, and a question about a time or a name must not read the whole table."""
    rows = rows_to(folder)
    each = record(7, ended_ns=1_700_000_000_000_000_001, code=None, outcome=Outcome.SIGNAL)
    rows.handle([each])
    rows.close()
    database = sqlite3.connect(folder / "records.db")
    assert database.execute("SELECT * FROM records").fetchall() == [Sqlite.table.row(*each)]
    assert database.execute("SELECT ended_ns, comm, outcome, code FROM records").fetchone() == (each.ended_ns, "cc1", "signal", None)
    for where in ("ended_ns > 5", "comm = 'cc1' AND ended_ns > 5"):
        assert "USING INDEX" in database.execute(f"EXPLAIN QUERY PLAN SELECT * FROM records WHERE {where}").fetchone()[3]
    expected = ["wal", 2, Sqlite.table.version]
    assert [database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "auto_vacuum", "user_version")] == expected
    database.close()


def test_old_rows_go(folder: Path) -> None:
    """A table that only grows ends with a full disk."""
    rows = rows_to(folder, max_age_seconds=3600)
    rows.handle([record(number, ended_ns=time.time_ns() - 7200 * NS) for number in range(5000)] + [record(number) for number in range(10)])
    for _ in range(50):
        rows.tick()
    rows.close()
    assert count(rows.path) == 10
    assert rows.path.stat().st_size < MIB // 2


def test_the_oldest_rows_go_when_there_are_too_many(folder: Path) -> None:
    """The bound in bytes holds for the file, not only for what is in it."""
    now, rows = time.time_ns(), rows_to(folder, max_bytes=MIB)
    for at in range(0, 40_000, 2000):
        rows.handle([record(number, ended_ns=now + number) for number in range(at, at + 2000)])
        rows.tick()
    for _ in range(20):
        rows.tick()
    rows.close()
    database = sqlite3.connect(rows.path)
    left, first, last = database.execute("SELECT count(*), min(ended_ns), max(ended_ns) FROM records").fetchone()
    database.close()
    assert rows.path.stat().st_size <= MIB
    assert last == now + 39_999
    assert left == last - first + 1 > 1000


@pytest.mark.parametrize("version", [None, 0, 1, Sqlite.table.version])
def test_a_database_that_is_not_ours_is_left_alone(folder: Path, version: int | None) -> None:
    """Somebody may have given the wrong path, be it of another program's database, or of no database at all."""
    path = folder / "records.db"
    if version is None:
        path.write_text("not a database, and longer than its header " * 10)
    else:
        other = sqlite3.connect(path)
        other.executescript(f"CREATE TABLE theirs (x); PRAGMA user_version = {version};")
        other.close()
    before = path.read_bytes()
    rows = rows_to(folder)
    rows.handle([record()])
    rows.tick()
    rows.release()
    assert (rows.tally.errors, rows.tally.pending) == (1, 1)
    assert path.read_bytes() == before


def test_a_reader_does_not_stop_the_writer(folder: Path) -> None:
    """People ask questions while records come."""
    rows = rows_to(folder)
    rows.handle([record()])
    rows.tick()
    reader = sqlite3.connect(rows.path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM records").fetchone() == (1,)
    rows.handle([record()])
    rows.tick()
    assert (rows.tally.errors, rows.tally.handled) == (0, 2)
    assert reader.execute("SELECT count(*) FROM records").fetchone() == (1,)
    reader.close()
    rows.close()


def test_a_locked_database_costs_a_retry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer may hold it for longer than we wait."""
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.01)
    rows = rows_to(folder)
    rows.tick()
    rows.release()
    writer = sqlite3.connect(rows.path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    rows.handle([record()])
    rows.tick()
    assert (rows.tally.errors, rows.tally.pending) == (1, 1)
    writer.close()
    rows.close()
    assert count(rows.path) == 1
