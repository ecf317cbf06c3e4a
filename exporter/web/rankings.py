"""Tables of the page that rank the keys of each dimension: in the last minutes, and since the exporter started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exporter.model.activity import WINDOW_SECONDS, Standing
from exporter.model.counts import ProcessCounts
from exporter.model.dimensions import Dimension, Measure
from exporter.web.busiest import ranked
from exporter.web.parts import Table, shares

_ROWS = 10


def tables(standings: Mapping[Dimension[Any], Standing[Any]]) -> Iterator[Table]:
    """Return the rankings of each dimension. All keys are ranked, also those without series."""
    for dimension, standing in standings.items():
        periods = (
            ("recent", f"in the last {WINDOW_SECONDS // 60} minutes", standing.within(WINDOW_SECONDS) if dimension.rankings else {}),
            ("total", "since the exporter started", standing.totals),
        )
        for ranking in dimension.rankings:
            for kind, when, counts in periods:
                first = ranking.columns[0]
                busiest = ranked(counts, first, _ROWS)
                yield Table(
                    f"{dimension.name}-{first.name}-{kind}",
                    f"{ranking.title} {when}",
                    "Where the series is <code>other</code>, the metrics count under that name.",
                    (*(f"@{each}" for each in dimension.headings), *(f"#{each.heading}" for each in ranking.columns), "Series"),
                    [
                        (*dimension.labels_of(key), *_numbers(ranking.columns, counts[key]), "own" if key in standing.tracked else "other")
                        for key in busiest
                    ],
                    shares([first.whole(counts[key]) for key in busiest]),
                )


def _numbers(columns: Sequence[Measure], counts: ProcessCounts) -> Iterator[str]:
    for measure in columns:
        value = measure.whole(counts)
        if measure.unit != "seconds":
            yield f"{value:,}"
        else:
            yield "< 0.001" if 0 < value < 0.001 else f"{value:,.3f}"
