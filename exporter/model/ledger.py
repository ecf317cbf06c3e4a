"""Totals that only grow, over any switch of sources."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exporter.model.activity import Standing
from exporter.model.counts import Breakdown, Counts
from exporter.model.dimensions import Dimension, Tracked
from exporter.model.series import CappedSeries, Clock, Row

_NOTHING: Breakdown[Any] = Breakdown()


@dataclass(frozen=True, slots=True)
class View:
    """What there is to show, as of one moment: the grown totals, and the rows of each dimension, `other` last."""

    counts: Counts
    rows: dict[Dimension[Any], list[Row]]
    created_ns: int
    """Unix time at which the totals were 0."""


class Ledger:
    """What all sources ever saw. Not safe for threads: the supervisor holds one lock around it and its source."""

    def __init__(
        self, caps: Mapping[Dimension[Any], int], hold_ns: int, now: Clock = time.monotonic_ns, unix_now: Clock = time.time_ns
    ) -> None:
        """Give at most `caps` keys of each dimension series, shown at 0 for their first `hold_ns`."""
        self._series = {dimension: CappedSeries(dimension, cap, hold_ns, now, unix_now) for dimension, cap in caps.items()}
        self._totals = Counts()
        self._created_ns = unix_now()

    def tracked(self) -> Tracked:
        """The keys that have series."""
        return {dimension: series.keys() for dimension, series in self._series.items()}

    def standings(self) -> dict[Dimension[Any], Standing[Any]]:
        """How busy keys were, as of the last drain."""
        return {dimension: series.standing() for dimension, series in self._series.items()}

    @property
    def records_dropped(self) -> int:
        """Records that sources dropped, as of the last drain."""
        return self._totals.records_dropped

    def absorb(self, counts: Counts) -> None:
        """Take over what a source drained."""
        self._totals.add_totals(counts)
        for dimension, series in self._series.items():
            series.absorb(counts.by.get(dimension, _NOTHING))

    def view(self, counts: Counts) -> View:
        """What there is to show if a source has `counts` that are not drained yet. Changes nothing."""
        grown = self._totals.copy()
        grown.add_totals(counts)
        rows = {dimension: series.view(counts.by.get(dimension, _NOTHING)) for dimension, series in self._series.items()}
        return View(grown, rows, self._created_ns)
