"""Finds processes by the PIDs that the kernel gave out since the last probe, and their exits by pidfd.

One cheap call of `pidfd_open(2)` distinguishes three cases: the PID is gone (ESRCH), is a thread (ENOENT; EINVAL before Linux 6.15), or is
a process. A pidfd becomes readable when all threads of the process have exited. None of this needs privileges.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from itertools import chain, islice
from select import EPOLLIN, epoll

from exporter.kernel.procfs import RESERVED_PIDS, Procfs
from exporter.model import Lost
from exporter.sources.scan.process_table import Process, ProcessTable, middle
from exporter.sources.tally import Tally

MAX_PROBES = 256
"""Most PIDs probed at once. Older ones have most likely exited, or the listing finds them."""

_A_THREAD = frozenset({errno.ENOENT, errno.EINVAL})


def new_pids(before: int, last: int, pid_max: int, limit: int = MAX_PROBES) -> list[int]:
    """Return the PIDs after `before` up to `last`, the newest first, at most `limit`. At `pid_max` they start again at 300."""
    if last >= before:
        return list(range(last, before, -1)[:limit])
    return list(islice(chain(range(last, RESERVED_PIDS - 1, -1), range(pid_max - 1, before, -1)), limit))


class ExitWatch:
    """Watches the youngest processes by pidfd, through epoll. When it is full, the oldest is dropped and left to the listing."""

    def __init__(self, poll: epoll, limit: int, pidfd_open: Callable[[int], int]) -> None:
        self.open = pidfd_open
        self._epoll = poll
        self._limit = limit
        self._watched: dict[int, Process] = {}

    def __len__(self) -> int:
        """Return the number of open pidfds."""
        return len(self._watched)

    def add(self, fd: int, process: Process) -> None:
        """Watch `process` by its pidfd, which is closed when it is no longer needed."""
        if len(self._watched) >= self._limit:
            self.pop(next(iter(self._watched)))
        try:
            self._epoll.register(fd, EPOLLIN)
        except OSError:  # fs.epoll.max_user_watches: the listing finds its exit
            os.close(fd)
            return
        self._watched[fd] = process
        process.watched = True

    def watch(self, process: Process) -> None:
        """Watch a process that the listing found, if possible."""
        if not process.ended and not process.watched:
            try:
                fd = self.open(process.pid)
            except OSError:
                return  # it has exited, or no descriptor is free: the listing finds its exit
            self.add(fd, process)

    def pop(self, fd: int) -> Process:
        """Stop watching a pidfd. Returns its process."""
        process = self._watched.pop(fd)
        self._epoll.unregister(fd)  # closing is not enough while a child of ours holds a copy
        os.close(fd)
        process.watched = False
        return process

    def close(self) -> None:
        """Close every pidfd."""
        while self._watched:
            self.pop(next(iter(self._watched)))


class Probe:
    """Probes the PIDs given out since the last probe.

    A thread counts if it is alive and has started since then: after a wrap, the range of PIDs includes older threads.
    """

    def __init__(self, procfs: Procfs, table: ProcessTable, tally: Tally, exits: ExitWatch | None, clock: Callable[[], int]) -> None:
        """Without `exits` (no `pidfd_open` here), `/proc/PID/status` distinguishes processes from threads."""
        self._procfs = procfs
        self._table = table
        self._tally = tally
        self._exits = exits
        self._clock = clock
        self._pid_max = procfs.pid_max()
        self._last_pid: int | None = None
        self._polled_ns = 0

    def begin(self) -> None:
        """Start here: only later PIDs are new."""
        self._polled_ns, self._last_pid = self._clock(), self._procfs.last_pid()

    def advance(self) -> list[Process]:
        """Probe the new PIDs. Returns the processes among them."""
        since_ns, self._polled_ns = self._polled_ns, self._clock()
        before, self._last_pid = self._last_pid, self._procfs.last_pid()
        if before is None or self._last_pid is None or self._last_pid == before:
            return []
        if self._last_pid < before:
            self._pid_max = self._procfs.pid_max()
        found = []
        for pid in new_pids(before, self._last_pid, self._pid_max):
            known = self._table.processes.get(pid)
            if (known is None or not known.watched) and pid not in self._table.unread:
                process = self._probe(pid, since_ns)
                if process is not None and process is not known:
                    found.append(process)
        return found

    def _probe(self, pid: int, since_ns: int) -> Process | None:
        if self._exits is None:
            return self._probe_by_status(pid, since_ns)
        try:
            fd = self._exits.open(pid)
        except OSError as error:
            if error.errno in _A_THREAD:
                self._thread(pid, since_ns)
            elif error.errno != errno.ESRCH:  # no free descriptor or memory
                return self._probe_by_status(pid, since_ns)
            return None
        stat = self._procfs.stat(pid)
        if stat is Lost.VANISHED and _exists(fd):
            stat = Lost.UNREADABLE
        process = self._table.update(pid, stat, since_ns)
        if process is None or process.ended:
            os.close(fd)
        else:
            self._exits.add(fd, process)
        return process

    def _probe_by_status(self, pid: int, since_ns: int) -> Process | None:
        tgid = self._procfs.tgid(pid)
        if tgid is Lost.VANISHED:
            return None
        if isinstance(tgid, Lost) or tgid == pid:
            return self._table.update(pid, self._procfs.stat(pid), since_ns)
        self._thread(pid, since_ns)
        return None

    def _thread(self, tid: int, since_ns: int) -> None:
        stat = self._procfs.stat(tid)
        if isinstance(stat, Lost):
            self._tally.missed(stat)
        elif stat.start_ticks >= since_ns // self._procfs.tick_ns:
            self._tally.threads(1, *middle(since_ns, self._clock()))


def _exists(pidfd: int) -> bool:
    """Return whether a process exists that `/proc` may hide (hidepid=2, proc(5))."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
