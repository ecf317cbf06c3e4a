"""Adds user and owner to records. Sources know only their numbers and paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from exporter.records.record import Record

Who = Callable[[int | None, bytes], tuple[str, ...]]
"""Returns the values of `ADDED` for a user ID and the path of a cgroup. It must neither block nor raise: a name that is not known yet is
left empty."""

ADDED = ("user", "owner_kind", "unit", "namespace", "pod", "container")
_BEGIN = Record._fields.index(ADDED[0])
_END = _BEGIN + len(ADDED)


def attributed(batch: Sequence[Record], who: Who) -> list[Record]:
    """Return the records with the fields `ADDED`."""
    known: dict[tuple[int | None, bytes], tuple[str, ...]] = {}
    found = []
    for record in batch:
        key = record.uid, record.cgroup
        values = known.get(key)
        if values is None:
            values = known[key] = who(*key)
        found.append(Record._make(record[:_BEGIN] + values + record[_END:]))
    return found
