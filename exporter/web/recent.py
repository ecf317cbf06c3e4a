"""The page's table of recent short processes: its columns are those that the declaration of a record names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from exporter.records.encoding import listed
from exporter.records.fields import Field, Json, as_tuple, compiled, page_columns
from exporter.records.kinds import Form
from exporter.records.record import FIELDS, Record
from exporter.web.parts import Table


def columns(fields: Sequence[Field]) -> tuple[tuple[str, ...], Form]:
    """Return the titles, and a function of a record's values that returns its cells."""
    shown = page_columns(fields)
    return tuple(column.title for column in shown), compiled(fields, ((column.form, column.of) for column in shown), as_tuple)


_TITLES, _cells = columns(FIELDS)


def table(newest_first: Iterable[Record]) -> Table:
    """Return the table."""
    rows = [_cells(*record) for record in newest_first]
    return Table("recent", "Recent short processes", "Newest first; times in UTC.", _TITLES, rows, tall=True)


def event(records: Sequence[Record], more: Json) -> str:
    """Return what an event of the stream carries: records, and the page's row of each, so that its script need not know the columns."""
    return listed(records, {"rows": [_cells(*record) for record in records]} | more)
