"""Enters the processes that started before the programs into the map `live_processes` (`live_processes.bcc.c`).

It runs after the programs are attached, and no exit is counted before it ends. A process that changes meanwhile is seen by the programs or
here: its entry stays only if the process is the same before and after the insertion.
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
"""A new thread is listed in `/proc` some microseconds before its tracepoint fires. After this time it has fired."""


class LiveProcess(ctypes.Structure):
    """`struct live_process` in live_processes.bcc.c."""

    _fields_ = (("start_ns", c_uint64), ("parent", c_uint32), ("live", c_uint32), ("comm", c_char * COMM_LEN), ("is_kernel", c_uint64))


class _State(NamedTuple):
    start_ticks: int
    comm: bytes
    parent: int
    threads: frozenset[int]
    """TIDs of the live threads; empty unless threads are counted."""
    is_stable: bool = True
    """Whether no thread was exiting."""


class Filler:
    """Enters the processes in `/proc` into the map."""

    def __init__(self, live_processes: BpfMap, procfs: Procfs, *, count_threads: bool) -> None:
        """Set `count_threads` if the programs count threads to find the last one of a process."""
        self._live_processes = live_processes
        self._procfs = procfs
        self._count_threads = count_threads
        self._last_states: dict[int, _State] = {}
        # start times in `/proc` include time in suspend; the monotonic clock does not
        self._asleep_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()

    def fill(self) -> int:
        """Enter the processes, and return how many did not fit or changed too quickly. Raises `OSError`."""
        left = self._procfs.pids()
        for _ in range(_ROUNDS):
            left = [pid for pid in left if not self._insert(pid)]
            if not left:
                break
            time.sleep(_PAUSE_SECONDS)
        for key in self._live_processes.read().keys:
            stat = self._procfs.stat(int.from_bytes(key, "little"))
            if stat is Lost.VANISHED or (isinstance(stat, Stat) and stat.ended):
                self._live_processes.delete(key)
        return len(left)

    def _insert(self, pid: int) -> bool:
        """Try to enter a process. Returns False if it must be tried again."""
        state = self._read(pid)
        if state is None:
            return True
        if self._count_threads and (state != self._last_states.get(pid) or not state.is_stable):
            self._last_states[pid] = state
            return False
        key, entry = pid.to_bytes(4, "little"), self._entry(state)
        try:
            self._live_processes.insert(key, bytes(entry))
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            return False
        again, now = self._read(pid), self._live_processes.lookup(key)
        if again is None or (now is not None and LiveProcess.from_buffer(now).start_ns != entry.start_ns):
            return True  # it has exited, or the programs saw its start
        if again == state and now is not None and bytes(now) == bytes(entry):
            return True
        self._live_processes.delete(key)
        self._last_states[pid] = again
        return False

    def _read(self, pid: int) -> _State | None:
        """Return the state of a process, or None if it has exited or cannot be read."""
        stat = self._procfs.stat(pid)
        if isinstance(stat, Lost) or stat.ended:
            return None
        state = _State(stat.start_ticks, stat.comm, stat.ppid, frozenset())
        return self._with_threads(state, pid) if self._count_threads else state

    def _with_threads(self, state: _State, pid: int) -> _State | None:
        """Add the live threads. A zombie thread has exited; an exiting thread may have exited."""
        try:
            tids = [int(name) for name in os.listdir(f"{self._procfs.root}/{pid}/task")]  # noqa: PTH208 - each process and round
        except OSError:
            return None
        stats = [self._procfs.stat(tid) for tid in tids]
        live = [each for each in stats if isinstance(each, Stat) and each.state not in {b"Z", b"X"}]
        is_stable = not any(isinstance(each, Lost) for each in stats) and not any(each.exiting for each in live)
        return state._replace(threads=frozenset(each.pid for each in live), is_stable=is_stable)

    def _entry(self, state: _State) -> LiveProcess:
        is_kernel = state.comm == KERNEL_THREADS and state.parent in {0, 2}
        start_ns = max(1, state.start_ticks * self._procfs.tick_ns - self._asleep_ns)
        return LiveProcess(start_ns, state.parent, max(1, len(state.threads)), state.comm, is_kernel)
