"""A `/proc` made of plain files, and what a scan needs beside it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from exporter.kernel.procfs import Procfs
from exporter.model import NS, RuntimeScale

BOUNDS = (NS // 1000, NS // 100, NS // 10, NS, 10 * NS)
SCALE = RuntimeScale(threshold_ns=NS, bounds_ns=BOUNDS)
TICK = NS // os.sysconf("SC_CLK_TCK")


def stat_line(
    pid: int,
    comm: bytes,
    *,
    state: str = "S",
    ppid: int = 1,
    flags: int = 0,
    threads: int = 1,
    start: int = 0,
    utime: int = 0,
    stime: int = 0,
) -> bytes:
    """`/proc/PID/stat` as the kernel writes it; times in ticks."""
    before = f"{state} {ppid} 1 1 0 -1 {flags} 0 0 0 0 {utime} {stime} 0 0 20 0 {threads} 0 {start} "
    return b"%d (%b) " % (pid, comm) + before.encode() + b"0 " * 30 + b"0\n"


class FakeProc:
    """A `/proc` in a temporary folder. Without `sees_host`, it is that of a container."""

    def __init__(self, root: Path, *, sees_host: bool = True) -> None:
        self.root = root
        (root / "sys/kernel").mkdir(parents=True)
        self.write("sys/kernel/pid_max", b"32768\n")
        self.clones(0)
        self.last_pid(1000)
        self.procfs = FakeProcfs(str(root), sees_host=sees_host)

    def write(self, path: str, data: bytes) -> None:
        (self.root / path).write_bytes(data)

    def clones(self, n: int) -> None:
        self.write("stat", b"cpu 1 2 3\nintr 5 0\nctxt 7\nprocesses %d\nprocs_running 1\n" % n)

    def last_pid(self, pid: int) -> None:
        self.write("sys/kernel/ns_last_pid", b"%d\n" % pid)

    def add(self, pid: int, comm: bytes = b"sh", **fields: object) -> None:
        """Start a process, or change it."""
        folder = self.root / str(pid)
        folder.mkdir(exist_ok=True)
        (folder / "stat").write_bytes(stat_line(pid, comm, **fields))  # type: ignore[arg-type]

    def cgroup(self, pid: int, path: bytes) -> None:
        """Put a process into a cgroup of v2."""
        self.write(f"{pid}/cgroup", b"4:memory:/other\n1:name=systemd:/other\n0::%b\n" % path)

    def remove(self, pid: int) -> None:
        folder = self.root / str(pid)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

    def unreadable(self, pid: int) -> None:
        """Add a process that may not be read, by root neither: its `stat` is a folder."""
        (self.root / str(pid) / "stat").mkdir(parents=True)


class FakeProcfs(Procfs):
    """Of the initial PID namespace, or not, as told."""

    def __init__(self, root: str, *, sees_host: bool) -> None:
        super().__init__(root)
        self._sees_host = sees_host

    def in_initial_pid_namespace(self) -> bool:
        return self._sees_host


class Clock:
    """A clock that is set by hand, in nanoseconds."""

    def __init__(self, ns: int = 100 * NS) -> None:
        self.ns = ns

    def __call__(self) -> int:
        return self.ns

    def advance(self, seconds: float) -> int:
        """Let time pass; returns the ticks since boot."""
        self.ns += int(seconds * NS)
        return self.ticks

    @property
    def ticks(self) -> int:
        return self.ns // TICK


class FakePidfds:
    """`pidfd_open` for a fake `/proc`: processes and threads are what the test says; a pidfd becomes readable when it `ends`."""

    def __init__(self) -> None:
        self.processes: set[int] = set()
        self.threads: set[int] = set()
        self.asked: list[int] = []
        self._fds: dict[int, int] = {}

    def __call__(self, pid: int) -> int:
        self.asked.append(pid)
        if pid in self.threads:
            raise OSError(errno.ENOENT, "a thread")
        if pid not in self.processes:
            raise OSError(errno.ESRCH, "gone")
        fd = self._fds[pid] = os.eventfd(0)
        return fd

    def end(self, pid: int) -> None:
        """Make the pidfd of `pid` readable."""
        self.processes.discard(pid)
        os.eventfd_write(self._fds[pid], 1)
