"""Tables of the page that rank the keys of each dimension."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exporter.model.counts import ProcessCounts
from exporter.model.dimensions import Dimension, Measure
from exporter.model.series import Row, Standing
from exporter.web.parts import Table, shares

_ROWS = 10


def tables(standings: Mapping[Dimension[Any], Standing]) -> Iterator[Table]:
    """Return the rankings of each dimension, then the busiest of its keys that have no series."""
    for dimension, standing in standings.items():
        for ranking in dimension.rankings:
            first = ranking.columns[0]
            rows = [row for row in _busiest(standing.named, first) if first.whole(row[1])]
            yield Table(
                f"{dimension.name}-{first.name}",
                ranking.title,
                "Since the exporter started.",
                _headings(dimension, ranking.columns),
                [_cells(row, ranking.columns) for row in rows],
                shares([first.whole(counts) for _, counts in rows]),
            )
        if dimension.rankings:
            columns = dimension.rankings[0].columns
            yield Table(
                f"{dimension.name}-overflowed",
                f"Busiest {dimension.plural} without their own series",
                "Metrics count them as <code>other</code>.",
                _headings(dimension, columns),
                [_cells(row, columns) for row in _busiest(standing.overflowed, columns[0])],
                optional=True,
            )


def _busiest(rows: Sequence[Row], first: Measure) -> list[Row]:
    return heapq.nlargest(_ROWS, rows, key=lambda row: first.whole(row[1]))


def _headings(dimension: Dimension[Any], columns: Sequence[Measure]) -> tuple[str, ...]:
    return (*(f"@{heading}" for heading in dimension.headings), *(f"#{measure.heading}" for measure in columns))


def _cells(row: Row, columns: Sequence[Measure]) -> tuple[str, ...]:
    labels, counts = row
    return (*labels, *(_number(measure, counts) for measure in columns))


def _number(measure: Measure, counts: ProcessCounts) -> str:
    value = measure.whole(counts)
    if measure.unit != "seconds":
        return f"{value:,}"
    return "< 0.001" if 0 < value < 0.001 else f"{value:,.3f}"
