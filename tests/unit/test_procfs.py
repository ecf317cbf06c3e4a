"""Parsing what the kernel writes, whatever name somebody gave a process."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.kernel.procfs import Procfs, Stat, parse_stat, parse_tgid
from exporter.model import KERNEL_THREADS, Lost
from tests.unit.fake_proc import FakeProc, stat_line

SAMPLE = Path(__file__).parents[1] / "fixtures" / "proc"


@pytest.fixture
def sample() -> Iterator[Procfs]:
    procfs = Procfs(str(SAMPLE))
    yield procfs
    procfs.close()


def test_reads_the_sample(sample: Procfs) -> None:
    """Field numbers are easily off by one; these lines are from a kernel."""
    assert sample.stat(1) == Stat(pid=1, comm=b"systemd", state=b"S", ppid=0, threads=1, start_ticks=22, cpu_ticks=697)
    assert sample.stat(812) == Stat(pid=812, comm=b"a) (b\n) c", state=b"R", ppid=1, threads=3, start_ticks=4711, cpu_ticks=12)
    assert sample.tgid(812) == 812
    assert sample.kernel_clones() == 4999
    assert sample.last_pid() == 998
    assert sample.pid_max() == 32768
    assert sorted(sample.pids()) == [1, 2, 812]


def test_kernel_threads_have_one_name(sample: Procfs) -> None:
    """Hundreds of kworkers must not take the names of programs."""
    stat = sample.stat(2)
    assert isinstance(stat, Stat)
    assert stat.comm == KERNEL_THREADS


@pytest.mark.parametrize("comm", [b"a) (b", b"a\nb", b"\xff\xfe", b"", b" ", b")", b") S 1 2 3", b"(", b"a b c"])
def test_hostile_comm(comm: bytes) -> None:
    """Anybody may choose a comm that looks like the rest of the line."""
    assert parse_stat(stat_line(7, comm, ppid=3, start=9)).comm == comm


@settings(database=None)
@given(comm=st.binary(max_size=15).filter(lambda comm: b"\0" not in comm), ticks=st.integers(0, 2**40))
def test_any_comm(comm: bytes, ticks: int) -> None:
    """No comm moves another field."""
    stat = parse_stat(stat_line(7, comm, ppid=3, threads=5, start=ticks, utime=1, stime=2))
    assert stat == Stat(pid=7, comm=comm, state=b"S", ppid=3, threads=5, start_ticks=ticks, cpu_ticks=3)


@settings(database=None)
@given(st.binary(max_size=200))
def test_garbage_is_a_value_error(data: bytes) -> None:
    """Whatever a file holds, only `ValueError` may come of it."""
    for parse in (parse_stat, parse_tgid):
        with contextlib.suppress(ValueError):
            parse(data)


@pytest.mark.parametrize(("state", "threads", "ended"), [("Z", 1, True), ("X", 0, True), ("Z", 3, False), ("S", 1, False)])
def test_a_zombie_leader_with_threads_lives(state: str, threads: int, ended: bool) -> None:
    """A leader may leave first; the process ends with its last thread."""
    assert parse_stat(stat_line(7, b"x", state=state, threads=threads)).ended is ended


def test_failures_are_told_apart(tmp_path: Path) -> None:
    """Each has a cause of its own in the metrics, and none may raise."""
    proc = FakeProc(tmp_path)
    proc.unreadable(11)
    proc.add(12)
    proc.write("12/stat", b"12 (sh) S 1")
    assert proc.procfs.stat(10) is Lost.VANISHED
    assert proc.procfs.stat(11) is Lost.UNREADABLE
    assert proc.procfs.stat(12) is Lost.MALFORMED
    assert proc.procfs.tgid(10) is Lost.VANISHED


def test_half_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that execs while it is read is still there."""
    proc = FakeProc(tmp_path)
    proc.add(12, b"new")
    real, failures = os.read, [OSError(errno.ESRCH, "no such process")]

    def read(fd: int, n: int) -> bytes:
        if failures:
            raise failures.pop()
        return real(fd, n)

    monkeypatch.setattr(os, "read", read)
    stat = proc.procfs.stat(12)
    assert isinstance(stat, Stat)
    assert stat.comm == b"new"
    failures += [OSError(errno.ESRCH, "no such process")] * 2
    assert proc.procfs.stat(12) is Lost.VANISHED


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Thousands of failed reads a second must not use up descriptors."""
    proc = FakeProc(tmp_path)
    proc.unreadable(11)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for pid in (10, 11):
        proc.procfs.stat(pid)
    proc.procfs.kernel_clones()
    assert proc.procfs.last_pid() == 1000
    proc.procfs.close()
    proc.procfs.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_last_pid_without_its_file(tmp_path: Path) -> None:
    """Kernels without CONFIG_CHECKPOINT_RESTORE have it in loadavg only."""
    proc = FakeProc(tmp_path)
    (tmp_path / "sys/kernel/ns_last_pid").unlink()
    assert proc.procfs.last_pid() is None
    proc.write("loadavg", b"0.08 0.02 0.01 2/82 3367\n")
    assert proc.procfs.last_pid() == 3367
    proc.write("loadavg", b"0.08 0.02 0.01 2/82 3368\n")
    assert proc.procfs.last_pid() == 3368
    proc.procfs.close()


def test_kernel_clones_behind_a_long_line(tmp_path: Path) -> None:
    """A machine with thousands of interrupts has them before the count, past any fixed buffer."""
    proc = FakeProc(tmp_path)
    proc.write("stat", b"intr " + b"0 " * 100_000 + b"\nprocesses 77\n")
    assert proc.procfs.kernel_clones() == 77
    proc.write("stat", b"cpu 1\n")
    assert proc.procfs.kernel_clones() is None


def test_cpus_of_the_host(tmp_path: Path) -> None:
    """As the mount tells, which may be another one than our own; not known is not 0."""
    assert FakeProc(tmp_path / "unread").procfs.host_cpus is None
    proc = FakeProc(tmp_path / "read")
    proc.write("stat", b"cpu  9 9\ncpu0 1 1\ncpu2 8 8\nintr 1 cpu\nprocesses 77\n")
    assert (proc.procfs.kernel_clones(), proc.procfs.host_cpus) == (77, 2)
    proc.clones(78)
    assert (proc.procfs.kernel_clones(), proc.procfs.host_cpus) == (78, None)
    real = Procfs()
    real.kernel_clones()
    assert real.host_cpus == os.sysconf("SC_NPROCESSORS_ONLN")


def test_namespaces(tmp_path: Path) -> None:
    """A host's `/proc` mounted in a container has PIDs that our system calls don't know."""
    assert Procfs().has_our_pids()
    assert not Procfs(str(tmp_path)).has_our_pids()
    assert not Procfs(str(tmp_path)).in_initial_pid_namespace()
    (tmp_path / "self").symlink_to("1")
    assert not Procfs(str(tmp_path)).has_our_pids()
