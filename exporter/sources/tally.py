"""Counts that a source's thread fills while a scrape reads them."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from signal import SIGKILL

from exporter.model import FOREVER_NS, NS, RECENT_SECONDS, Lost, Mode, Outcome, RuntimeScale, lifetimes
from exporter.model.counts import Breakdown, Counts, ProcessCounts
from exporter.model.dimensions import COMM
from exporter.model.exits import ProcessExit
from exporter.model.origins import UNKNOWN, Origin, Origins
from exporter.records.record import Record
from exporter.sources.base import Publish

MAX_SHORT = 10_000
"""Most records kept between two flushes."""
MAX_NAMES = 4096
"""Most keys of each dimension kept apart between two drains: any user can choose a comm."""

_FAILED = {Outcome.ERROR, Outcome.SIGNAL}


class SecondsRing:
    """Counts the events in each of the last seconds."""

    SIZE = RECENT_SECONDS + 4

    def __init__(self) -> None:
        self._seconds = [-1] * self.SIZE
        self._events = [0] * self.SIZE

    def add(self, second: int) -> None:
        """Count one event in `second`."""
        slot = second % self.SIZE
        if self._seconds[slot] != second:
            self._seconds[slot], self._events[slot] = second, 0
        self._events[slot] += 1

    def before(self, second: int) -> dict[int, int]:
        """Return the events of each of the 60 seconds before `second`, without the seconds that had none."""
        return {at: n for at, n in zip(self._seconds, self._events, strict=True) if second - RECENT_SECONDS <= at < second}


class Tally:
    """The counts of a source in user space since its last drain. Thread-safe.

    Times of events (`at_ns`) are of the monotonic clock. Events from `from_ns` until before `until_ns` count.
    """

    def __init__(self, scale: RuntimeScale, now: Callable[[], int] = time.monotonic_ns, unsure_ns: int = 0) -> None:
        """`scale` has the buckets; `now` is a monotonic clock in nanoseconds. Other modes may date events `unsure_ns` earlier or later."""
        self.threshold_ns = scale.threshold_ns
        self._scale = scale
        self._lifetimes = None if scale.lifetimes is None else lifetimes.buckets(scale.lifetimes)
        self._now = now
        self._lock = threading.Lock()
        self._ring = SecondsRing()
        self._counts = self._fresh()
        self._origins = Origins()
        self._unsure_ns = unsure_ns
        self._publish: Publish | None = None
        self._short: list[tuple[int, ProcessExit]] = []
        self.from_ns = 0
        """The first moment whose events count."""
        self.until_ns = FOREVER_NS
        """The first moment whose events don't count."""
        self.clones = 0
        """Processes and threads counted since the start; never drained."""
        self.noticed = 0
        """Clones that were counted, and those found but not read: they are lost for a reason of their own, so they are not unseen too."""

    def standby(self) -> None:
        """Count nothing, not even losses, until `count_from`."""
        self.from_ns = FOREVER_NS

    def count_from(self, from_ns: int) -> None:
        """Count the events from this moment on."""
        with self._lock:
            self.from_ns = from_ns

    def count_until(self, until_ns: int) -> None:
        """Count only the events before this moment."""
        with self._lock:
            self.until_ns = until_ns

    def publish(self, to: Publish) -> None:
        """Keep short processes from now on; `flush` passes them to `to`."""
        self._publish = to

    def flush(self, mode: Mode) -> None:
        """Publish records of the short processes counted since the last flush."""
        if not self._short or self._publish is None:
            return
        with self._lock:
            short, self._short = self._short, []
        ahead_ns = time.time_ns() - time.monotonic_ns()
        self._publish([_record(pid, exited, ahead_ns, mode) for pid, exited in short])

    def forked(self, at_ns: int, unsure_ns: int = 0) -> None:
        """Count a new process. As with other events, it may have happened `unsure_ns` earlier or later."""
        with self._lock:
            if self._counts_at(at_ns, unsure_ns):
                self._counts.forks += 1
                self.clones += 1
                self.noticed += 1

    def threads(self, n: int, at_ns: int, unsure_ns: int = 0) -> None:
        """Count `n` new threads."""
        with self._lock:
            if self._counts_at(at_ns, unsure_ns, n):
                self._counts.threads += n
                self.clones += n
                self.noticed += n

    def execed(self, comm: bytes, at_ns: int) -> None:
        """Count an exec, under the comm after it."""
        with self._lock:
            if self._counts_at(at_ns):
                self._counts.total.execs += 1
                self._counts.by[COMM].row(comm, MAX_NAMES).execs += 1

    def missed(self, reason: Lost) -> None:
        """Count a new process or thread that was found but could not be read."""
        with self._lock:
            if self.from_ns != FOREVER_NS:
                self._counts.lose(reason)
                self.noticed += 1

    def lose(self, reason: Lost, n: int = 1) -> None:
        """Count `n` losses of anything but a new clone."""
        with self._lock:
            if self.from_ns != FOREVER_NS:
                self._counts.lose(reason, n)

    def exited(self, pid: int, exited: ProcessExit, unsure_ns: int = 0) -> bool:
        """Count the exit of a process. Returns whether it counts here."""
        with self._lock:
            counts = self._counts_at(exited.at_ns, unsure_ns)
            if counts:
                self._count(exited)
                if self._publish is not None and exited.runtime_ns < self._scale.threshold_ns:
                    self._keep(pid, exited)
            return counts

    def _counts_at(self, at_ns: int, unsure_ns: int = 0, n: int = 1) -> bool:
        unsure_ns += self._unsure_ns
        for cut_ns in (self.from_ns, self.until_ns):
            if 0 < cut_ns < FOREVER_NS and abs(at_ns - cut_ns) < unsure_ns:
                self._counts.lose(Lost.SWITCH_UNSURE, n)
        return self.from_ns <= at_ns < self.until_ns

    def _keep(self, pid: int, exited: ProcessExit) -> None:
        if len(self._short) < MAX_SHORT:
            self._short.append((pid, exited))
        else:
            self._counts.records_dropped += 1

    def _count(self, exited: ProcessExit) -> None:
        counts = self._counts
        short = exited.runtime_ns < self._scale.threshold_ns
        bucket = bisect_left(self._scale.bounds_ns, exited.runtime_ns)
        lifetime = self._lifetimes.index_of(exited.runtime_ns) if self._lifetimes else None
        for each in (counts.total, counts.by[COMM].row(exited.comm, MAX_NAMES)):
            each.exits[exited.outcome.position] += 1
            each.runtime_ns += exited.runtime_ns
            each.short_exits += short
            each.cpu_ns += exited.cpu_ns or 0
            each.short_cpu_ns += short * (exited.cpu_ns or 0)
            if each.buckets:
                each.buckets[bucket] += 1
            if lifetime is not None:
                each.lifetimes[lifetime] = each.lifetimes.get(lifetime, 0) + 1
        failed = exited.outcome in _FAILED
        if short or failed:
            origin = Origin(exited.cgroup, exited.uid, exited.comm, exited.parent_comm, exited.spawner)
            self._origins.count(origin, int(short), int(failed))
        if short and exited.cpu_ns:
            self._origins.count_cgroup(exited.cgroup, exited.cpu_ns, oom_kills=0)
        counts.core_dumps += exited.core_dump
        if exited.sigkill:
            counts.signals[SIGKILL] = counts.signals.get(SIGKILL, 0) + 1
        if short:
            self._ring.add(self._now() // NS)

    def peek(self) -> Counts:
        """Return a copy of the counts since the last drain."""
        with self._lock:
            return self._counts.copy()

    def drain(self) -> Counts:
        """Return the counts since the last drain, and start from zero."""
        fresh = self._fresh()
        with self._lock:
            counts, self._counts = self._counts, fresh
        return counts

    def origins(self) -> Origins:
        """Return for whom processes ran since the last call."""
        fresh = Origins()
        with self._lock:
            origins, self._origins = self._origins, fresh
        return origins

    def short_exits(self) -> dict[int, int]:
        """Return the short exits of the last seconds; see `Gauges`."""
        with self._lock:
            return self._ring.before(self._now() // NS)

    def _fresh(self) -> Counts:
        comms = Breakdown[bytes](other=self._buckets() if self._scale.per_comm_buckets else ProcessCounts())
        return Counts(total=self._buckets(), by={COMM: comms})

    def _buckets(self) -> ProcessCounts:
        return ProcessCounts(buckets=[0] * (len(self._scale.bounds_ns) + 1))


def _record(pid: int, exited: ProcessExit, ahead_ns: int, mode: Mode) -> Record:
    ended_ns = exited.start_ns + exited.runtime_ns + ahead_ns
    who = pid, exited.ppid, exited.uid, exited.comm, exited.parent_comm, b""
    spawner = b"" if exited.spawner == UNKNOWN else exited.spawner
    how = exited.outcome, exited.code, exited.cpu_ns
    record = Record(ended_ns, exited.runtime_ns, *who, *how, exited.cgroup, mode, spawner, lineage=exited.lineage)
    if exited.arguments is None:
        return record
    return record._replace(arguments=exited.arguments.text, arguments_cut=exited.arguments.cut)
