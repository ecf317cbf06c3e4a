"""The base of both scans: a thread that reads `/proc`, and the number of clones that it must have missed."""

from __future__ import annotations

import logging
import threading
import time
from abc import abstractmethod
from collections.abc import Callable

from exporter.kernel.procfs import Procfs
from exporter.model import NS, Gauges, Lost, ModeUnavailable, RuntimeScale
from exporter.sources.scan.process_table import ProcessTable, boottime_ns
from exporter.sources.tallied import TallySource
from exporter.sources.tally import Tally

log = logging.getLogger(__name__)

JOIN_SECONDS = 0.4


class Unseen:
    """Clones that the kernel counted and a scan did not notice.

    Each pass compares the clones noticed so far with the kernel's count at the previous pass, so a clone that is noticed one pass late is
    not lost. The loss is the greatest difference so far: it never decreases.
    """

    def __init__(self, procfs: Procfs, tally: Tally) -> None:
        self._procfs = procfs
        self._tally = tally
        self._start: int | None = None
        self._before = 0
        self._most = 0

    def begin(self) -> None:
        """Start to compare, if the kernel counts the processes that we see."""
        if self._procfs.in_initial_pid_namespace():
            self._start = self._procfs.kernel_clones()

    def reconcile(self, *, last: bool = False) -> None:
        """Count the missed clones. Called once per pass; the last pass compares with the kernel's present count."""
        if self._start is None or (clones := self._procfs.kernel_clones()) is None:
            return
        missing = (clones - self._start if last else self._before) - self._tally.noticed
        if missing > self._most:
            self._tally.lose(Lost.UNSEEN, missing - self._most)
            self._most = missing
        self._before = clones - self._start


class Scanning(TallySource):
    """A source whose own thread scans `/proc` and keeps a table of processes.

    At a switch it takes its baseline at the moment from which it counts, and scans a last time at the moment until which it counts. So it
    cannot date only the events that happen during these two scans.
    """

    def __init__(self, scale: RuntimeScale, procfs: Procfs, clock: Callable[[], int] = boottime_ns, *, arguments: bool = False) -> None:
        self._procfs = procfs
        self._clock = clock
        super().__init__(Tally(scale))
        self._table = ProcessTable(procfs, self._tally, clock, arguments=arguments)
        self._unseen = Unseen(procfs, self._tally)
        self._pass_ns: int | None = None
        self._counts_host = procfs.in_initial_pid_namespace()
        self._wake = threading.Event()

    def start(self, *, standby: bool = False) -> None:
        """Read the existing processes, and start to scan.

        A clone that happens meanwhile counts as unseen if it is not found later, even if another mode observed it.
        """
        if standby:
            self._tally.standby()
        try:
            self._prepare()
            self._unseen.begin()
            self._take_baseline()
        except OSError as error:
            self._release()
            raise ModeUnavailable(f"cannot scan {self._procfs.root}: {error.strerror}") from error
        if not self._table.processes:
            self._release()
            raise ModeUnavailable(f"no readable process in {self._procfs.root}; is procfs mounted there?")
        self._start_thread(self._run)

    def count_from(self, from_ns: int) -> None:
        self._unseen.begin()
        super().count_from(from_ns)
        self._wake.set()

    def count_until(self, until_ns: int) -> None:
        super().count_until(until_ns)
        self._wake.set()

    def gauges(self) -> Gauges:
        duration = None if self._pass_ns is None else self._pass_ns / NS
        return Gauges(short_exits=self._tally.short_exits(), scan_duration_seconds=duration)

    def counts_host(self) -> bool:
        return self._counts_host

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(JOIN_SECONDS)
            if self._thread.is_alive():
                log.warning("the scanning thread did not stop in time")
                return
            self._thread = None
        self._release()

    def _take_baseline(self) -> None:
        begun = self._clock()
        self._begin()
        self._table.begin(self._pids(), begun)

    def _scan_last_time(self) -> None:
        """Find the events up to now: another mode has taken over, and did not see them."""
        listed_ns = self._clock()
        listed = set(self._pids())
        for pid in listed - self._table.unread:
            self._table.look(pid)
        self._table.keep(listed, listed_ns)
        self._unseen.reconcile(last=True)
        self._tally.flush(self.mode)

    def _rest(self, due_ns: int) -> bool:
        """Wait until a moment of the monotonic clock, or until scanning is over. Returns whether to scan on."""
        self._wait_for(lambda: min(due_ns, self._tally.until_ns))
        return not self._stopping.is_set() and time.monotonic_ns() < self._tally.until_ns

    def _wait_for(self, moment: Callable[[], int]) -> None:
        """Wait for a moment that may change meanwhile, or until `stop`."""
        while True:
            self._wake.clear()
            left_ns = moment() - time.monotonic_ns()
            if left_ns <= 0 or self._stopping.is_set():
                return
            self._wake.wait(min(left_ns, NS) / NS)

    @abstractmethod
    def _pids(self) -> list[int]:
        """Return the PIDs in `/proc`. Raises `OSError`."""

    @abstractmethod
    def _loop(self) -> None:
        """Scan as long as `_rest` returns True. Runs in the scanning thread."""

    def _prepare(self) -> None:
        """Open the descriptors that the loop needs. Raises `OSError`."""

    def _begin(self) -> None:
        """Note where scanning starts."""

    def _run(self) -> None:
        try:
            self._wait_for(lambda: self._tally.from_ns)
            if self._tally.from_ns > 0:
                self._take_baseline()
            self._loop()
            if not self._stopping.is_set():
                self._scan_last_time()
        except Exception as error:
            log.exception("the scanning thread failed")
            self._failure = f"the scanning thread failed: {type(error).__name__}: {error}"

    def _passed(self, begun: int) -> None:
        self._tally.flush(self.mode)
        self._unseen.reconcile()
        self._pass_ns = time.monotonic_ns() - begun
