"""The order of lines that are printed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter, itemgetter
from typing import Any

from exporter.records import kinds
from exporter.records.record import FIELDS, Record
from exporter.snoop.flags import SORTS

MOST = 10_000
"""Records that are kept: some MiB."""
_SPANS = {field.name for field in FIELDS if field.kind is kinds.SPAN}


class Sorted:
    """Keeps the first records of an order. Unknown values come last."""

    def __init__(self, column: str, most: int = MOST) -> None:
        """`column` is a key of `SORTS`. Durations are sorted with the longest first, other values with the smallest."""
        names = SORTS[column].of
        self.more = 0
        """Records that are not among the first `most`."""
        self._values: Callable[[Record], Any] = attrgetter(*names)
        self._single = len(names) == 1
        self._reverse = not _SPANS.isdisjoint(names)
        self._most = min(most, MOST)
        self._kept: list[tuple[Any, Record]] = []

    def add(self, batch: Iterable[Record]) -> None:
        """Add records."""
        self._kept += ((self._key(record), record) for record in batch)
        if len(self._kept) > 2 * self._most:
            self._sort()

    def records(self) -> list[Record]:
        """Return the first ones, in their order. Equal ones are in the order in which they were added."""
        self._sort()
        return [record for _, record in self._kept]

    def _key(self, record: Record) -> Any:
        values = (self._values(record),) if self._single else self._values(record)
        return [(self._reverse, value) if isinstance(value, int) or value else (not self._reverse,) for value in values]

    def _sort(self) -> None:
        self._kept.sort(key=itemgetter(0), reverse=self._reverse)
        self.more += max(0, len(self._kept) - self._most)
        del self._kept[self._most :]
