"""The last resort: scans the whole of `/proc` at a fixed interval. Needs nothing, and sees the processes that exist at a scan."""

from __future__ import annotations

import time
from collections.abc import Callable

from exporter.kernel.procfs import Procfs
from exporter.model import NS, Mode, ModeUnavailable, RuntimeScale
from exporter.sources.scan.base import Scanning
from exporter.sources.scan.process_table import boottime_ns

BATCH = 200
"""Processes read between two pauses, in which other threads run."""
PAUSE_SECONDS = 0.0005


class ScanSource(Scanning):
    """Sees the processes that exist at a scan, and notices their exits at a later one.

    Runtimes are accurate to half an interval, CPU is a lower bound, outcomes are unknown. Threads are estimated from the growth of
    `num_threads` between two scans.
    """

    mode = Mode.SCAN

    def __init__(
        self, scale: RuntimeScale, procfs: Procfs, interval_ns: int = NS, clock: Callable[[], int] = boottime_ns, *, arguments: bool = False
    ) -> None:
        """Scan every `interval_ns`. `arguments`: also read those of processes."""
        super().__init__(scale, procfs, clock, arguments=arguments)
        self._interval_ns = interval_ns

    def scan(self) -> None:
        """Scan `/proc` once."""
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
            due = max(due + self._interval_ns, time.monotonic_ns() + (self._pass_ns or 0))  # scans for at most half of the time
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
    except IndexError:  # psutil raises it if there are none
        return []
    finally:
        psutil.PROCFS_PATH = before
