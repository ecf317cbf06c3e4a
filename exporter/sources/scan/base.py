"""What both scans share: a thread that looks at `/proc`, and the account of what it must have missed."""

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

    Compared is the kernel's count at the pass before with what is noticed now, so that a clone seen late is not lost; the
    greatest difference so far is what is counted, so that it never falls.
    """

    def __init__(self, procfs: Procfs, tally: Tally) -> None:
        self._procfs = procfs
        self._tally = tally
        self._start: int | None = None
        self._before = 0
        self._most = 0

    def begin(self) -> None:
        """Compare from now on, where the kernel's count is of the processes that we see."""
        if self._procfs.in_initial_pid_namespace():
            self._start = self._procfs.kernel_clones()

    def settle(self, *, last: bool = False) -> None:
        """Count what went unseen; called once in each pass. In the last pass what came since the one before counts too."""
        if self._start is None or (clones := self._procfs.kernel_clones()) is None:
            return
        missing = (clones - self._start if last else self._before) - self._tally.noticed
        if missing > self._most:
            self._tally.lose(Lost.UNSEEN, missing - self._most)
            self._most = missing
        self._before = clones - self._start


class Scanning(TallySource):
    """A source whose own thread looks at `/proc` and keeps a table of processes.

    At a switch it takes stock at the very moment from which it counts, and looks for the last time at the one until which it does: what it
    can't date is then no more than what happens during a look.
    """

    def __init__(self, scale: RuntimeScale, procfs: Procfs, clock: Callable[[], int] = boottime_ns) -> None:
        self._procfs = procfs
        self._clock = clock
        super().__init__(Tally(scale))
        self._table = ProcessTable(procfs, self._tally, clock)
        self._unseen = Unseen(procfs, self._tally)
        self._pass_ns: int | None = None
        self._counts_host = procfs.in_initial_pid_namespace()
        self._told = threading.Event()

    def start(self, *, standby: bool = False) -> None:
        """Take stock of what is there and begin to look.

        What comes while stock is taken counts as unseen if it is not found later, whoever else may have seen it.
        """
        if standby:
            self._tally.standby()
        try:
            self._prepare()
            self._unseen.begin()
            self._take_stock()
        except OSError as error:
            self._release()
            raise ModeUnavailable(f"{self._procfs.root} can't be scanned: {error.strerror}") from error
        if not self._table.processes:
            self._release()
            raise ModeUnavailable(f"{self._procfs.root} shows no process that may be read; is procfs mounted there?")
        self._start_thread(self._run)

    def count_from(self, from_ns: int) -> None:
        self._unseen.begin()
        super().count_from(from_ns)
        self._told.set()

    def count_until(self, until_ns: int) -> None:
        super().count_until(until_ns)
        self._told.set()

    def gauges(self) -> Gauges:
        duration = None if self._pass_ns is None else self._pass_ns / NS
        return Gauges(peak_per_second=self._tally.peak_per_second(), scan_duration_seconds=duration)

    def counts_host(self) -> bool:
        return self._counts_host

    def stop(self) -> None:
        self._stopping.set()
        self._told.set()
        if self._thread is not None:
            self._thread.join(JOIN_SECONDS)
            if self._thread.is_alive():
                log.warning("the scanning thread did not stop in time")
                return
            self._thread = None
        self._release()

    def _take_stock(self) -> None:
        begun = self._clock()
        self._begin()
        self._table.begin(self._pids(), begun)

    def _look_once_more(self) -> None:
        """Another mode has taken over, and did not see what happened before."""
        listed_ns = self._clock()
        listed = set(self._pids())
        for pid in listed - self._table.unread:
            self._table.look(pid)
        self._table.keep(listed, listed_ns)
        self._unseen.settle(last=True)
        self._tally.flush(self.mode)

    def _rest(self, due_ns: int) -> bool:
        """Wait until this moment of the monotonic clock, or until looking is over. Returns whether it goes on."""
        self._wait_for(lambda: min(due_ns, self._tally.until_ns))
        return not self._stopping.is_set() and time.monotonic_ns() < self._tally.until_ns

    def _wait_for(self, moment: Callable[[], int]) -> None:
        """Wait for a moment that may change meanwhile, or until `stop`."""
        while True:
            self._told.clear()
            left_ns = moment() - time.monotonic_ns()
            if left_ns <= 0 or self._stopping.is_set():
                return
            self._told.wait(min(left_ns, NS) / NS)

    @abstractmethod
    def _pids(self) -> list[int]:
        """List the table. Raises `OSError`."""

    @abstractmethod
    def _loop(self) -> None:
        """Look for as long as `_rest` says so; in the scanning thread."""

    def _prepare(self) -> None:
        """Borrow from the machine what the loop needs. Raises `OSError`."""

    def _begin(self) -> None:
        """Take note of where the looking begins."""

    def _run(self) -> None:
        try:
            self._wait_for(lambda: self._tally.from_ns)
            if self._tally.from_ns > 0:
                self._take_stock()
            self._loop()
            if not self._stopping.is_set():
                self._look_once_more()
        except Exception as error:
            log.exception("the scanning thread broke")
            self._failure = f"the scanning thread broke: {type(error).__name__}: {error}"

    def _passed(self, begun: int) -> None:
        self._tally.flush(self.mode)
        self._unseen.settle()
        self._pass_ns = time.monotonic_ns() - begun
