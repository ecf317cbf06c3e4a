"""Sums of the printed records, by comm."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from exporter.model import OTHER, Outcome
from exporter.records.cells import padded
from exporter.records.record import Record
from exporter.records.shown import span, word

_ROWS = 20
_MOST_COMMS = 4096
"""Most comms kept apart: any user can choose a comm."""
_ERROR, _SIGNAL = Outcome.ERROR, Outcome.SIGNAL  # quicker than attributes of the enum


@dataclass(slots=True)
class Sum:
    count: int = 0
    errors: int = 0
    signals: int = 0
    runtime_ns: int = 0
    cpu_ns: int | None = 0
    """None if that of any process is unknown."""

    def add(self, record: Record) -> None:
        """Add a record."""
        self.count += 1
        self.errors += record.outcome is _ERROR
        self.signals += record.outcome is _SIGNAL
        self.runtime_ns += record.runtime_ns
        self.cpu_ns = None if self.cpu_ns is None or record.cpu_ns is None else self.cpu_ns + record.cpu_ns


class Summary:
    def __init__(self) -> None:
        self.count = 0
        """Records so far."""
        self._by_comm: dict[bytes, Sum] = {}
        self._other = Sum()

    def add(self, batch: Sequence[Record]) -> None:
        """Add records."""
        self.count += len(batch)
        for record in batch:
            mine = self._by_comm.get(record.comm)
            if mine is None:
                mine = self._other
                if len(self._by_comm) < _MOST_COMMS:
                    mine = self._by_comm[record.comm] = Sum()
            mine.add(record)

    def lines(self, dropped: int) -> list[str]:
        """Return the lines of the summary: the most frequent comms, then the total."""
        first = heapq.nlargest(_ROWS, self._by_comm.items(), key=lambda each: each[1].count)
        more = len(self._by_comm) - len(first)
        rows = [_row(word(comm), each) for comm, each in first]
        if more:
            rows.append(f"... and {more} more{f', and {OTHER}: {self._other.count} processes' if self._other.count else ''}")
        header = f"{'COMM':<15} {'COUNT':>8} {'ERRORS':>8} {'SIGNALS':>8} {'RUNTIME':>13} {'CPU':>13}"
        return ["", header, *rows, _row("total", self._total()), f"dropped: {dropped}"]

    def _total(self) -> Sum:
        every = (*self._by_comm.values(), self._other)
        cpu_ns = [each.cpu_ns for each in every]
        return Sum(
            sum(each.count for each in every),
            sum(each.errors for each in every),
            sum(each.signals for each in every),
            sum(each.runtime_ns for each in every),
            None if None in cpu_ns else sum(filter(None, cpu_ns)),
        )


def _row(title: str, each: Sum) -> str:
    return (
        f"{padded(title, 15)} {each.count:>8} {each.errors:>8} {each.signals:>8} "
        f"{span(each.runtime_ns):>13} {span(each.cpu_ns if each.count else None):>13}"
    )
