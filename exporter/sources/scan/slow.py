"""The last resort: look at the whole of `/proc` at an even pace. Needs nothing, and sees what is there when it looks."""

from __future__ import annotations

import time
from collections.abc import Callable

from exporter.kernel.procfs import Procfs
from exporter.model import NS, Mode, ModeUnavailable, RuntimeScale
from exporter.sources.scan.base import Scanning
from exporter.sources.scan.process_table import boottime_ns

BATCH = 200
"""Processes read between two pauses in which other threads get the interpreter."""
PAUSE_SECONDS = 0.0005


class ScanSource(Scanning):
    """Sees processes that are there at two looks, or at one with their end before the next.

    Runtimes are good to half an interval, CPU is a lower bound, outcomes are unknown, and threads are estimated from how
    `num_threads` grows between two looks.
    """

    mode = Mode.SCAN

    def __init__(self, scale: RuntimeScale, procfs: Procfs, interval_ns: int = NS, clock: Callable[[], int] = boottime_ns) -> None:
        """Look every `interval_ns`."""
        super().__init__(scale, procfs, clock)
        self._interval_ns = interval_ns

    def scan(self) -> None:
        """Make one pass over the table."""
        begun, listed_ns = time.monotonic_ns(), self._clock()
        pids = self._pids()
        for n, pid in enumerate(pids, 1):
            if pid not in self._table.unread:
                self._table.look(pid)
            if n % BATCH == 0 and self._stopping.wait(PAUSE_SECONDS):
                return
        self._table.keep(set(pids), listed_ns)
        self._passed(begun)

    def _pids(self) -> list[int]:
        return _psutil_pids(self._procfs.root)

    def _loop(self) -> None:
        due = time.monotonic_ns()
        while True:
            due = max(due + self._interval_ns, time.monotonic_ns() + (self._pass_ns or 0))  # never more than half of the time
            if not self._rest(due):
                return
            self.scan()


def _psutil_pids(root: str) -> list[int]:
    try:
        import psutil  # noqa: PLC0415 (costs memory that no other mode needs)
    except ImportError as error:
        raise ModeUnavailable("psutil is not installed") from error
    before, psutil.PROCFS_PATH = psutil.PROCFS_PATH, root  # a global of the library, which others may use
    try:
        return psutil.pids()
    except IndexError:  # its way of saying that there are none
        return []
    finally:
        psutil.PROCFS_PATH = before
