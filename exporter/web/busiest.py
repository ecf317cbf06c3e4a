"""`/api/v1/busiest`: the busiest keys of a dimension as JSON, the busiest first; also those without series, which metrics count as `other`.

Query, each at most once:
    by       a dimension: comm, parent
    sort     a measure of it, such as short_exits
    seconds  the last so many, at most 300; without it, since the exporter started
    limit    how many at most
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from typing import Any

from exporter.model.activity import WINDOW_SECONDS, Standing
from exporter.model.counts import ProcessCounts
from exporter.model.dimensions import Dimension, Measure
from exporter.web.api import BadQuery, number, parsed

MAX_LIMIT = 100
_LIMIT = 10
_PARAMETERS = ("by", "sort", "seconds", "limit")


def busiest(standings: Mapping[Dimension[Any], Standing[Any]], query: str) -> str:
    """Answer a query with a line of JSON, or raise `BadQuery`."""
    given = parsed(query, _PARAMETERS)
    dimension = _dimension(standings, given.get("by", "comm"))
    measures = {each.name: each for each in measured(dimension)}
    sort = given.get("sort", next(iter(measures)))
    if sort not in measures:
        raise BadQuery(f"sort is none of {', '.join(measures)}")
    seconds, limit = number(given, "seconds", WINDOW_SECONDS), number(given, "limit", MAX_LIMIT) or _LIMIT
    standing = standings[dimension]
    counts = standing.totals if seconds is None else standing.within(seconds)
    rows = [
        dict(zip(dimension.labels, dimension.labels_of(key), strict=True))
        | {name: each.whole(counts[key]) for name, each in measures.items()}
        | {"has_series": key in standing.tracked}
        for key in ranked(counts, measures[sort], limit)
    ]
    return json.dumps({"by": dimension.name, "sort": sort, "seconds": seconds, "limit": limit, "busiest": rows}) + "\n"


def measured(dimension: Dimension[Any]) -> Iterator[Measure]:
    """What is known of each key: what the page ranks by, then the other metrics, without histograms."""
    columns = (column for ranking in dimension.rankings for column in ranking.columns)
    yield from dict.fromkeys(each for each in (*columns, *dimension.measures) if not each.is_histogram)


def ranked(counts: Mapping[Any, ProcessCounts], measure: Measure, most: int) -> list[Any]:
    """The keys with the most of `measure`, none without any."""
    values = ((measure.whole(each), key) for key, each in counts.items())
    return [key for value, key in heapq.nlargest(most, values, key=lambda item: item[0]) if value]


def _dimension(standings: Mapping[Dimension[Any], Standing[Any]], name: str) -> Dimension[Any]:
    for each in standings:
        if each.name == name:
            return each
    raise BadQuery(f"by is none of {', '.join(each.name for each in standings)}")
