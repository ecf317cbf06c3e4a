"""The sinks, without the child: what is in the files, and what happens when a disk does not take it."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from handler_child import record

from exporter.handlers import as_json, jsonl, sink, sqlite
from exporter.handlers.jsonl import Jsonl
from exporter.handlers.sink import Sink
from exporter.handlers.sqlite import Sqlite
from exporter.model import NS, comm_text

MIB = 1 << 20
DECADE = 3660 * 86400.0
HOSTILE = [b"a\nb", b"\"'", b"\\", b"\xff\xfe", b"\x1b[2J", b"<script>", b"\x00", "ü\u2028".encode(), b"'); DROP TAB"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    tmp_path.chmod(0o750)
    before = os.umask(0o027)  # as in the child
    yield tmp_path
    os.umask(before)


def lines_to(folder: Path, **options: Any) -> Jsonl:
    return Jsonl(**({"path": str(folder / "records.jsonl"), "max_bytes": MIB, "max_age_seconds": DECADE, "keep": 2} | options))


def rows_to(folder: Path, **options: Any) -> Sqlite:
    return Sqlite(**({"path": str(folder / "records.db"), "max_bytes": 1 << 30, "max_age_seconds": DECADE} | options))


BOTH = pytest.mark.parametrize("make", [lines_to, rows_to])
Make = Callable[..., Sink]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def count(path: Path) -> int:
    """How many are stored."""
    if ".jsonl" in path.name:
        return len(read(path)) if path.exists() else 0
    database = sqlite3.connect(path)
    try:
        return int(database.execute("SELECT count(*) FROM records").fetchone()[0])
    finally:
        database.close()


def test_lines_say_everything(folder: Path) -> None:
    """Both ways to make a line have to agree, with each other and with the record."""
    each = record(7, code=None, uid=None, cpu_ns=None)
    lines = lines_to(folder)
    lines.handle([record(7, ended_ns=1_700_000_000_000_000_001), each])
    lines.close()
    first, second = read(folder / "records.jsonl")
    assert first == {
        "ended_at": "2023-11-14T22:13:20.000000001Z",
        "started_at": "2023-11-14T22:13:19.998000001Z",
        "runtime_seconds": 0.002,
        "pid": 7,
        "ppid": 1,
        "uid": 1000,
        "comm": "cc1",
        "parent_comm": "make",
        "exe": "/usr/bin/cc1",
        "outcome": "ok",
        "exit_code": 0,
        "signal": None,
        "cpu_seconds": 0.0015,
        "cgroup": "/user.slice",
        "mode": "ebpf_core",
    }
    assert second == as_json(each)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_stored_safely(folder: Path, name: bytes) -> None:
    """Whoever names a process must not write lines, or run SQL, or clear a terminal, through a sink."""
    lines, rows = lines_to(folder), rows_to(folder)
    for each in (lines, rows):
        each.handle([record(comm=name, parent_comm=name, exe=name, cgroup=name)])
        each.close()
    data = (folder / "records.jsonl").read_text()
    assert data.endswith("\n")
    assert data[:-1].isprintable()
    (line,) = read(folder / "records.jsonl")
    database = sqlite3.connect(folder / "records.db")
    (row,) = database.execute("SELECT comm, parent_comm, exe, cgroup FROM records").fetchall()
    database.close()
    assert row == (comm_text(name),) * 4 == tuple(line[key] for key in ("comm", "parent_comm", "exe", "cgroup"))


def test_rows_are_exact_and_indexed(folder: Path) -> None:
    """Times are whole nanoseconds, and a question about a time or a name must not read the whole table."""
    rows = rows_to(folder)
    rows.handle([record(7, ended_ns=1_700_000_000_000_000_001, code=None, outcome=2)])
    rows.close()
    database = sqlite3.connect(folder / "records.db")
    assert database.execute("SELECT * FROM records").fetchall() == [
        (
            1_700_000_000_000_000_001,
            2_000_000,
            7,
            1,
            1000,
            "cc1",
            "make",
            "/usr/bin/cc1",
            "signal",
            None,
            1_500_000,
            "/user.slice",
            "ebpf_core",
        )
    ]
    for where in ("ended_ns > 5", "comm = 'cc1' AND ended_ns > 5"):
        assert "USING INDEX" in database.execute(f"EXPLAIN QUERY PLAN SELECT * FROM records WHERE {where}").fetchone()[3]
    assert [database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "auto_vacuum", "user_version")] == ["wal", 2, 1]
    database.close()


@BOTH
def test_files_are_private_and_go_on(folder: Path, make: Make) -> None:
    """Names of processes are nobody else's business; and a restart goes on in the same file."""
    for _ in range(2):
        each = make(folder)
        each.handle([record()] * 3)
        each.tick()
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o640}
        each.close()
    assert count(each.path) == 6
    assert (each.tally.handled, each.tally.lost, each.tally.pending) == (3, 0, 0)


@BOTH
def test_a_renamed_file_is_left_alone(folder: Path, make: Make) -> None:
    """Logrotate renames, and expects a new file."""
    each = make(folder)
    each.handle([record()])
    each.tick()
    for file in list(folder.iterdir()):
        file.rename(folder / f"old.{file.name}")
    each.handle([record()] * 2)
    each.tick()
    each.close()
    assert count(each.path) == 2


