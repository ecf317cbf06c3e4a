"""Finds short processes without privileges: a loop probes new PIDs every few milliseconds, within a bounded share of one core.

It finds processes in three ways:
- Each turn probes the PIDs given out since the previous turn, the newest first.
- A listing of `/proc` every 100 ms finds those that the probes skipped.
- inotify reports the files that an exec opens. It wakes the loop early but never counts, since the kernel merges equal events.
A pidfd reports the exits of the youngest processes; the listing finds the exits of the others.

Rejected:
- inotify on `/proc` itself: it reports nothing (it is still tried at each start).
- Listing without probes: it finds 1 in 200 processes that live for half a millisecond.
- A fixed pace without a budget: it takes a quarter of a core when processes start by the thousand.

Where the last PID can't be read (procfs mounted with subset=pid, or of another PID namespace), the listing has the whole budget, and an
exec triggers it.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import resource
import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from exporter.kernel.inotify import IN_ONLYDIR, IN_OPEN, Inotify, proc_reports
from exporter.kernel.procfs import Procfs
from exporter.model import NS, Mode, RuntimeScale
from exporter.sources.scan.base import Scanning
from exporter.sources.scan.pid_probe import ExitWatch, Probe
from exporter.sources.scan.process_table import Process, boottime_ns

log = logging.getLogger(__name__)

MS = 1_000_000
BUSY_MS, IDLE_MS = 2, 4
"""Milliseconds between two turns; epoll_wait(2) has no finer unit."""
BUSY_NS = NS
"""How long the loop stays busy after the last new process."""
FIRST_REREAD_NS = 2 * MS
YOUNG_NS = 128 * MS
"""Until this age a process is read again each time its age has doubled: a fork has its parent's comm until it execs."""
JUST_NOW_NS = MS // 10
LISTING_PART = 0.2
"""The listing's part of the CPU share. Its cost grows with the number of processes, and must not slow down the probes."""
MAX_EVENTS, MAX_REREADS = 64, 32
"""Bounds of the work in one turn, besides `MAX_PROBES`."""
MAX_NEW, MAX_REFRESHED = 256, 50
"""Bounds of the reads in one listing."""
MAX_YOUNG = 512
"""Most young processes that are read again. In a storm, the comms of the others come from their zombies and the listing."""
MAX_PIDFDS = 512
CREDIT_NS = 25 * MS
"""Most rest that can be saved up, so that one new process, which costs more than an idle turn, does not delay the next turn."""

EXEC_FILE = "/etc/ld.so.cache"
EXEC_FOLDERS = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")


