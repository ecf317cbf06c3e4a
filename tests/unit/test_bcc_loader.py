"""What `ebpf_bcc` needs before anything is compiled, and what it makes of the processes that are there already."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.kernel.bpf import Rows
from exporter.kernel.layout import COMM_LEN
from exporter.loaders import bcc, live_processes
from exporter.loaders.live_processes import Filler, LiveProcess
from tests.unit.fake_proc import FakeProc

KTHREAD = 0x200000
EXITING = 0x4


class FakeMap:
    """The map of births; `on_enter` is what the programs do in between."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.on_enter: Callable[[bytes], None] = lambda key: None

    def insert(self, key: bytes, value: bytes) -> None:
        self.rows.setdefault(key, value)
        self.on_enter(key)

    def lookup(self, key: bytes) -> bytearray | None:
        return bytearray(self.rows[key]) if key in self.rows else None

    def delete(self, key: bytes) -> None:
        self.rows.pop(key, None)

    def read(self) -> Rows:
        return Rows(list(self.rows), memoryview(b""), 0)

    def births(self) -> dict[int, LiveProcess]:
        return {int.from_bytes(key, "little"): LiveProcess.from_buffer_copy(value) for key, value in self.rows.items()}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_processes, "_PAUSE_SECONDS", 0)


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def fill(proc: FakeProc, into: FakeMap, *, count_threads: bool = False) -> int:
    return Filler(into, proc.procfs, count_threads=count_threads).fill()  # type: ignore[arg-type]


def threads(proc: FakeProc, pid: int, *others: int) -> None:
    for tid in (pid, *others):
        (proc.root / str(pid) / "task" / str(tid)).mkdir(parents=True, exist_ok=True)
    for tid in others:
        proc.add(tid, b"thread")


def test_who_is_there_is_entered(proc: FakeProc) -> None:
    """With name and parent; kernel threads are known by their flag."""
    proc.add(2, b"kthreadd", flags=KTHREAD, ppid=0)
    proc.add(7, b"sh", ppid=1, start=100)
    into = FakeMap()
    assert fill(proc, into) == 0
    found = into.births()
    assert {pid: (each.comm, each.parent, each.is_kernel) for pid, each in found.items()} == {2: (b"[kernel]", 0, 1), 7: (b"sh", 1, 0)}


def test_who_has_ended_is_not(proc: FakeProc) -> None:
    """A zombie's exit has been, so its birth would stay for ever; a zombie leader whose threads live is a living process."""
    proc.add(7, state="Z")
    proc.add(8, state="Z", threads=2)
    into = FakeMap()
    fill(proc, into)
    assert list(into.births()) == [8]


def test_who_ends_meanwhile_is_forgotten(proc: FakeProc) -> None:
    """Its exit found no birth to delete."""
    proc.add(7)
    into = FakeMap()
    into.on_enter = lambda key: proc.remove(7)
    assert fill(proc, into) == 0
    assert into.rows == {}


def test_a_birth_that_a_program_saw_is_better(proc: FakeProc) -> None:
    """It has the exact time, and it is of whoever has the id now."""
    proc.add(7, b"late")
    into = FakeMap()
    seen = bytes(LiveProcess(start_ns=5, comm=b"early", live=3))
    into.rows[(7).to_bytes(4, "little")] = seen
    fill(proc, into)
    assert into.rows[(7).to_bytes(4, "little")] == seen


def test_a_name_that_changes_meanwhile(proc: FakeProc) -> None:
    """The programs saw no birth whose name they could have changed."""
    proc.add(7, b"before")
    into = FakeMap()
    into.on_enter = lambda key: proc.add(7, b"after")
    assert fill(proc, into) == 0
    assert into.births()[7].comm == b"after"


def test_live_threads_are_counted(proc: FakeProc) -> None:
    """One that is a zombie has left already."""
    proc.add(7, threads=4)
    threads(proc, 7, 8, 9, 10)
    proc.add(9, state="Z")
    into = FakeMap()
    assert fill(proc, into, count_threads=True) == 0
    assert into.births()[7].live == 3


def test_a_thread_that_is_leaving_is_waited_for(proc: FakeProc) -> None:
    """Nobody knows whether its exit has been; where it never settles, the process is left out, and that is said."""
    proc.add(7, threads=2)
    threads(proc, 7, 8)
    proc.add(8, flags=EXITING)
    into = FakeMap()
    assert fill(proc, into, count_threads=True) == 1
    assert into.births() == {}


def test_a_count_that_a_program_changes_meanwhile(proc: FakeProc) -> None:
    """A thread that came while its process was entered may be in both counts: look again."""
    proc.add(7, threads=1)
    threads(proc, 7)
    into = FakeMap()
    times = []

    def clone_once(key: bytes) -> None:
        times.append(key)
        if len(times) == 1:
            birth = into.births()[7]
            birth.live += 1
            into.rows[key] = bytes(birth)

    into.on_enter = clone_once
    assert fill(proc, into, count_threads=True) == 0
    assert len(times) == 2
    assert into.births()[7].live == 1


def test_the_layout_of_a_birth() -> None:
    """The child refuses a map whose elements are of another size; their order is here and in live_processes.bcc.c alone."""
    offsets = [getattr(LiveProcess, name).offset for name in ("start_ns", "parent", "live", "comm", "is_kernel")]
    assert offsets == [0, 8, 12, 16, 16 + COMM_LEN]
    source = (Path(bcc.__file__).parents[2] / "bpf" / "live_processes.bcc.c").read_text()
    body = source.partition("struct live_process {")[2].partition("};")[0]
    names = [line.partition(";")[0].split()[-1] for line in body.splitlines() if ";" in line]
    assert names == ["start_ns", "parent", "live", "comm", "is_kernel"]


def test_the_child_runs_under_old_interpreters() -> None:
    """Its interpreter is the system's, not ours: Python 3.9, its standard library, and bcc."""
    source = Path(bcc._CHILD).read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {alias.name for each in ast.walk(tree) if isinstance(each, ast.Import) for alias in each.names}
    imported |= {each.module or "" for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)}
    assert imported <= set(sys.stdlib_module_names) | {"__future__"}


def test_an_old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is tried."""
    release = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*release[:2], "4.14.35-x", *release[3:])))
    assert bcc.refusal() == "kernel 4.14.35-x is too old: this mode needs 4.18 or later"


def test_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual case."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert bcc.refusal() == "bcc needs root: run the exporter as root"


def test_no_interpreter_has_bcc(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said; and it may be installed while we run."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(bcc, "bpf_refusal", lambda: None)
    monkeypatch.setattr(bcc, "_has_bcc", lambda interpreter: False)
    assert "apt install python3-bpfcc" in (bcc.refusal() or "")
    monkeypatch.setattr(bcc, "_has_bcc", lambda interpreter: True)
    assert bcc.refusal() is None


def test_another_project_of_that_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PyPI's bcc is a lattice library; ours has a libbcc.py."""
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").touch()
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nshift\nPYTHONPATH={tmp_path} exec {sys.executable} -S "$@"\n')
    interpreter.chmod(0o755)
    assert not bcc._has_bcc(str(interpreter))
    (tmp_path / "bcc" / "libbcc.py").touch()
    assert bcc._has_bcc(str(interpreter))


def test_no_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wheel that was put together wrongly."""
    monkeypatch.setattr(bcc, "PLACES", (tmp_path,))
    assert bcc.refusal() == "the source of the programs, lifecycle.bcc.c, is not installed: install the exporter again"
