"""Finding processes by the PIDs that the kernel gave out since the last look, and their ends by pidfd.

`pidfd_open(2)` tells three things in one cheap call: the PID is gone (ESRCH), is a thread (ENOENT; EINVAL before Linux 6.15), or is a
process. And a pidfd becomes readable when the whole process has exited. Nothing of it needs privilege.
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
"""Most PIDs probed at once; what is older than those has most likely ended, or is found by the listing."""

_A_THREAD = frozenset({errno.ENOENT, errno.EINVAL})


def given_out(before: int, last: int, pid_max: int, limit: int = MAX_PROBES) -> list[int]:
    """List the PIDs after `before` up to `last`, the newest first, at most `limit`; they start again at 300 after `pid_max`."""
    if last >= before:
        return list(range(last, before, -1)[:limit])
    return list(islice(chain(range(last, RESERVED_PIDS - 1, -1), range(pid_max - 1, before, -1)), limit))


class ExitWatch:
    """Pidfds of the youngest processes in an epoll; the oldest makes room for a new one and is left to the listing."""

    def __init__(self, poll: epoll, limit: int, pidfd_open: Callable[[int], int]) -> None:
        self.open = pidfd_open
        self._epoll = poll
        self._limit = limit
        self._watched: dict[int, Process] = {}

    def __len__(self) -> int:
        """How many pidfds are open."""
        return len(self._watched)

    def add(self, fd: int, process: Process) -> None:
        """Watch `process` by its pidfd, which is closed when it is no longer needed."""
        if len(self._watched) >= self._limit:
            self.pop(next(iter(self._watched)))
        try:
            self._epoll.register(fd, EPOLLIN)
        except OSError:  # fs.epoll.max_user_watches: the listing will see
            os.close(fd)
            return
        self._watched[fd] = process
        process.watched = True

    def watch(self, process: Process) -> None:
        """Watch a process that was found by its listing, where that can be."""
        if not process.ended and not process.watched:
            try:
                fd = self.open(process.pid)
            except OSError:
                return  # it has ended, or descriptors are short: the listing will see
            self.add(fd, process)

    def pop(self, fd: int) -> Process:
        """Stop watching, and return whose pidfd it was."""
        process = self._watched.pop(fd)
        self._epoll.unregister(fd)  # closing would not do while a fork of ours holds a copy
        os.close(fd)
        process.watched = False
        return process

    def close(self) -> None:
        """Close every pidfd."""
        while self._watched:
            self.pop(next(iter(self._watched)))


class Probe:
    """Probes the PIDs given out since it last did.

    A thread counts where it is found alive and started since then: after a wrap, the PIDs between two looks include old threads.
    """

    def __init__(self, procfs: Procfs, table: ProcessTable, tally: Tally, exits: ExitWatch | None, clock: Callable[[], int]) -> None:
        """Without `exits` (no `pidfd_open` here) processes are told from threads by `/proc/PID/status`."""
        self._procfs = procfs
        self._table = table
        self._tally = tally
        self._exits = exits
        self._clock = clock
        self._pid_max = procfs.pid_max()
        self._last_pid: int | None = None
        self._polled_ns = 0

    def begin(self) -> None:
        """What there is from now on is new."""
        self._polled_ns, self._last_pid = self._clock(), self._procfs.last_pid()

    def advance(self) -> list[Process]:
        """Look at what is new and return the processes among it; the first time there is nothing new."""
        since_ns, self._polled_ns = self._polled_ns, self._clock()
        before, self._last_pid = self._last_pid, self._procfs.last_pid()
        if before is None or self._last_pid is None or self._last_pid == before:
            return []
        if self._last_pid < before:
            self._pid_max = self._procfs.pid_max()
        found = []
        for pid in given_out(before, self._last_pid, self._pid_max):
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
            elif error.errno != errno.ESRCH:  # descriptors or memory are short
                return self._probe_by_status(pid, since_ns)
            return None
        stat = self._procfs.stat(pid)
        if stat is Lost.VANISHED and _still_there(fd):
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


def _still_there(pidfd: int) -> bool:
    """Whether a process that `/proc` does not show exists (hidepid=2, proc(5))."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