class Budget:
    """A share of one core. Work that costs c is followed by a rest of c/share, less the rest saved up before (at most `CREDIT_NS`)."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._paid_ns = 0

    def charge(self, now_ns: int, cost_ns: int) -> int:
        """Pay for work that took `cost_ns` of CPU and ended at `now_ns`. Returns the earliest time for more work."""
        self._paid_ns = max(self._paid_ns, now_ns - CREDIT_NS) + int(cost_ns / self._share)
        return self._paid_ns


class FastScanSource(Scanning):
    """Sees the processes that are alive at a turn; the capture ratio says how many these are.

    Comms are those of the last read, runtimes are accurate to a few milliseconds, CPU is a lower bound, outcomes are unknown. Threads are
    counted when a probe finds them. Without probes (this `/proc` does not show our own PIDs) they are estimated as in `scan`.
    """

    mode = Mode.FAST_SCAN

    def __init__(  # noqa: PLR0913 - two are required
        self,
        scale: RuntimeScale,
        procfs: Procfs,
        interval_ns: int = 100 * MS,
        cpu_share: float = 0.05,
        clock: Callable[[], int] = boottime_ns,
        *,
        arguments: bool = False,
    ) -> None:
        """List `/proc` every `interval_ns`; spend at most `cpu_share` of one core. `arguments`: also read those of processes."""
        super().__init__(scale, procfs, clock, arguments=arguments)
        self._interval_ns = interval_ns
        self._turn_budget = Budget(cpu_share * (1 - LISTING_PART))
        self._listing_budget = Budget(cpu_share * LISTING_PART)
        self._held = ExitStack()
        self._epoll: select.epoll
        self._exits: ExitWatch | None = None
        self._probe: Probe | None = None
        self._inotify: Inotify | None = None
        self.proc_inotify_fires: bool | None = None
        """Whether inotify on `/proc` reported a child of ours at start; `None` if that could not be tried."""
        self.cpu_ns = 0
        """CPU time of the scanning thread."""
        self._young: list[tuple[int, int, Process]] = []
        self._serial = itertools.count()
        self._refreshing: Iterator[int] = iter(())
        self._arrived_ns = self._turned_ns = self._rest_until_ns = self._listing_due_ns = self._listing_allowed_ns = 0

    def about(self) -> str:
        """Return which of its methods work here."""
        probes = "new PIDs are probed" if self._probe is not None else "PIDs cannot be probed here, so short processes are missed"
        ends = "pidfds report exits" if self._exits is not None else "exits are found by listing (no pidfds here)"
        execs = "inotify reports execs" if self._inotify is not None else "no inotify here"
        reports = "reports processes" if self.proc_inotify_fires else "reports nothing"
        return f"{probes}; {ends}; {execs}; inotify on {self._procfs.root} {reports}"

    def _pids(self) -> list[int]:
        return self._procfs.pids()

    def _prepare(self) -> None:
        self._epoll = self._held.enter_context(select.epoll())
        ours = self._procfs.has_our_pids()
        if ours and _pidfds_work():
            limit = max(1, min(MAX_PIDFDS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
            self._exits = self._held.enter_context(closing(ExitWatch(self._epoll, limit, os.pidfd_open)))
        if ours and self._procfs.last_pid() is not None:
            self._probe = Probe(self._procfs, self._table, self._tally, self._exits, self._clock)
            self._table.estimate_threads = False
        else:
            self._listing_budget = self._turn_budget  # turns only list then
        self._watch_execs()
        log.debug(
            "fast scan: probing %s, pidfds %s, inotify %s, inotify on %s fires: %s",
            self._probe is not None,
            self._exits is not None,
            self._inotify is not None,
            self._procfs.root,
            self.proc_inotify_fires,
        )

    def _watch_execs(self) -> None:
        try:
            inotify = Inotify()
        except OSError as error:
            log.debug("no inotify: %s", error)
            return
        self._inotify = self._held.enter_context(closing(inotify))
        self.proc_inotify_fires = proc_reports(inotify, self._procfs.root)
        folders = {os.path.realpath(folder) for folder in EXEC_FOLDERS}
        for path, mask in [(EXEC_FILE, IN_OPEN), *((folder, IN_OPEN | IN_ONLYDIR) for folder in sorted(folders))]:
            if Path(path).exists():
                try:
                    inotify.watch(path, mask)
                except OSError as error:
                    log.debug("no inotify watch on %s: %s", path, error)
        self._epoll.register(inotify.fd, select.EPOLLIN)

    def _release(self) -> None:
        self._held.close()

    def _begin(self) -> None:
        if self._probe is not None:
            self._probe.begin()

    def _loop(self) -> None:
        before = time.thread_time_ns()
        while self._rest(0):
            events = self._wait()
            listing_ns = self._turn(events)
            self.cpu_ns = time.thread_time_ns()
            self._rest_until_ns = self._turn_budget.charge(self._clock(), self.cpu_ns - before - listing_ns)
            before = self.cpu_ns

    def _wait(self) -> list[int]:
        """Wait for the next turn, and return the descriptors that are readable then."""
        begun = self._clock()
        pause_ms = BUSY_MS if begun - self._arrived_ns < BUSY_NS else IDLE_MS
        if self._rest_until_ns - begun < pause_ms * MS:
            events = self._epoll.poll(pause_ms / 1000, MAX_EVENTS)
            now = self._clock()
            if now >= self._rest_until_ns:
                if now - begun > JUST_NOW_NS:  # it had to wait, so what it reports has just happened
                    self._turned_ns = now - JUST_NOW_NS
                return [fd for fd, _ in events]
        self._rest(time.monotonic_ns() + self._rest_until_ns - self._clock())
        return [fd for fd, _ in self._epoll.poll(0, MAX_EVENTS)]

    def _turn(self, events: list[int]) -> int:
        """Do the work of one turn. Returns the CPU time of its listing in nanoseconds, 0 without a listing."""
        alive_at_ns, self._turned_ns = self._turned_ns, self._clock()
        for fd in events:
            if self._inotify is not None and fd == self._inotify.fd:
                self._inotify.clear()
                if self._probe is None:  # without probes, only a listing finds the process
                    self._listing_due_ns = self._listing_allowed_ns
            elif self._exits is not None:
                self._table.exited(self._exits.pop(fd), alive_at_ns)
        for process in self._probe.advance() if self._probe is not None else ():
            self._arrived(process)
        self._reread()
        self._tally.flush(self.mode)
        if self._turned_ns < self._listing_due_ns:
            return 0
        begun = time.thread_time_ns()
        self.list_all()
        cost = time.thread_time_ns() - begun
        self._listing_allowed_ns = self._listing_budget.charge(self._clock(), cost)
        self._listing_due_ns = max(self._turned_ns + self._interval_ns, self._listing_allowed_ns)
        return cost

    def list_all(self) -> None:
        """List `/proc`: add new processes, end those that are gone, and refresh some of the others in turn."""
        begun, listed_ns = time.monotonic_ns(), self._clock()
        table = self._table
        listed = set(self._pids())
        table.keep(listed, listed_ns)
        for pid in itertools.islice(listed - table.processes.keys() - table.unread, MAX_NEW):
            if (process := table.look(pid)) is not None:
                self._arrived(process)
                if self._exits is not None:
                    self._exits.watch(process)
        refreshed = list(itertools.islice(self._refreshing, MAX_REFRESHED))
        for pid in refreshed:
            if pid in table.processes:
                table.look(pid)
        if len(refreshed) < MAX_REFRESHED:
            self._refreshing = iter(list(table.processes))
        self._passed(begun)

    def _arrived(self, process: Process) -> None:
        self._arrived_ns = self._turned_ns
        self._read_later(process)

    def _read_later(self, process: Process) -> None:
        age = self._turned_ns - process.born_ns
        if not process.ended and age < YOUNG_NS and len(self._young) < MAX_YOUNG:
            heapq.heappush(self._young, (self._turned_ns + max(age, FIRST_REREAD_NS), next(self._serial), process))

    def _reread(self) -> None:
        looks = 0
        while looks < MAX_REREADS and self._young and self._young[0][0] <= self._turned_ns:
            process = heapq.heappop(self._young)[2]
            if not process.ended:
                looks += 1
                if self._table.look(process.pid) is process:
                    self._read_later(process)


def _pidfds_work() -> bool:
    """Return whether pidfds work here. They need Linux 5.3, and a container's seccomp filter may forbid them."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True
