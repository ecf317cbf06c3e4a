"""The processes that a scan knows to be alive, and what it concludes when they come, change and go.

A process is its PID and its start time, so a PID that was given out again is another process. The start is known to a clock tick
(10 ms as a rule) and the end to the time between two looks; a runtime is the distance between the middles of the two. CPU is
what the last look saw, in whole ticks, and so a lower bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from exporter.kernel.procfs import Procfs, Stat
from exporter.model import UNKNOWN_COMM, Lost
from exporter.model.ends import End, Ends
from exporter.sources.tally import Tally


def boottime_ns() -> int:
    """Now, on the clock that `/proc/PID/stat` dates a start by."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def suspended_ns() -> int:
    """How far that clock is ahead of the monotonic one, which stands still while the machine sleeps."""
    return boottime_ns() - time.monotonic_ns()


@dataclass(slots=True, eq=False)
class Process:
    """A process as last seen. Times are nanoseconds since boot."""

    pid: int
    start_ticks: int
    born_ns: int
    seen_ns: int
    comm: bytes
    ppid: int
    threads: int
    cpu_ticks: int
    ended: bool = False
    """Counted already; still here only because its zombie is listed."""
    watched: bool = False
    """Something else than the listing will tell its end."""


class Table:
    """Every process by its PID; no larger than the listing is."""

    def __init__(self, procfs: Procfs, tally: Tally, clock: Callable[[], int] = boottime_ns) -> None:
        """Read from `procfs`, count into `tally`; `clock` is `boottime_ns` but in tests."""
        self.processes: dict[int, Process] = {}
        self.unread: set[int] = set()
        """Listed, but unreadable or malformed; counted once, and not to be looked at again."""
        self.estimate_threads = True
        """Whether a growing number of threads counts as new threads: they may be seen by other means."""
        self._procfs = procfs
        self._tally = tally
        self._clock = clock
        self._listed_ns = 0

    def begin(self, pids: Iterable[int]) -> None:
        """Enter what is there already: its births and its zombies are none of ours, its ends are."""
        for pid in pids:
            stat = self._procfs.stat(pid)
            if not isinstance(stat, Lost):
                process = self.processes[pid] = self._process(stat, 0, self._clock())
                process.seen_ns, process.ended = self._clock(), stat.ended
            elif stat is not Lost.VANISHED:
                self.unread.add(pid)
                self._tally.lose(stat)

    def look(self, pid: int) -> Process | None:
        """Read a process: enter, refresh or end it. What is returned is in the table, though it may have ended."""
        return self.take(pid, self._procfs.stat(pid))

    def take(self, pid: int, stat: Stat | Lost, born_after_ns: int = 0) -> Process | None:
        """Do as `look` does with what was just read. `born_after_ns` narrows down the start of a process that is new."""
        now = self._clock()
        known = self.processes.get(pid)
        if isinstance(stat, Lost):
            self._not_read(pid, known, stat, now)
            return None
        if known is not None and known.start_ticks != stat.start_ticks:
            self._remove(known, min(now, stat.start_ticks * self._procfs.tick_ns))
            known = None
        if known is None:
            known = self._enter(stat, born_after_ns, now)
        elif not known.ended:
            self._refresh(known, stat)
        if not known.ended:
            if stat.ended:
                self._end(known, now)
            known.seen_ns = now
        return known

    def exited(self, process: Process, alive_at_ns: int) -> None:
        """End a process that is known to have exited between `alive_at_ns` and now; its zombie tells its last comm and CPU."""
        process.seen_ns = max(process.seen_ns, alive_at_ns)
        process.watched = False
        if not process.ended and self.look(process.pid) is process and not process.ended:
            self._end(process, self._clock())

    def keep(self, listed: set[int], listed_ns: int) -> None:
        """End and forget what a listing, begun at `listed_ns`, no longer has."""
        now = self._clock()
        for pid in self.processes.keys() - listed:
            self._remove(self.processes[pid], now)
        self.unread &= listed
        self._listed_ns = listed_ns

    def counted(self, ends: Ends) -> None:
        """Another mode has counted these, whether we noticed their end yet or not."""
        ahead_ns = suspended_ns()
        for pid, end in ends:
            process = self.processes.get(pid)
            if process is not None and ends.find(pid, _end(process, 0, UNKNOWN_COMM, 0, ahead_ns)) is end:
                process.ended = True

    def _not_read(self, pid: int, known: Process | None, lost: Lost, now: int) -> None:
        if known is not None and lost is Lost.VANISHED:
            self._remove(known, now)
        elif known is None:
            self._tally.missed(lost)
            if lost is not Lost.VANISHED:
                self.unread.add(pid)

    def _process(self, stat: Stat, after_ns: int, now: int) -> Process:
        tick_ns = self._procfs.tick_ns
        first, last = stat.start_ticks * tick_ns, (stat.start_ticks + 1) * tick_ns
        born = (max(first, min(after_ns, last)) + min(last, max(now, first))) // 2
        return Process(stat.pid, stat.start_ticks, born, born, stat.comm, stat.ppid, stat.threads, stat.cpu_ticks)

    def _enter(self, stat: Stat, after_ns: int, now: int) -> Process:
        process = self.processes[stat.pid] = self._process(stat, after_ns, now)
        born_ns = process.born_ns - suspended_ns()
        self._tally.forked(born_ns)
        if self.estimate_threads and stat.threads > 1:
            self._tally.threads(stat.threads - 1, born_ns)
        return process

    def _refresh(self, process: Process, stat: Stat) -> None:
        if self.estimate_threads and stat.threads > process.threads:
            self._tally.threads(stat.threads - process.threads, time.monotonic_ns())
        process.comm, process.ppid, process.threads, process.cpu_ticks = stat.comm, stat.ppid, stat.threads, stat.cpu_ticks

    def _remove(self, process: Process, now: int) -> None:
        del self.processes[process.pid]
        if not process.ended:
            self._end(process, now)

    def _end(self, process: Process, now: int) -> None:
        process.ended = True
        parent = self.processes.get(process.ppid)
        alive_at = max(process.seen_ns, self._listed_ns)
        runtime = max(0, (alive_at + max(now, alive_at)) // 2 - process.born_ns)
        cpu = process.cpu_ticks * self._procfs.tick_ns
        self._tally.ended(process.pid, _end(process, runtime, UNKNOWN_COMM if parent is None else parent.comm, cpu, suspended_ns()))


def _end(process: Process, runtime_ns: int, parent_comm: bytes, cpu_ns: int, ahead_ns: int) -> End:
    return End(process.born_ns - ahead_ns, runtime_ns, process.comm, parent_comm, cpu_ns=cpu_ns, ppid=process.ppid)
