"""The processes that a scan knows to be alive; counts their starts, new threads and exits.

A process is identified by its PID and start time, so a reused PID is another process. The start is known to one clock tick (usually 10 ms),
the exit to the time between two reads. The runtime is the distance between the midpoints of the two. CPU is that of the last read, in
whole ticks, so it is a lower bound. Cgroup and user are read when a process is found, and again when its comm has changed: then it has
most likely called exec, and was moved before. Ancestors are those at the last read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from exporter.kernel.process_cgroups import ProcessCgroups
from exporter.kernel.procfs import Procfs, Stat
from exporter.model import UNKNOWN_COMM, Lost
from exporter.model.arguments import Arguments
from exporter.model.exits import ProcessExit
from exporter.model.origins import DEEP, MAX_ABOVE, MAX_HOPS, UNKNOWN, Lineage
from exporter.sources.tally import Tally


def boottime_ns() -> int:
    """Return the present time of the clock that start times in `/proc/PID/stat` refer to."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def middle(first_ns: int, last_ns: int) -> tuple[int, int]:
    """Return the midpoint of two times since boot, on the monotonic clock (which stops in suspend), and its uncertainty. All in ns."""
    ahead_ns = boottime_ns() - time.monotonic_ns()
    return (first_ns + last_ns) // 2 - ahead_ns, (last_ns - first_ns + 1) // 2


@dataclass(slots=True, eq=False)
class Process:
    """A process as last seen. Times are nanoseconds since boot."""

    pid: int
    start_ticks: int
    born_ns: int
    born_unsure_ns: int
    """Uncertainty of `born_ns`, in both directions."""
    seen_ns: int
    comm: bytes
    ppid: int
    threads: int
    cpu_ticks: int
    ended: bool = False
    """Its exit is counted; it is kept only because its zombie is listed."""
    watched: bool = False
    """A pidfd reports its exit."""
    cgroup: bytes = b""
    """Empty if unknown."""
    uid: int | None = None
    """The effective one."""
    arguments: Arguments | None = None


