"""How busy the keys of a dimension are, with series or without: in the last minutes, and since the exporter started.

Memory is bounded whatever keys arrive: of those without series, the busiest are kept. What was dropped shows nowhere by name, but it
is in `other`, where it was counted.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple

from exporter.model import NS
from exporter.model.counts import Key, ProcessCounts

WINDOW_SECONDS = 300
_SLICE_NS = 15 * NS
_KEPT = 32
"""Keys without series that are kept of a drain, and of a slice."""
_KEPT_SUMS = 4
_TOTALS = 100
"""Keys without series whose totals are kept."""

Slice = Mapping[Key, ProcessCounts]


class Busyness(NamedTuple):
    """Events in the last minutes."""

    events: int = 0
    failures: int = 0

    def plus(self, counts: ProcessCounts, sign: int = 1) -> Busyness:
        """With those of `counts`, or without them."""
        return Busyness(self.events + sign * counts.events(), self.failures + sign * counts.failures())


IDLE = Busyness()


class Closed(Generic[Key]):
    """Slices that never change again, oldest first. Their sums are kept, since somebody who looks asks again each second."""

    def __init__(self, slices: Sequence[tuple[int, Slice[Key]]] = ()) -> None:
        """`slices` have the moment at which each began, in nanoseconds."""
        self._slices = slices
        self._sums: dict[int, Slice[Key]] = {}

    def since(self, begin_ns: int) -> Slice[Key]:
        """Return what each key did in the slices that began after that moment."""
        first = next((at for at, (begun_ns, _) in enumerate(self._slices) if begun_ns > begin_ns), len(self._slices))
        sums = self._sums.get(first)
        if sums is None:
            made: dict[Key, ProcessCounts] = {}
            for _, each in self._slices[first:]:
                for key, row in each.items():
                    _add(made, key, row)
            if len(self._sums) >= _KEPT_SUMS:
                self._sums.clear()
            sums = self._sums[first] = made
        return sums


@dataclass(frozen=True, slots=True)
class Standing(Generic[Key]):
    """What was known at one moment."""

    totals: Mapping[Key, ProcessCounts]
    """Since each key was first noticed."""
    tracked: Collection[Key]
    """Those that have series."""
    growing: Collection[Key]
    """Those of them that have not retired."""
    now_ns: int = 0
    """The moment."""
    closed: Closed[Key] = field(default_factory=Closed)
    latest: Slice[Key] | None = None
    """The slice that is not closed yet."""

    def within(self, seconds: float) -> dict[Key, ProcessCounts]:
        """What each key did in the last `seconds`, at most `WINDOW_SECONDS`; up to a slice of 15 s more."""
        counts = dict(self.closed.since(self.now_ns - round(seconds * NS) - _SLICE_NS))
        for key, row in (self.latest or {}).items():
            counts[key] = counts[key].plus(row) if key in counts else row
        return counts


class Activity(Generic[Key]):
    """The memory of what each key did. Only drains change it."""

    def __init__(self) -> None:
        self._totals: dict[Key, ProcessCounts] = {}
        self._closed: deque[tuple[int, dict[Key, ProcessCounts]]] = deque()
        self._latest: dict[Key, ProcessCounts] = {}
        self._latest_ns = 0
        self._to_sum = Closed[Key]()
        self._recent: dict[Key, Busyness] = {}

    def recent(self, key: Key) -> Busyness:
        """What it did in the last `WINDOW_SECONDS`."""
        return self._recent.get(key, IDLE)

    def foremost(self, rows: Mapping[Key, ProcessCounts], apart_from: Container[Key], most: int) -> list[Key]:
        """Return the keys of `rows` with the most events, in the last minutes and in `rows`, and then those with the most failures."""
        busy, failing = [], []
        for key, row in rows.items():
            if key in apart_from:
                continue
            events, failures = self.recent(key)
            busy.append((events + row.events(), key))
            if failures := failures + row.failures():
                failing.append((failures, key))
        first = dict.fromkeys(key for _, key in heapq.nlargest(most, busy, key=_events))
        return list(first | dict.fromkeys(key for _, key in heapq.nlargest(most // 4, failing, key=_events)))

    def note(self, rows: Mapping[Key, ProcessCounts], tracked: Collection[Key], now: int) -> None:
        """Remember a drain. `now` is of a monotonic clock, in nanoseconds."""
        if now - self._latest_ns >= _SLICE_NS:
            self._begin_slice(tracked, now)
        for key in self._kept(rows, tracked):
            row = rows[key]
            self._recent[key] = self.recent(key).plus(row)
            _add(self._latest, key, row)
            _add(self._totals, key, row)
        if len(self._totals) > 4 * _TOTALS + len(tracked):
            rest = ((counts.events(), key) for key, counts in self._totals.items() if key not in tracked)
            kept = {key for _, key in heapq.nlargest(_TOTALS, rest, key=_events)}
            self._totals = {key: counts for key, counts in self._totals.items() if key in tracked or key in kept}

    def standing(self, tracked: Collection[Key], growing: Collection[Key], now: int) -> Standing[Key]:
        """Return what is known now."""
        return Standing(_copied(self._totals), frozenset(tracked), frozenset(growing), now, self._to_sum, _copied(self._latest))

    def _kept(self, rows: Mapping[Key, ProcessCounts], tracked: Collection[Key]) -> list[Key]:
        return [*(rows.keys() & tracked), *self.foremost(rows, tracked, _KEPT)]

    def _begin_slice(self, tracked: Collection[Key], now: int) -> None:
        for key in self._latest.keys() - set(self._kept(self._latest, tracked)):
            self._forget(key, self._latest.pop(key))
        if self._latest:
            self._closed.append((self._latest_ns, self._latest))
        while self._closed and now - self._closed[0][0] >= WINDOW_SECONDS * NS + _SLICE_NS:
            for key, counts in self._closed.popleft()[1].items():
                self._forget(key, counts)
        self._to_sum = Closed(tuple(self._closed))
        self._latest, self._latest_ns = {}, now

    def _forget(self, key: Key, counts: ProcessCounts) -> None:
        rest = self._recent.pop(key, IDLE).plus(counts, -1)
        if rest.events:
            self._recent[key] = rest


def _add(to: dict[Key, ProcessCounts], key: Key, counts: ProcessCounts) -> None:
    known = to.get(key)
    if known is None:
        known = to[key] = ProcessCounts()
    known.add_numbers(counts)  # nobody asks for its histograms, which take most of the memory


def _copied(counts: Mapping[Key, ProcessCounts]) -> dict[Key, ProcessCounts]:
    return {key: each.copy() for key, each in counts.items()}


def _events(item: tuple[int, object]) -> int:
    return item[0]
