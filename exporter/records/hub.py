"""Passes records of single short processes from the source to their consumers: the store of recent records, streams, handlers.

Counts never depend on records. Each consumer has a bound of its own; records beyond it are dropped and counted.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Protocol

from exporter.model import NS
from exporter.records.arguments import Reduce, reduced
from exporter.records.attributed import Who, attributed
from exporter.records.event_hub import EventHub
from exporter.records.record import Record
from exporter.records.stacks import RecentStacks

Batch = Sequence[Record]
"""Records in the order of their exits, as far as the source knows it."""


class Consumer(Protocol):
    """A consumer of records."""

    name: str
    """`stream`, `handlers` or `library`; a label value."""
    live: bool
    """Whether it needs each record soon. Otherwise records come about once a second."""
    at_once: bool
    """Whether it does not wait for CPU, where that follows. Then its records have none."""

    def offer(self, batch: Batch) -> None:
        """Accept the records, or drop and count them. Called from the reader's thread; must neither block nor raise."""

    def dropped(self) -> dict[str, int]:
        """Return the number of dropped records since the start, by reason."""


class Latencies:
    """A histogram of the time from an exit in the kernel to its record here."""

    BOUNDS_NS = (100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 50_000_000, 250_000_000, NS)

    def __init__(self) -> None:
        self.buckets = [0] * (len(self.BOUNDS_NS) + 1)
        """Not cumulative; the last is +Inf."""
        self.sum_ns = 0

    def add(self, exits_ns: Sequence[int]) -> None:
        """Add the times of exits whose records have just arrived."""
        now, bounds, buckets = time.time_ns(), self.BOUNDS_NS, self.buckets
        for exited_ns in exits_ns:
            late_ns = max(0, now - exited_ns)
            buckets[bisect_left(bounds, late_ns)] += 1
            self.sum_ns += late_ns


class Hub:
    """Passes every batch to the store of recent records, to their sums by stack, and to each consumer."""

    def __init__(self, capacity: int, reduce_arguments: Reduce | None = None) -> None:
        """Keep the last `capacity` records. Without any, nothing is summed by stack.

        `reduce_arguments` returns what may be told of arguments; without it, nothing. No consumer ever gets more.
        """
        self._reduce_arguments = reduce_arguments
        self.on_change: Callable[[], None] = lambda: None
        """Called when `wanted` or `live` may have changed, from the thread that attaches or detaches."""
        self.who: Who | None = None
        """Returns user and owner. Called by one thread at a time."""
        self.latencies = Latencies()
        self.events = EventHub()
        self._lock = threading.Lock()
        self._publishing = threading.Lock()
        self.stacks = RecentStacks()
        self._recent: deque[Record] = deque(maxlen=capacity)
        self._consumers: list[Consumer] = []
        self._dropped_before: dict[tuple[str, str], int] = {}

    @property
    def wanted(self) -> bool:
        """Whether there is a consumer, or a store of recent records."""
        return bool(self._recent.maxlen or self._consumers)

    @property
    def live(self) -> bool:
        """Whether a consumer needs each record at once."""
        with self._lock:
            return any(each.live for each in self._consumers)

    def publish(self, batch: Batch, *, dated: bool = True) -> None:
        """Pass on a batch. `dated`: the records have exact exit times. During a switch of modes, two threads call it."""
        with self._publishing:
            if dated:
                self.latencies.add([record.ended_ns for record in batch])
            self._offer(batch, (False, True))

    @property
    def at_once(self) -> bool:
        """See `CpuFollows`."""
        with self._lock:
            return any(each.at_once for each in self._consumers)

    def arrived(self, ended_ns: Sequence[int]) -> None:
        """See `CpuFollows`."""
        with self._publishing:
            self.latencies.add(ended_ns)

    def first(self, batch: Batch) -> None:
        """See `CpuFollows`."""
        with self._publishing:
            self._offer(batch, (True,))

    def completed(self, batch: Batch) -> None:
        """See `CpuFollows`."""
        with self._publishing:
            self._offer(batch, (False,))

    def _offer(self, batch: Batch, at_once: tuple[bool, ...]) -> None:
        if self.who is not None:
            batch = attributed(batch, self.who)
        batch = reduced(batch, self._reduce_arguments)
        with self._lock:
            if False in at_once:
                self._recent.extend(batch)
            consumers = [each for each in self._consumers if each.at_once in at_once]
        if False in at_once and self._recent.maxlen:
            self.stacks.add(batch)
        for consumer in consumers:
            consumer.offer(batch)

    def recent(self) -> list[Record]:
        """Return a copy of the stored records, the oldest first."""
        with self._lock:
            return list(self._recent)

    def newest(self, most: int) -> list[Record]:
        """Return at most so many of the stored records, the newest first."""
        with self._lock:
            return list(islice(reversed(self._recent), most))

    def attach(self, consumer: Consumer) -> None:
        """Pass every batch from now on to `consumer`."""
        with self._lock:
            self._consumers.append(consumer)
        self.on_change()

    def detach(self, consumer: Consumer) -> None:
        """Pass nothing more to `consumer`. Its dropped records stay counted."""
        with self._lock:
            self._consumers.remove(consumer)
            for reason, n in consumer.dropped().items():
                key = consumer.name, reason
                self._dropped_before[key] = self._dropped_before.get(key, 0) + n
        self.on_change()

    def dropped(self) -> dict[tuple[str, str], int]:
        """Return the number of dropped records since the start, by consumer and reason."""
        with self._lock:
            sums = dict(self._dropped_before)
            for consumer in self._consumers:
                for reason, n in consumer.dropped().items():
                    key = consumer.name, reason
                    sums[key] = sums.get(key, 0) + n
            return sums