class ProcessTable:
    """The known processes by PID. It is never larger than the listing."""

    def __init__(self, procfs: Procfs, tally: Tally, clock: Callable[[], int] = boottime_ns, *, arguments: bool = False) -> None:
        """Read from `procfs`, count into `tally`. Only tests replace `clock`. `arguments`: read those of processes that may be short."""
        self.processes: dict[int, Process] = {}
        self.unread: set[int] = set()
        """Listed, but unreadable or malformed: counted once, and not read again."""
        self.estimate_threads = True
        """Whether a growing number of threads counts as new threads; not if probes find them."""
        self._procfs = procfs
        self._tally = tally
        self._cgroups = ProcessCgroups(procfs)
        self._clock = clock
        self._arguments = arguments
        self._listed_ns = 0
        self._begun_ns = 0

    def begin(self, pids: Iterable[int], begun_ns: int = 0) -> None:
        """Start with the processes of a listing begun at `begun_ns`. Their starts and zombies don't count, their later exits do."""
        self.processes.clear()
        self.unread.clear()
        self._begun_ns = begun_ns
        for pid in pids:
            stat = self._procfs.stat(pid)
            if not isinstance(stat, Lost):
                process = self.processes[pid] = self._process(stat, 0, self._clock())
                process.seen_ns, process.ended = self._clock(), stat.ended
                if process.seen_ns - process.born_ns < self._tally.threshold_ns:
                    self._read_owner(process)
                    self._read_arguments(process, process.seen_ns)
            elif stat is not Lost.VANISHED:
                self.unread.add(pid)
                self._tally.lose(stat)

    def look(self, pid: int) -> Process | None:
        """Read a process: add, refresh or end it. Returns it if it is in the table, even if it has exited."""
        return self.update(pid, self._procfs.stat(pid))

    def update(self, pid: int, stat: Stat | Lost, born_after_ns: int = 0) -> Process | None:
        """Do the same as `look` with what was just read. `born_after_ns` narrows the start of a new process."""
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
            self._refresh(known, stat, now)
        if not known.ended:
            if stat.ended:
                self._end(known, now)
            known.seen_ns = now
        return known

    def exited(self, process: Process, alive_at_ns: int) -> None:
        """End a process that exited between `alive_at_ns` and now. Its zombie has its last comm and CPU."""
        process.seen_ns = max(process.seen_ns, alive_at_ns)
        process.watched = False
        if not process.ended and self.look(process.pid) is process and not process.ended:
            self._end(process, self._clock())

    def keep(self, listed: set[int], listed_ns: int) -> None:
        """End and remove the processes that are missing from a listing begun at `listed_ns`."""
        now = self._clock()
        gone = [self.processes[pid] for pid in self.processes.keys() - listed]
        for process in sorted(gone, key=lambda each: (each.start_ticks, each.pid), reverse=True):  # children before their parents
            self._remove(process, now)
        self.unread &= listed
        self._listed_ns = listed_ns

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
        first, last = max(first, min(after_ns, last)), min(last, max(now, first))
        born, unsure = (first + last) // 2, abs(last - first) // 2
        return Process(stat.pid, stat.start_ticks, born, unsure, born, stat.comm, stat.ppid, stat.threads, stat.cpu_ticks)

    def _enter(self, stat: Stat, after_ns: int, now: int) -> Process:
        process = self.processes[stat.pid] = self._process(stat, max(after_ns, self._begun_ns), now)
        self._read_owner(process)
        self._read_arguments(process, now)
        born = middle(process.born_ns - process.born_unsure_ns, process.born_ns + process.born_unsure_ns)
        self._tally.forked(*born)
        if self.estimate_threads and stat.threads > 1:
            self._tally.threads(stat.threads - 1, *born)
        return process

    def _refresh(self, process: Process, stat: Stat, now: int) -> None:
        if self.estimate_threads and stat.threads > process.threads:
            self._tally.threads(stat.threads - process.threads, *middle(process.seen_ns, now))
        renamed = process.comm != stat.comm
        process.comm, process.ppid, process.threads, process.cpu_ticks = stat.comm, stat.ppid, stat.threads, stat.cpu_ticks
        if renamed and not stat.ended:
            self._read_owner(process)
        self._read_arguments(process, now)

    def _read_owner(self, process: Process) -> None:
        uid, cgroup = self._procfs.owner(process.pid), self._cgroups.path(process.pid)
        process.uid = process.uid if uid is None else uid
        process.cgroup = cgroup or process.cgroup

    def _read_arguments(self, process: Process, now: int) -> None:
        """Read them at each look: an exec changes them."""
        if self._arguments and now - process.born_ns < self._tally.threshold_ns:
            process.arguments = self._procfs.arguments(process.pid) or process.arguments

    def _remove(self, process: Process, now: int) -> None:
        del self.processes[process.pid]
        if not process.ended:
            self._end(process, now)

    def _end(self, process: Process, now: int) -> None:
        process.ended = True
        alive_at = max(process.seen_ns, self._listed_ns)
        ended, unsure_ns = (alive_at + max(now, alive_at)) // 2, (max(now, alive_at) - alive_at) // 2
        start_ns, _ = middle(process.born_ns, process.born_ns)
        parent = self._parent(process)
        spawner, lineage = self._ancestors(process, ended)
        exited = ProcessExit(
            start_ns,
            max(0, ended - process.born_ns),
            process.comm,
            UNKNOWN_COMM if parent is None else parent.comm,
            cpu_ns=process.cpu_ticks * self._procfs.tick_ns,
            ppid=process.ppid,
            uid=process.uid,
            cgroup=process.cgroup,
            spawner=spawner,
            lineage=lineage,
            arguments=process.arguments,
        )
        self._tally.exited(process.pid, exited, unsure_ns)

    def _parent(self, process: Process) -> Process | None:
        """Return the parent, unless it started after its child: then the PID was reused."""
        parent = self.processes.get(process.ppid)
        return None if parent is None or parent.start_ticks > process.start_ticks else parent

    def _ancestors(self, process: Process, ended_ns: int) -> tuple[bytes, Lineage]:
        """Return the comm of the nearest ancestor that was older than the threshold, and the comms of all ancestors."""
        spawner, names, each = b"", list[bytes](), process
        for _ in range(MAX_HOPS + MAX_ABOVE):
            parent = self._parent(each)
            if parent is None:
                lineage = (*([UNKNOWN] if each.ppid else []), *reversed(names))
                return spawner or UNKNOWN, lineage
            names.append(parent.comm)
            if not spawner and ended_ns - parent.born_ns >= self._tally.threshold_ns:
                spawner = parent.comm
            if not spawner and len(names) == MAX_HOPS:
                break
            each = parent
        return spawner or DEEP, (DEEP, *reversed(names))
