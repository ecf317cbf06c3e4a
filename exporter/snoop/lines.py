"""Formats records as lines for people: the columns that the declaration of records defines, aligned by width in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from exporter.records.cells import padded
from exporter.records.fields import Field, Shown, compiled, snoop_columns
from exporter.records.kinds import Form
from exporter.records.record import FIELDS, Record


def table(fields: Sequence[Field], flags: Collection[str] = ()) -> tuple[str, Form]:
    """Return the header, and a function that returns a line, aligned with it, from a record's values. `flags` ask for more columns."""
    columns = columns_of(fields, flags)
    columns[-1] = columns[-1]._replace(width="")
    header = " ".join(f"{column.title:{column.width}}" for column in columns)
    forms = ((_filled(column), column.of) for column in columns)
    return header, compiled(fields, forms, lambda calls: f"f'{' '.join(f'{{{call}}}' for call in calls)}'")


def columns_of(fields: Sequence[Field], flags: Collection[str] = ()) -> list[Shown]:
    """Return the columns that are always shown, and those that `flags` ask for."""
    return [column for column in snoop_columns(fields) if not column.flag or column.flag in flags]


def _filled(column: Shown) -> Form:
    """Return the form of a column, padded to its width; the last one has none."""
    form, width = column.form, int(column.width[1:] or 0)
    if not width:
        return form
    return (lambda *values: form(*values).rjust(width)) if column.width[0] == ">" else (lambda *values: padded(form(*values), width))


def of_records(*flags: str) -> tuple[str, Callable[[Record], str]]:
    """Return the header, and a function that returns a record as a line aligned with it. `flags` ask for more columns."""
    header, form = table(FIELDS, flags)
    return header, lambda record: str(form(*record))


HEADER, line = of_records()
