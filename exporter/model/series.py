"""The series of a dimension: what each key that has one counted, and the rest, `other`.

Invariants
- An increment is counted in exactly one place: in its key's series, or in `other`. It never moves. So sums are whole, and nothing that
  happened before ever appears in `other` as if it happened now.
- Looking changes nothing: `view` shows what `absorb` would make of the same counts, so that two Prometheus servers see the same.
- Only a drain changes which keys have series (`exporter/model/admission.py`). What keys without series do is held back until it, and
  then begins their series or counts under `other`. So does a key that is called like the row of the others.
- Memory is bounded by the cap, whatever keys arrive.

Prometheus sees no increase in a series that is born with a value. So a newcomer is shown at 0 from the first look on, and for a while
(`hold_ns`) after its drain. It does not see what happened to a series after the last scrape. So one that retires stays for as long.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Container, Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple

from exporter.model import NS
from exporter.model.activity import Activity, Standing
from exporter.model.admission import Contender, Decision, Places, decide
from exporter.model.counts import Breakdown, Key, ProcessCounts
from exporter.model.dimensions import Dimension, Labels

IDLE_NS = 600 * NS
"""A key keeps its series for at least this long after its last event, unless others are plainly busier."""

Clock = Callable[[], int]


class Row(NamedTuple):
    """What there is to show of a key, or of all others together."""

    labels: Labels
    counts: ProcessCounts
    created_ns: int
    """Unix time at which its counts were 0."""


@dataclass(slots=True)
class _Series:
    labels: Labels
    counts: ProcessCounts
    """Replaced, never changed: views have it too."""
    created_ns: int
    """As in its row."""
    admitted_ns: int
    settled_ns: int
    """From then on it may retire."""
    last_ns: int
    retired_ns: int | None = None


class CappedSeries(Generic[Key]):
    """At most `cap` keys of a dimension with counts of their own; all others together are `other`."""

    def __init__(self, dimension: Dimension[Key], cap: int, hold_ns: int, now: Clock, unix_now: Clock) -> None:
        """`now` is a monotonic clock in nanoseconds, `unix_now` that of the calendar."""
        self._dimension = dimension
        self._places = Places(cap)
        self._hold_ns = hold_ns if dimension.held else 0
        self._now, self._unix_now = now, unix_now
        self._created_ns = self._drained_ns = unix_now()
        """What a series counts from its birth on happened after the drain before it."""
        self._series: dict[Key, _Series] = {}
        self._other = ProcessCounts()
        self._activity = Activity[Key]()
        self._holders: dict[Key, Hashable | None] = {}

    def keys(self) -> Collection[Key]:
        """Those that have series."""
        return tuple(self._series)

    def absorb(self, counts: Breakdown[Key]) -> None:
        """Count them for good."""
        now = self._now()
        decision = self._decide(counts, now)
        for key in (*self._gone(now), *decision.dropped):
            if key not in decision.admitted:
                del self._series[key]
        for key, each in decision.admitted.items():
            self._admit(key, each.labels, now)
        self._other.add(counts.other)
        for key, row in counts.rows.items():
            series = self._series.get(key)
            if series is None or series.retired_ns is not None:
                self._other.add(row)
            else:
                series.counts = series.counts.plus(row)
                series.last_ns = now
        for key in decision.retired:
            self._series[key].retired_ns = now
        self._activity.note(counts.rows, self._series, now)
        self._keep_holders(counts)
        self._drained_ns = self._unix_now()

    def view(self, counts: Breakdown[Key]) -> list[Row]:
        """The rows as they would be if these counts were absorbed now; the last is `other`."""
        now = self._now()
        decision = self._decide(counts, now)
        leaving = decision.dropped.union(self._gone(now)) - decision.admitted.keys()
        rows = [
            Row(each.labels, self._shown(key, each, counts, now), each.created_ns)
            for key, each in self._series.items()
            if key not in leaving
        ]
        rows += [Row(each.labels, ProcessCounts(), self._drained_ns) for key, each in decision.admitted.items() if key not in self._series]
        other = self._other.copy()
        other.add(counts.other)
        rows.append(Row(self._dimension.other, other, self._created_ns))
        return rows

    def standing(self) -> Standing[Key]:
        """How busy the keys are, as of the last drain."""
        return self._activity.standing(self._series, self._growing(), self._now())

    def _shown(self, key: Key, series: _Series, counts: Breakdown[Key], now: int) -> ProcessCounts:
        if now - series.admitted_ns < self._hold_ns:
            return ProcessCounts()
        fresh = counts.rows.get(key)
        return series.counts if fresh is None or series.retired_ns is not None else series.counts.plus(fresh)

    def _decide(self, counts: Breakdown[Key], now: int) -> Decision[Key]:
        growing = self._growing()
        labels_of, other = self._dimension.labels_of, self._dimension.other
        foremost = self._activity.foremost(counts.rows, growing, self._places.cap)
        keys = dict.fromkeys((*foremost, *self._of_each_holder(counts, growing)))
        newcomers = [(key, labels) for key in keys if (labels := labels_of(key)) != other]
        if not newcomers and len(growing) <= self._places.full:
            return Decision()
        gone = set(self._gone(now))

        def contender(key: Key, labels: Labels) -> Contender[Key]:
            busy, row = self._activity.recent(key), counts.rows.get(key)
            series = self._series.get(key)
            return Contender(
                key,
                labels,
                busy if row is None else busy.plus(row),
                counts.holders.get(key, self._holders.get(key)),
                last_ns=series.last_ns if series is not None else 0,
                is_settled=series is not None and now >= series.settled_ns,
                is_idle=series is not None and row is None and now >= max(series.settled_ns, series.last_ns + IDLE_NS),
                has_place=series is not None and key not in gone,
            )

        return decide(
            self._places,
            [contender(key, each.labels) for key, each in growing.items()],
            len(self._series) - len(growing) - len(gone),
            [contender(key, labels) for key, labels in newcomers],
        )

    def _growing(self) -> dict[Key, _Series]:
        return {key: each for key, each in self._series.items() if each.retired_ns is None}

    def _of_each_holder(self, counts: Breakdown[Key], growing: Container[Key]) -> list[Key]:
        """Return the busiest newcomer of each holder, so that a flood of one holder's does not hide those of others."""
        if not counts.holders:
            return []
        first: dict[Hashable | None, tuple[int, Key]] = {}
        for key, row in counts.rows.items():
            if key not in growing:
                holder, events = counts.holders.get(key), row.events()
                if holder not in first or events > first[holder][0]:
                    first[holder] = events, key
        return [key for _, key in heapq.nlargest(self._places.cap, first.values(), key=lambda each: each[0])]

    def _keep_holders(self, counts: Breakdown[Key]) -> None:
        """Keep those of the keys that may be asked about again."""
        known = self._holders | counts.holders
        self._holders = {key: holder for key, holder in known.items() if key in self._series or self._activity.recent(key).events}

    def _admit(self, key: Key, labels: Labels, now: int) -> None:
        series = self._series.get(key)
        if series is None:
            self._series[key] = _Series(labels, ProcessCounts(), self._drained_ns, now, now + 2 * self._hold_ns, now)
        else:
            series.retired_ns, series.settled_ns = None, now + 2 * self._hold_ns

    def _gone(self, now: int) -> Iterator[Key]:
        """Retired series that were shown for long enough."""
        for key, each in self._series.items():
            if each.retired_ns is not None and now - each.retired_ns >= self._hold_ns:
                yield key
