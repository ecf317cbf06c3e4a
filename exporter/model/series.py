"""The rule by which the keys of a dimension get series of their own.

Invariants
- An increment is counted in exactly one place: in its key's series, or in `other`. It never moves. So sums are whole, and nothing that
  happened before ever appears in `other` as if it happened now.
- Looking changes nothing: `view` shows what `absorb` would make of the same counts, so that two Prometheus servers see the same.
- Whether newcomers may get series is decided when a drain is absorbed, and holds until the next. If not, what they do counts under
  `other` at once; if so, it is held back until that drain, which admits them or counts them under `other`.
- Memory is bounded by the cap, whatever keys arrive.

Prometheus sees no increase in a series that is born with a value. So a newcomer is shown at 0 from the first look on, and for a while
(`hold_ns`) after its drain.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from typing import Generic

from exporter.model import NS
from exporter.model.counts import Breakdown, Key, ProcessCounts
from exporter.model.dimensions import Dimension, Labels

IDLE_NS = 600 * NS
"""A key keeps its series for at least this long after its last event."""
_BUSIEST = 100

Clock = Callable[[], int]
Row = tuple[Labels, ProcessCounts]


@dataclass(slots=True)
class _Series:
    labels: Labels
    counts: ProcessCounts
    admitted_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How busy the keys of a dimension were, as of the last drain."""

    named: list[Row]
    """Those with series, at their true values: also those that are shown at 0 yet."""
    overflowed: list[Row]
    """The busiest of those without, since they were noticed."""


class CappedSeries(Generic[Key]):
    """At most `cap` keys of a dimension with counts of their own; all others together are `other`."""

    def __init__(self, dimension: Dimension[Key], cap: int, hold_ns: int, now: Clock) -> None:
        """`now` is a monotonic clock in nanoseconds."""
        self._dimension = dimension
        self._cap = cap
        self._hold_ns = hold_ns if dimension.held else 0
        self._idle_ns = max(IDLE_NS, 2 * self._hold_ns)  # none may go before its true value was shown
        self._now = now
        self._series: dict[Key, _Series] = {}
        self._other = ProcessCounts()
        self._accepting = True
        self._overflowed: dict[Key, ProcessCounts] = {}

    def keys(self) -> Collection[Key]:
        """Those that have series."""
        return tuple(self._series)

    def absorb(self, counts: Breakdown[Key]) -> None:
        """Count them for good."""
        now = self._now()
        admitted, leaving = self._admission(self._newcomers(counts), counts, now)
        for key in leaving:
            del self._series[key]
        self._other.add(counts.other)
        for key, row in counts.rows.items():
            series = self._series.get(key)
            if series is not None:
                series.counts.add(row)
                series.last_ns = now
            elif key not in admitted:
                self._overflow(key, row)
        for key, labels in admitted.items():
            self._overflowed.pop(key, None)
            self._series[key] = _Series(labels, counts.rows[key].copy(), now, now)
        self._accepting = len(self._series) < self._cap or any(self._is_idle(each, now) for each in self._series.values())

    def view(self, counts: Breakdown[Key]) -> list[Row]:
        """The rows as they would be if these counts were absorbed now; the last is `other`."""
        now = self._now()
        newcomers = self._newcomers(counts)
        admitted, leaving = self._admission(newcomers, counts, now)
        rows = [(each.labels, self._shown(each, counts.rows.get(key), now)) for key, each in self._series.items() if key not in leaving]
        rows += [(labels, ProcessCounts()) for labels in admitted.values()]
        other = self._other.copy()
        other.add(counts.other)
        for key, row in counts.rows.items():
            if key not in self._series and key not in newcomers:
                other.add(row)
        rows.append((self._dimension.other, other))
        return rows

    def standing(self) -> Standing:
        """How busy the keys were."""
        named = [(each.labels, each.counts.copy()) for each in self._series.values()]
        overflowed = heapq.nlargest(_BUSIEST, self._overflowed.items(), key=_events)
        return Standing(named, [(self._dimension.labels_of(key), row.copy()) for key, row in overflowed])

    def _shown(self, series: _Series, fresh: ProcessCounts | None, now: int) -> ProcessCounts:
        if now - series.admitted_ns < self._hold_ns:
            return ProcessCounts()
        shown = series.counts.copy()
        if fresh is not None:
            shown.add(fresh)
        return shown

    def _newcomers(self, counts: Breakdown[Key]) -> dict[Key, Labels]:
        """Those that may get a series at the next drain. A key that is called like the row of the others counts there."""
        if not self._accepting:
            return {}
        labels_of, other = self._dimension.labels_of, self._dimension.other
        return {key: labels for key in counts.rows if key not in self._series and (labels := labels_of(key)) != other}

    def _admission(self, newcomers: dict[Key, Labels], counts: Breakdown[Key], now: int) -> tuple[dict[Key, Labels], Collection[Key]]:
        """Which newcomers get series if these counts are absorbed now (the busiest), and which keys lose theirs (the longest idle)."""
        if not newcomers:
            return {}, ()
        room = self._cap - len(self._series)
        leaving: list[Key] = []
        if len(newcomers) > room:
            quiet = ((key, each) for key, each in self._series.items() if key not in counts.rows)
            idle = [(each.last_ns, each.labels, key) for key, each in quiet if self._is_idle(each, now)]
            leaving = [key for *_, key in heapq.nsmallest(len(newcomers) - room, idle)]
        first = heapq.nsmallest(room + len(leaving), newcomers, key=lambda key: (-counts.rows[key].events(), newcomers[key]))
        return {key: newcomers[key] for key in first}, leaving

    def _is_idle(self, series: _Series, now: int) -> bool:
        return now - series.last_ns >= self._idle_ns

    def _overflow(self, key: Key, row: ProcessCounts) -> None:
        self._other.add(row)
        known = self._overflowed.get(key)
        if known is not None:
            known.add(row)
            return
        self._overflowed[key] = row.copy()
        if len(self._overflowed) > 4 * _BUSIEST:
            self._overflowed = dict(heapq.nlargest(_BUSIEST, self._overflowed.items(), key=_events))


def _events(item: tuple[Hashable, ProcessCounts]) -> int:
    return item[1].events()
