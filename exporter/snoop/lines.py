"""Formats records as lines for people: the columns that the declaration of records defines, aligned by width in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache

from exporter.records import kinds
from exporter.records.cells import padded
from exporter.records.fields import Field, Shown, compiled, snoop_columns
from exporter.records.kinds import Form
from exporter.records.record import FIELDS, Record

_CACHED = 4096


def table(fields: Sequence[Field], flags: Collection[str] = ()) -> tuple[str, Form]:
    """Return the header, and a function that returns a line, aligned with it, from a record's values. `flags` ask for more columns."""
    columns = columns_of(fields, flags)
    columns[-1] = columns[-1]._replace(width="")
    header = " ".join(f"{column.title:{column.width}}" for column in columns)
    moments = {field.name for field in fields if field.kind is kinds.MOMENT}
    shown = [_padded(column) if column.width.startswith("<") and moments.isdisjoint(column.of) else column for column in columns]

    def line(calls: list[str]) -> str:
        cells = (f"{{{call}:{column.width}}}" for call, column in zip(calls, shown, strict=True))
        return f"f'{' '.join(cells)}'"

    return header, compiled(fields, ((column.form, column.of) for column in shown), line)


def columns_of(fields: Sequence[Field], flags: Collection[str] = ()) -> list[Shown]:
    """Return the columns that are always shown, and those that `flags` ask for."""
    return [column for column in snoop_columns(fields) if not column.flag or column.flag in flags]


def _padded(column: Shown) -> Shown:
    """Return a column of names with a form that pads them: some have wide characters. The same names come again and again."""
    form, width = column.form, int(column.width[1:])
    return column._replace(form=lru_cache(_CACHED)(lambda *values: padded(form(*values), width)), width="")


def of_records(*flags: str) -> tuple[str, Callable[[Record], str]]:
    """Return the header, and a function that returns a record as a line aligned with it. `flags` ask for more columns."""
    header, form = table(FIELDS, flags)
    return header, lambda record: str(form(*record))


HEADER, line = of_records()
