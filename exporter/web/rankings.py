"""Panels of the page that rank the keys of each dimension: in the last minute, in the last 5 minutes, and since the exporter started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from exporter.model.activity import WINDOW_SECONDS, Standing
from exporter.model.counts import ProcessCounts
from exporter.model.dimensions import COMM, FAILED_EXITS, SHORT_EXITS, Dimension, Measure, Ranking
from exporter.web import queries
from exporter.web.busiest import ranked
from exporter.web.parts import Table, panel, shares

_ROWS = 20
_SERIES = "Where the series is <code>other</code>, the metrics count under that name."


class Period(NamedTuple):
    key: str
    name: str
    seconds: int | None
    """None: since the exporter started."""


PERIODS = (
    Period("60", "last minute", 60),
    Period(f"{WINDOW_SECONDS}", f"last {WINDOW_SECONDS // 60} minutes", WINDOW_SECONDS),
    Period("start", "since the exporter started", None),
)
"""The first is shown at first."""


class First(NamedTuple):
    """Who is first in the last minute."""

    key: str
    heading: str
    name: str
    note: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A ranking: a table for each period."""

    dimension: Dimension[Any]
    ranking: Ranking
    tables: tuple[Table, ...]

    def section(self) -> str:
        """Return it as HTML."""
        measure = self.ranking.columns[0]
        tables = (table.scrolling(f"in-{period.key}") for period, table in zip(PERIODS, self.tables, strict=True))
        return panel(self.ranking.title, *tables, queries.of_ranking(self.dimension, measure).details(_SERIES))

    def first(self) -> First | None:
        """Return who is first in it, if the page shows that on top."""
        measure, columns = self.ranking.columns[0], len(self.dimension.headings)
        if measure is not SHORT_EXITS and (self.dimension, measure) != (COMM, FAILED_EXITS):
            return None
        how = "Most failing" if measure is FAILED_EXITS else "Busiest"
        row = self.tables[0].rows[0] if self.tables[0].rows else ("-", *("0" for _ in range(columns)))
        heading, note = f"{how} {self.dimension.noun}", f"{row[columns]} {measure.heading.lower()}"
        return First(f"first-{self.dimension.name}-{measure.name}", heading, row[0], note)


def panels(standings: Mapping[Dimension[Any], Standing[Any]]) -> list[Panel]:
    """Return the rankings of each dimension, those by CPU last. All keys are ranked, also those without series."""
    found = [
        Panel(dimension, ranking, tuple(_tables(dimension, ranking, standing, counts)))
        for dimension, standing in standings.items()
        if dimension.rankings
        for counts in [[standing.totals if period.seconds is None else standing.within(period.seconds) for period in PERIODS]]
        for ranking in dimension.rankings
    ]
    return sorted(found, key=lambda each: each.ranking.columns[0] not in (SHORT_EXITS, FAILED_EXITS))


def _tables(
    dimension: Dimension[Any], ranking: Ranking, standing: Standing[Any], counts_of: Sequence[Mapping[Any, ProcessCounts]]
) -> Iterator[Table]:
    measure = ranking.columns[0]
    for period, counts in zip(PERIODS, counts_of, strict=True):
        busiest = ranked(counts, measure, _ROWS)
        yield Table(
            f"{dimension.name}-{measure.name}-{period.key}",
            f"{ranking.title}, {period.name}",
            f"{period.name[0].upper()}{period.name[1:]}",
            (*(f"@{each}" for each in dimension.headings), *(f"#{each.heading}" for each in ranking.columns), "Series"),
            [
                (
                    *dimension.cells_of(dimension.labels_of(key)),
                    *_numbers(ranking.columns, counts[key]),
                    "own" if key in standing.tracked else "other",
                )
                for key in busiest
            ],
            shares([measure.whole(counts[key]) for key in busiest]),
            tall=True,
            filtered=True,
        )


def _numbers(columns: Sequence[Measure], counts: ProcessCounts) -> Iterator[str]:
    for measure in columns:
        value = measure.whole(counts)
        if measure.unit != "seconds":
            yield f"{value:,}"
        else:
            yield "< 0.001" if 0 < value < 0.001 else f"{value:,.3f}"
