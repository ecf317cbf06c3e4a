"""Totals that only grow, and the rule by which a comm gets series of its own.

Invariants
- An increment is counted in exactly one place: in its comm's series, or in `other`. It never moves. So sums are whole, and nothing that
  happened before ever appears in `other` as if it happened now.
- Looking changes nothing: `view` shows what `absorb` would make of the same counts, so that two Prometheus servers see the same.
- Whether newcomers may get series is decided when a drain is absorbed, and holds until the next. If not, what they do counts under
  `other` at once; if so, it is held back until that drain, which admits or folds them.
- Memory is bounded by the cap, whatever comms arrive.

A new series is shown at 0 for a while (`hold_ns`), since Prometheus sees no increase in a series that is born with a value.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from exporter.model import NS, OTHER, comm_text
from exporter.model.counts import Counts, ProcessCounts

MAX_PARENTS = 20
IDLE_NS = 600 * NS
"""A comm keeps its series for at least this long after its last event."""
_BUSIEST = 100

_Clock = Callable[[], int]


@dataclass(slots=True)
class _Series:
    label: str
    counts: ProcessCounts
    admitted_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class View:
    """What there is to show, as of one moment: the grown counts, and the rows by name. The last row of each is `other`."""

    counts: Counts
    comms: list[tuple[str, ProcessCounts]]
    parents: list[tuple[str, ProcessCounts]]


class CappedSeries:
    """At most `cap` names with counts of their own; all others together are `other`."""

    def __init__(self, cap: int, hold_ns: int, now: _Clock) -> None:
        """`now` is a monotonic clock in nanoseconds."""
        self._cap = cap
        self._hold_ns = hold_ns
        self._idle_ns = max(IDLE_NS, 2 * hold_ns)  # none may go before its true value was shown
        self._now = now
        self._series: dict[bytes, _Series] = {}
        self._other = ProcessCounts()
        self._accepting = True
        self._overflowed: dict[bytes, int] = {}

    def __len__(self) -> int:
        """How many names have series of their own."""
        return len(self._series)

    def names(self) -> set[bytes]:
        """Which names they are."""
        return set(self._series)

    def absorb(self, by_name: Mapping[bytes, ProcessCounts], other: ProcessCounts) -> None:
        """Count them for good."""
        now = self._now()
        self._other.add(other)
        newcomers: dict[bytes, ProcessCounts] = {}
        for name, counts in by_name.items():
            series = self._series.get(name)
            if series is not None:
                series.counts.add(counts)
                series.last_ns = now
            elif self._accepting and name != OTHER.encode():
                newcomers[name] = counts
            else:
                self._overflow(name, counts)
        self._admit(newcomers, now)
        self._accepting = len(self._series) < self._cap or any(self._idle(now))

    def view(self, by_name: Mapping[bytes, ProcessCounts], other: ProcessCounts) -> list[tuple[str, ProcessCounts]]:
        """The rows as they would be if these counts were absorbed by series that exist."""
        now = self._now()
        rows = []
        for name, series in self._series.items():
            shown = ProcessCounts()
            if now - series.admitted_ns >= self._hold_ns:
                shown.add(series.counts)
                if name in by_name:
                    shown.add(by_name[name])
            rows.append((series.label, shown))
        rest = self._other.copy()
        rest.add(other)
        for name, counts in by_name.items():
            if name not in self._series and (not self._accepting or name == OTHER.encode()):
                rest.add(counts)
        rows.append((OTHER, rest))
        return rows

    def busiest(self, n: int) -> list[tuple[str, ProcessCounts]]:
        """The `n` names with series that had the most short exits (then exits), held ones too."""
        series = heapq.nlargest(n, self._series.values(), key=lambda each: (each.counts.short_exits, sum(each.counts.exits)))
        return [(each.label, each.counts) for each in series]

    def busiest_overflowed(self, n: int) -> list[tuple[str, int]]:
        """The `n` busiest of what is overflowed into `other`, with their ends since they were noticed."""
        return [(comm_text(name), events) for name, events in heapq.nlargest(n, self._overflowed.items(), key=lambda item: item[1])]

    def _admit(self, newcomers: Mapping[bytes, ProcessCounts], now: int) -> None:
        idle = self._idle(now) if newcomers else iter(())
        for name in sorted(newcomers, key=lambda name: (-newcomers[name].events(), name)):
            if len(self._series) >= self._cap:
                leaving = next(idle, None)
                if leaving is None:
                    self._overflow(name, newcomers[name])
                    continue
                del self._series[leaving]
            self._overflowed.pop(name, None)
            self._series[name] = _Series(comm_text(name), newcomers[name].copy(), now, now)

    def _idle(self, now: int) -> Iterator[bytes]:
        """Those that may give up their series, the longest idle first."""
        idle = [(series.last_ns, name) for name, series in self._series.items() if now - series.last_ns >= self._idle_ns]
        return (name for _, name in sorted(idle))

    def _overflow(self, name: bytes, counts: ProcessCounts) -> None:
        self._other.add(counts)
        self._overflowed[name] = self._overflowed.get(name, 0) + sum(counts.exits)
        if len(self._overflowed) > 4 * _BUSIEST:
            self._overflowed = dict(heapq.nlargest(_BUSIEST, self._overflowed.items(), key=lambda item: item[1]))


class Ledger:
    """What all sources ever saw. Not safe for threads: the supervisor holds one lock around it and its source."""

    def __init__(self, max_comms: int, hold_ns: int, now: _Clock = time.monotonic_ns) -> None:
        """Give at most `max_comms` comms series, each shown at 0 for its first `hold_ns`."""
        self.comms = CappedSeries(max_comms, hold_ns, now)
        self.parents = CappedSeries(MAX_PARENTS, hold_ns, now)
        self._counts = Counts()

    def names(self) -> set[bytes]:
        """Those that have series of their own, comms and parents."""
        return self.comms.names() | self.parents.names()

    def absorb(self, counts: Counts) -> None:
        """Take over what a source drained."""
        self._counts.add_nameless(counts)
        self.comms.absorb(counts.by_comm, counts.other)
        self.parents.absorb(*_by_parent(counts))

    def view(self, counts: Counts) -> View:
        """What there is to show if a source has `counts` that are not drained yet. Changes nothing."""
        grown = Counts()
        grown.add_nameless(self._counts)
        grown.add_nameless(counts)
        return View(grown, self.comms.view(counts.by_comm, counts.other), self.parents.view(*_by_parent(counts)))


def _by_parent(counts: Counts) -> tuple[dict[bytes, ProcessCounts], ProcessCounts]:
    by_parent = {name: ProcessCounts(short_exits=n) for name, n in counts.short_exits_by_parent.items()}
    return by_parent, ProcessCounts(short_exits=counts.short_exits_by_other_parents)
