"""The sink of lines: what a line says, and when the file is rotated."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.handlers import as_json
from exporter.model import NS
from tests.unit.handler_child import record
from tests.unit.sink_files import MIB, count, lines_to, private, read


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with private(tmp_path) as folder:
        yield folder


def test_lines_say_everything(folder: Path) -> None:
    """Both ways to make a line have to agree, with each other and with the record."""
    records = [record(7, ended_ns=1_700_000_000_000_000_001), record(7, code=None, uid=None, cpu_ns=None)]
    lines = lines_to(folder)
    lines.handle(records)
    lines.close()
    assert read(folder / "records.jsonl") == list(map(as_json, records))


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

    monkeypatch.setattr(os, "write", half)
    lines.handle([record()] * 5)
    lines.tick()
    assert (lines.tally.errors, lines.tally.pending, count(lines.path)) == (1, 5, 1)
    monkeypatch.undo()
    lines.close()
    assert count(lines.path) == 6
