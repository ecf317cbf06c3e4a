"""Counts that a scanning thread fills while a scrape reads them."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace

from exporter.model import NS, UNKNOWN_OUTCOME, Counts, Lost, Measures, ProcessCounts

MAX_NAMES = 4096
"""Most comms, and most parents, kept apart between two drains: comm is chosen by whoever runs the process."""


class SecondsRing:
    """How many events each of the last seconds had."""

    SIZE = 64
    WINDOW = 60

    def __init__(self) -> None:
        self._seconds = [-1] * self.SIZE
        self._events = [0] * self.SIZE

    def add(self, second: int) -> None:
        """Count one event in `second`."""
        slot = second % self.SIZE
        if self._seconds[slot] != second:
            self._seconds[slot], self._events[slot] = second, 0
        self._events[slot] += 1

    def busiest(self, second: int) -> int:
        """Events in the busiest of the 60 seconds before `second`."""
        return max((n for at, n in zip(self._seconds, self._events, strict=True) if second - self.WINDOW <= at < second), default=0)


class Tally:
    """What a scan saw since it was last drained. Every method may be called from any thread."""

    def __init__(self, measures: Measures, now: Callable[[], int] = time.monotonic_ns) -> None:
        """Bucket by `measures`; `now` is a monotonic clock in nanoseconds."""
        self._measures = measures
        self._now = now
        self._lock = threading.Lock()
        self._ring = SecondsRing()
        self._counts = self._fresh()
        self.clones = 0
        """Processes and threads seen, never drained."""
        self.noticed = 0
        """Those and the ones found but not read: what is counted as lost under a cause of its own is not unseen as well."""

    def forked(self) -> None:
        """Count a new process."""
        with self._lock:
            self._counts.forks += 1
            self.clones += 1
            self.noticed += 1

    def threads(self, n: int) -> None:
        """Count `n` new threads."""
        with self._lock:
            self._counts.threads += n
            self.clones += n
            self.noticed += n

    def missed(self, reason: Lost) -> None:
        """Count a new process or thread that was found and could not be read."""
        with self._lock:
            self._counts.lose(reason)
            self.noticed += 1

    def lose(self, reason: Lost, n: int = 1) -> None:
        """Count `n` losses of something else than a new clone."""
        with self._lock:
            self._counts.lose(reason, n)

    def ended(self, comm: bytes, parent_comm: bytes, runtime_ns: int, cpu_ns: int) -> None:
        """Count the end of a process, whose outcome a scan can't tell."""
        short = runtime_ns < self._measures.threshold_ns
        bucket = bisect_left(self._measures.bounds_ns, runtime_ns)
        with self._lock:
            counts = self._counts
            named = self._named(comm)
            for each in (counts.total, named):
                each.exits[UNKNOWN_OUTCOME] += 1
                each.runtime_ns += runtime_ns
                each.cpu_ns += cpu_ns
                if short:
                    each.short_exits += 1
                    each.short_cpu_ns += cpu_ns
                if each.buckets:
                    each.buckets[bucket] += 1
            if short:
                self._ring.add(self._now() // NS)
                parents = counts.short_exits_by_parent
                if parent_comm in parents or len(parents) < MAX_NAMES:
                    parents[parent_comm] = parents.get(parent_comm, 0) + 1
                else:
                    counts.short_exits_by_other_parents += 1

    def peek(self) -> Counts:
        """Copy what was seen since the last drain."""
        with self._lock:
            counts = self._counts
            return replace(
                counts,
                total=counts.total.copy(),
                by_comm={comm: each.copy() for comm, each in counts.by_comm.items()},
                other=counts.other.copy(),
                short_exits_by_parent=dict(counts.short_exits_by_parent),
                signals=dict(counts.signals),
                lost=dict(counts.lost),
            )

    def drain(self) -> Counts:
        """Hand over what was seen since the last drain, and begin anew."""
        fresh = self._fresh()
        with self._lock:
            counts, self._counts = self._counts, fresh
        return counts

    def peak_per_second(self) -> int:
        """Short exits in the busiest whole second of the last 60, the current one left out."""
        with self._lock:
            return self._ring.busiest(self._now() // NS)

    def _fresh(self) -> Counts:
        counts = Counts(total=self._buckets())
        if self._measures.per_comm_buckets:
            counts.other = self._buckets()
        return counts

    def _buckets(self) -> ProcessCounts:
        return ProcessCounts(buckets=[0] * (len(self._measures.bounds_ns) + 1))

    def _named(self, comm: bytes) -> ProcessCounts:
        counts = self._counts
        named = counts.by_comm.get(comm)
        if named is None:
            if len(counts.by_comm) >= MAX_NAMES:
                return counts.other
            named = counts.by_comm[comm] = self._buckets() if self._measures.per_comm_buckets else ProcessCounts()
        return named
