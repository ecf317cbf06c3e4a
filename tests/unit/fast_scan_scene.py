"""A fast scan without privilege and without the real `/proc`."""

from __future__ import annotations

import select
from pathlib import Path

from exporter.sources.scan.fast import FastScanSource
from exporter.sources.scan.pid_probe import ExitWatch, Probe
from tests.unit.fake_proc import SCALE, Clock, FakePidfds, FakeProc

LIMIT = 4


class Scene:
    """A fast scan of a fake `/proc`, made turn by turn."""

    def __init__(self, root: Path, *, pidfds: bool = True) -> None:
        self.proc = FakeProc(root)
        self.clock = Clock()
        self.pidfds = FakePidfds()
        self.epoll = select.epoll()
        self.source = FastScanSource(SCALE, self.proc.procfs, clock=self.clock)
        self.exits = ExitWatch(self.epoll, LIMIT, self.pidfds)
        self.table = self.source._table
        self.table.estimate_threads = False
        exits = self.exits if pidfds else None
        self.probe = Probe(self.proc.procfs, self.table, self.source._tally, exits, self.clock)
        self.source._epoll, self.source._exits, self.source._probe = self.epoll, exits, self.probe
        self.proc.add(500, b"make", ppid=0)
        self.table.begin([500])
        self.source._listing_due_ns = 1 << 62
        self.turn(0)

    def start(self, pid: int, comm: bytes = b"sh", **fields: int) -> None:
        """Start a process with a pidfd, as the newest."""
        self.proc.add(pid, comm, ppid=500, start=self.clock.ticks, **fields)
        self.pidfds.processes.add(pid)
        self.proc.last_pid(pid)

    def turn(self, seconds: float = 0.002, *, listing: bool = False) -> None:
        """Let time pass and make one turn."""
        self.clock.advance(seconds)
        self.source._turn([fd for fd, _ in self.epoll.poll(0)])
        if listing:
            self.source.list_all()

    def close(self) -> None:
        self.exits.close()
        self.epoll.close()
        self.proc.procfs.close()