@BOTH
def test_a_link_is_not_followed(folder: Path, make: Make) -> None:
    """It may point at a file that is somebody else's."""
    each = make(folder)
    (folder / "precious").write_text("")
    each.path.symlink_to(folder / "precious")
    each.handle([record()])
    each.tick()
    assert each.tally.errors == 1
    assert (folder / "precious").read_text() == ""


@BOTH
def test_a_directory_that_others_can_write_is_refused(folder: Path, make: Make) -> None:
    """They could put their own file, or a link, in the place of ours."""
    folder.chmod(0o770)
    each = make(folder)
    each.handle([record()])
    each.tick()
    assert (each.tally.errors, list(folder.iterdir())) == (1, [])


@BOTH
def test_a_failure_is_counted_and_tried_again(folder: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full now has room later; until then nothing is written twice or lost."""
    each = make(folder)
    folder.chmod(0o770)
    for _ in range(3):
        each.handle([record()] * 10)
        each.tick()
    assert (each.tally.errors, each.tally.pending) == (1, 30)  # tried each few seconds, not each time
    folder.chmod(0o750)
    monkeypatch.setattr(each, "_retry_at", 0.0)
    each.tick()
    assert (each.tally.errors, each.tally.handled, each.tally.pending) == (1, 30, 0)
    each.close()
    assert count(each.path) == 30


@BOTH
def test_waiting_has_a_bound(folder: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk must not fill the memory: the oldest go, and are counted."""
    monkeypatch.setattr(sink, "_MOST_PENDING", 100)
    folder.chmod(0o770)
    each = make(folder)
    each.tick()
    for number in range(13):
        each.handle([record(number)] * 10)
    assert (each.tally.pending, each.tally.lost) == (100, 30)
    assert each.pending[0].pid == 3
    each.close()
    assert (each.tally.pending, each.tally.lost) == (0, 130)


def test_rotation_by_size_keeps_every_line_whole(folder: Path) -> None:
    """A line that is cut in two is lost to whoever reads the files."""
    lines = lines_to(folder, keep=20)
    for at in range(0, 20_000, 1000):
        lines.handle([record(number) for number in range(at, at + 1000)])
        lines.tick()
    lines.close()
    files = sorted(folder.iterdir(), key=lambda file: int(file.suffix[1:]) if file.suffix != ".jsonl" else 0, reverse=True)
    assert len(files) > 3
    assert all(file.stat().st_size <= MIB for file in files)
    assert [line["pid"] for file in files for line in read(file)] == list(range(20_000))


def test_rotation_keeps_so_many(folder: Path) -> None:
    """The bound on what a host keeps."""
    lines = lines_to(folder, keep=2)
    for _ in range(20):
        lines.handle([record()] * 1000)
        lines.tick()
    lines.close()
    assert sorted(file.name for file in folder.iterdir()) == ["records.jsonl", "records.jsonl.1", "records.jsonl.2"]


def test_rotation_by_age_goes_by_the_first_record(folder: Path) -> None:
    """Also where that was written before a restart, and where no record comes any more."""
    lines = lines_to(folder)
    lines.handle([record(ended_ns=time.time_ns() - 3600 * NS)])
    lines.close()
    lines = lines_to(folder, max_age_seconds=7200)
    lines.tick()
    assert not (folder / "records.jsonl.1").exists()
    lines.close()
    lines = lines_to(folder, max_age_seconds=1800)
    lines.tick()
    lines.close()
    assert count(folder / "records.jsonl.1") == 1
    assert (folder / "records.jsonl").stat().st_size == 0


def test_a_line_cut_by_a_crash_is_ended(folder: Path) -> None:
    """The first line after it would be spoilt too."""
    path = folder / "records.jsonl"
    path.write_text('{"time":"2026-')
    lines = lines_to(folder)
    lines.handle([record()])
    lines.close()
    first, second = path.read_text().splitlines()
    assert first == '{"time":"2026-'
    json.loads(second)


def test_a_write_that_breaks_off_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk becomes full in the middle of a line, and the same records are written later."""
    lines = lines_to(folder)
    lines.handle([record()])
    lines.tick()
    write = os.write

    def half(fd: int, data: Any) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, "no space left on device")
        return write(fd, data[: len(data) // 2])

    monkeypatch.setattr(jsonl.os, "write", half)
    lines.handle([record()] * 5)
    lines.tick()
    assert (lines.tally.errors, lines.tally.pending, count(lines.path)) == (1, 5, 1)
    monkeypatch.undo()
    lines.close()
    assert count(lines.path) == 6


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


@pytest.mark.parametrize("content", ["not a database, and longer than its header " * 10, None])
def test_a_database_that_is_not_ours_is_left_alone(folder: Path, content: str | None) -> None:
    """Somebody may have given the wrong path; and a newer version may know better than we do."""
    path = folder / "records.db"
    if content is None:
        other = sqlite3.connect(path)
        other.executescript("CREATE TABLE theirs (x); PRAGMA user_version = 2;")
        other.close()
    else:
        path.write_text(content)
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
