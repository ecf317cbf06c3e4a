"""Records as attributes of OpenTelemetry, by its semantic conventions where these have a name for a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from exporter.records.fields import Field, compiled, keys_of
from exporter.records.record import FIELDS, Record

_MOST_TEXT = 4096
"""Characters of a text. Only the path of a cgroup can have more."""


def attributer(fields: Sequence[Field]) -> Callable[..., dict[str, Any]]:
    """Return a function that makes attributes of a record: the values of its JSON object that are known."""
    keys = [key for field in fields for key in keys_of(field)]
    names = [key.attribute for key in keys]
    values = compiled(fields, ((key.form.value, key.of) for key in keys), lambda calls: f"({', '.join(calls)},)")

    def attributes(record: Sequence[Any]) -> dict[str, Any]:
        pairs = zip(names, values(*record), strict=True)
        return {name: value[:_MOST_TEXT] if type(value) is str else value for name, value in pairs if value is not None}

    return attributes


_attributes = attributer(FIELDS)


def attributes(record: Record) -> dict[str, Any]:
    """Return a record's attributes; unknown values are left out."""
    return _attributes(record)
