"""Converts records to JSON and back. The form is the same for the API, the stream, `snoop --json`, the JSONL sink and handlers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from exporter.records.event import EVENT_FIELDS, Event
from exporter.records.fields import Field, Json, compiled, keys_of
from exporter.records.kinds import Form
from exporter.records.record import FIELDS, Record

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)

R = TypeVar("R")


def encoders(fields: Sequence[Field]) -> tuple[Form, Form]:
    """Return two functions of a record's values: one returns JSON text, the other a dict."""
    keys = [key for field in fields for key in keys_of(field)]

    def as_text(calls: list[str]) -> str:
        pairs = (f'"{key.name}":{{{call}}}' for key, call in zip(keys, calls, strict=True))
        return f"f'{{{{{','.join(pairs)}}}}}'"

    def as_dict(calls: list[str]) -> str:
        return f"dict({', '.join(f'{key.name}={call}' for key, call in zip(keys, calls, strict=True))})"

    text = compiled(fields, ((key.form.text, key.of) for key in keys), as_text)
    return text, compiled(fields, ((key.form.value, key.of) for key in keys), as_dict)


def reader(record: type[R], fields: Sequence[Field]) -> Callable[[Json], R]:
    """Return a function that makes a record from JSON. It trusts nothing: it raises an error or returns a valid record.

    Fields that an older version does not send have their default.
    """
    make: Any = record
    defaults: Json = make._field_defaults

    keys = [(field, keys_of(field)[0].name) for field in fields]

    def value(field: Field, key: str, found: Json) -> object:
        if key not in found and field.name in defaults:
            return defaults[field.name]
        read = field.kind.read(found[key]) if field.read is None else field.read(found)
        if read is None and not field.optional:
            raise ValueError(f"{key} is null")
        return read

    def read(found: Json) -> R:
        made: R = make(*[value(field, key, found) for field, key in keys])
        return made

    return read


_line, _as_json = encoders(FIELDS)
_event_as_json = encoders(EVENT_FIELDS)[1]
read = reader(Record, FIELDS)


def line(record: Record) -> str:
    """Return a record as JSON text: the same as `as_json`, but faster."""
    text: str = _line(*record)
    return text


def as_json(record: Record | Event) -> Json:
    """Return a record or an event as a dict; unknown values are None."""
    value: Json = _event_as_json(*record) if isinstance(record, Event) else _as_json(*record)
    return value


def listed(records: Sequence[Record], more: Json) -> str:
    """Return a JSON object with the records and the keys of `more`."""
    return piece(records, more, 0, len(records))


def piece(records: Sequence[Record], more: Json, begin: int, end: int) -> str:
    """Return the part of `listed` with some of the records; that of the first one begins it, that of the last one ends it."""
    # One by one: encoding all of them at once would block all other threads
    lines = ",".join([line(record) for record in records[begin:end]])
    before = "," if begin else '{"short_processes":['
    after = f"],{encode(more)[1:]}" if end >= len(records) else ""
    return f"{before}{lines}{after}"


def encode(value: Json) -> str:
    """Return JSON text: one line of ASCII."""
    return _ENCODER.encode(value)
