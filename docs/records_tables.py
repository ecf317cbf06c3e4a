"""The tables of a record's fields, from their declaration in exporter/records/record.py."""

from __future__ import annotations

from collections.abc import Sequence

from bench import results
from docs.marks import code, measured_on, table
from docs.metrics_tables import meanings, modes_that_tell
from exporter.handlers.sqlite_table import column
from exporter.model.events import EventKind
from exporter.records.event import EVENT_FIELDS
from exporter.records.fields import Field, keys_of, snoop_columns
from exporter.records.record import FIELDS


def handlers(fields: Sequence[Field] = FIELDS) -> dict[str, str]:
    """Return the blocks of docs/handlers.md."""
    keys = ((code(key.name), key.form.about, modes_that_tell([field.fact]), key.about) for field in fields for key in keys_of(field))
    rows = ((code(field.name), _type(field), code(column(field)), field.about) for field in fields)
    named = (
        (code(key.attribute), code(key.name)) for field in fields for key in keys_of(field) if not key.attribute.startswith("shortproc.")
    )
    events = ((code(field.name), _type(field), ", ".join(code(key.name) for key in keys_of(field)), field.about) for field in EVENT_FIELDS)
    return {
        "event_kinds": table(("kind", "event"), ((code(kind), about) for kind, about in meanings(EventKind))),
        "event_costs": _event_costs(),
        "event_fields": table(("field", "Python", "JSON", "meaning"), events),
        "keys": table(("key", "value", "modes", "meaning"), keys),
        "attributes": table(("attribute", "key of `jsonl`"), named),
        "fields": table(("field", "Python", "SQLite", "meaning"), rows),
    }


def _event_costs() -> str:
    result = results.read("events")
    execs = f"With a handler that subscribes to `exec`, and {result['rate']:,} execs per second"
    lost = f"{result['dropped']:,} of {result['events']:,} events were dropped"
    costs = f"the serving process took {result['percent']} % of a core, {result['more_percent']} % more than without events"
    return f"{execs}, {lost}, and {costs}. {measured_on(result, 'events')}\n"


def snoop(fields: Sequence[Field] = FIELDS) -> dict[str, str]:
    """Return the block of docs/snoop.md."""
    return {"columns": table(("column", "meaning"), ((each.title, each.about) for each in snoop_columns(fields)))}


def _type(field: Field) -> str:
    return f"{code(field.type)}{field.kind.about and f', {field.kind.about}'}"
