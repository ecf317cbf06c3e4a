"""Both sinks, without the child: hostile names, files of others, and a disk that does not take it."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.handlers import sink
from exporter.handlers.sink import FileSink
from exporter.model import comm_text
from tests.unit.handler_child import record
from tests.unit.sink_files import count, lines_to, private, read, rows_to

HOSTILE = [b"a\nb", b"\"'", b"\\", b"\xff\xfe", b"\x1b[2J", b"<script>", b"\x00", "ü\u2028".encode(), b"'); DROP TAB"]
BOTH = pytest.mark.parametrize("make", [lines_to, rows_to])
Make = Callable[..., FileSink]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with private(tmp_path) as folder:
        yield folder


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
