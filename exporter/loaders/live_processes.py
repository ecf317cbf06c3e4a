"""Enters the processes that are older than the programs into the map `live_processes` (`live_processes.bcc.c`).

It runs after the programs were attached, and no exit counts before it is done. Changes meanwhile are seen either by the programs or here:
an entry stays only if the process is the same before and after it was entered.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from ctypes import c_char, c_uint32, c_uint64
from typing import NamedTuple

from exporter.kernel.bpf import BpfMap
from exporter.kernel.layout import COMM_LEN
from exporter.kernel.procfs import Procfs, Stat
from exporter.model import KERNEL_THREADS, Lost

_ROUNDS = 20
_NO_ROOM = {errno.E2BIG, errno.ENOMEM}
_PAUSE_SECONDS = 0.01
"""A new thread is listed some microseconds before its tracepoint fires. After this time it has fired."""


class LiveProcess(ctypes.Structure):
    """`struct live_process` of live_processes.bcc.c."""

    _fields_ = (("start_ns", c_uint64), ("parent", c_uint32), ("live", c_uint32), ("comm", c_char * COMM_LEN), ("is_kernel", c_uint64))


class _Look(NamedTuple):
    start_ticks: int
    comm: bytes
    parent: int
    threads: frozenset[int]
    """The live threads, if they are counted."""
    is_still: bool = True
    """Whether no thread was just exiting."""


class Filler:
    """Enters the processes in `/proc` into the map."""

    def __init__(self, births: BpfMap, procfs: Procfs, *, count_threads: bool) -> None:
        """`count_threads`: the programs find the last thread of a process by counting."""
        self._births = births
        self._procfs = procfs
        self._count_threads = count_threads
        self._before: dict[int, _Look] = {}
        # `/proc` dates a start by a clock that goes on while the machine is suspended
        self._asleep_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()

    def fill(self) -> int:
        """Enter them. Returns the number of processes without room, or that changed too quickly. Raises `OSError`."""
        left = self._procfs.pids()
        for _ in range(_ROUNDS):
            left = [pid for pid in left if not self._enter(pid)]
            if not left:
                break
            time.sleep(_PAUSE_SECONDS)
        for key in self._births.read().keys:
            stat = self._procfs.stat(int.from_bytes(key, "little"))
            if stat is Lost.VANISHED or (isinstance(stat, Stat) and stat.ended):
                self._births.delete(key)
        return len(left)

    def _enter(self, pid: int) -> bool:
        """Return whether the process is done."""
        look = self._look(pid)
        if look is None:
            return True
        if self._count_threads and (look != self._before.get(pid) or not look.is_still):
            self._before[pid] = look
            return False
        key, birth = pid.to_bytes(4, "little"), self._birth(look)
        try:
            self._births.enter(key, bytes(birth))
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            return False
        again, now = self._look(pid), self._births.lookup(key)
        if again is None or (now is not None and LiveProcess.from_buffer(now).start_ns != birth.start_ns):
            return True  # it has exited, or the programs saw its start
        if again == look and now is not None and bytes(now) == bytes(birth):
            return True
        self._births.delete(key)
        self._before[pid] = again
        return False

    def _look(self, pid: int) -> _Look | None:
        """Return its state, or None if it has exited or cannot be read."""
        stat = self._procfs.stat(pid)
        if isinstance(stat, Lost) or stat.ended:
            return None
        look = _Look(stat.start_ticks, stat.comm, stat.ppid, frozenset())
        return self._with_threads(look, pid) if self._count_threads else look

    def _with_threads(self, look: _Look, pid: int) -> _Look | None:
        """Return its live threads. A zombie thread has exited; an exiting one may have."""
        try:
            tids = [int(name) for name in os.listdir(f"{self._procfs.root}/{pid}/task")]  # noqa: PTH208 - each process and round
        except OSError:
            return None
        stats = [self._procfs.stat(tid) for tid in tids]
        live = [each for each in stats if isinstance(each, Stat) and each.state not in {b"Z", b"X"}]
        is_still = not any(isinstance(each, Lost) for each in stats) and not any(each.exiting for each in live)
        return look._replace(threads=frozenset(each.pid for each in live), is_still=is_still)

    def _birth(self, look: _Look) -> LiveProcess:
        is_kernel = look.comm == KERNEL_THREADS and look.parent in {0, 2}
        start_ns = max(1, look.start_ticks * self._procfs.tick_ns - self._asleep_ns)
        return LiveProcess(start_ns, look.parent, max(1, len(look.threads)), look.comm, is_kernel)
