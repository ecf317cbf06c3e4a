"""The page's table of recent short processes. The declaration of records defines its columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from exporter.records.encoding import listed
from exporter.records.fields import Field, Json, as_tuple, compiled, page_columns
from exporter.records.kinds import Form
from exporter.records.record import FIELDS, Record
from exporter.web.parts import Table


def columns(fields: Sequence[Field]) -> tuple[tuple[str, ...], Form]:
    """Return the titles, and a function that returns the cells from a record's values."""
    shown = page_columns(fields)
    return tuple(column.title for column in shown), compiled(fields, ((column.form, column.of) for column in shown), as_tuple)


_TITLES, _cells = columns(FIELDS)


def table(newest_first: Iterable[Record]) -> Table:
    """Return the table of these records."""
    rows = [_cells(*record) for record in newest_first]
    return Table("recent", "Recent short processes", "Newest first; times in UTC.", _TITLES, rows, tall=True, filtered=True)


def event(records: Sequence[Record], more: Json) -> str:
    """Return the data of an event of the stream: records, and their rows on the page, so that the script need not know the columns."""
    return listed(records, {"rows": [_cells(*record) for record in records]} | more)
