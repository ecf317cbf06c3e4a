"""Records are read back from what sinks wrote."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.handlers.sink import FileSink
from exporter.library.history import History, Unreadable
from exporter.model import NS
from exporter.records.record import Record
from tests.unit.sink_files import lines_to, private, rows_to
from tests.unit.snoop_records import TYPICAL, records

BEGAN = TYPICAL.ended_ns
SINKS = pytest.mark.parametrize("sink", [lines_to, rows_to])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with private(tmp_path) as path:
        yield path


def write(sink: FileSink, *batch: Record) -> Path:
    """Write records as the sink does in its process; its file."""
    sink.handle(list(batch))
    sink.store()
    sink.release()
    return sink.path


def some(number: int) -> list[Record]:
    """One each second."""
    return [TYPICAL._replace(pid=each + 1, ended_ns=BEGAN + each * NS) for each in range(number)]


def comparable(batch: list[Record]) -> list[str]:
    """In any order. A lineage of one empty name, which no source sends, is empty in SQLite."""
    return sorted(repr(each._replace(lineage=() if each.lineage == (b"",) else each.lineage)) for each in batch)


@SINKS
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(records, min_size=1, max_size=5))
def test_what_is_written_is_read(sink: Any, batch: list[Record]) -> None:
    """Hostile names, unknown values, arguments and ancestors: the same in both files as they came."""
    with tempfile.TemporaryDirectory() as name, private(Path(name)) as folder:
        found = list(History(write(sink(folder), *batch)))
    assert comparable(found) == comparable(batch)


@SINKS
def test_only_the_time_that_was_asked_for(sink: Any, folder: Path) -> None:
    """From the first moment on, and before the last."""
    path = write(sink(folder), *some(10))
    assert [each.pid for each in History(path, BEGAN + 3 * NS, BEGAN + 6 * NS)] == [4, 5, 6]
    assert [each.pid for each in History(path, BEGAN + 8 * NS)] == [9, 10]
    assert not list(History(path, BEGAN + 99 * NS))


def test_rotated_files(folder: Path) -> None:
    """They are part of the history, and come before the file itself."""
    sink = lines_to(folder)
    for record in some(3):
        path = write(sink, record)
        if record.pid < 3:
            for number in (1, 0):
                old = path.with_name(f"{path.name}.{number}") if number else path
                if old.exists():
                    old.rename(path.with_name(f"{path.name}.{number + 1}"))
    assert sorted(each.name for each in folder.iterdir()) == ["records.jsonl", "records.jsonl.1", "records.jsonl.2"]
    assert [each.pid for each in History(path)] == [1, 2, 3]


def test_damaged_lines_are_counted(folder: Path) -> None:
    """A crash cuts a line, and anybody may have written others: what is good is read all the same."""
    path = write(lines_to(folder), *some(2))
    text = path.read_bytes()
    path.write_bytes(text[:100] + b"\n[[[\nnull\n\xff\n" + b"x" * 3_000_000 + b"\n" + text)
    history = History(path)
    assert [each.pid for each in history] == [1, 2]
    assert history.damaged == 7  # the long line is three pieces


def test_damaged_rows_are_counted(folder: Path) -> None:
    """SQLite lets any program write any type into a column."""
    path = write(rows_to(folder), *some(5))
    database = sqlite3.connect(path)
    for number, change in enumerate(("comm = x'00'", "pid = 'x'", "outcome = 'fine'", r"unit = char(27)"), 1):
        database.execute(f"UPDATE records SET {change} WHERE ended_ns = ?", (BEGAN + number * NS,))
    database.commit()
    database.close()
    history = History(path)
    assert [each.pid for each in history] == [1]
    assert history.damaged == 4


def test_a_database_of_the_first_version(folder: Path) -> None:
    """Later columns have their defaults."""
    path = folder / "records.db"
    database = sqlite3.connect(path)
    names = ", ".join(Record._fields[:13])
    database.execute(f"CREATE TABLE records ({names})")
    database.execute(
        f"INSERT INTO records VALUES ({', '.join('?' * 13)})", (5, 6, 0, 1, None, "old", "sh", "/x", "ok", 0, None, "/", "netlink")
    )
    database.commit()
    database.close()
    (record,) = History(path)
    assert (record.comm, record.user, record.lineage, record.oom_killed) == (b"old", "", (), None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"SQLite format 3\0" + b"x" * 5000, "file is not a database|malformed"),
        ("", "no table of records"),
    ],
)
def test_what_is_no_history(content: bytes | str | None, reason: str, tmp_path: Path) -> None:
    """The reason is one sentence."""
    path = tmp_path / "file"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        database = sqlite3.connect(path)
        database.execute("CREATE TABLE other (x)")
        database.commit()
        database.close()
    with pytest.raises(Unreadable, match=reason):
        list(History(path))
