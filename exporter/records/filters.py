"""Compiles a filter of the configuration, of snoop or of a query into one function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from exporter.config.globs import matcher
from exporter.config.options import Filter
from exporter.model import NS, Outcome, comm_text
from exporter.records.record import Record

GLOB_KEYS = ("comm", "parent", "exe", "spawner", "user", "unit", "namespace", "pod", "container", "cgroup")
"""Keys of a filter that are globs."""
_FIELDS = {"parent": "parent_comm"}
"""Fields of a record that have another name than the key."""
_CACHED = 4096


def compiled(wanted: Filter, fields: Sequence[str] = Record._fields) -> Callable[[Any], bool] | None:
    """Return a function that returns whether a record matches all keys that are set; None if none is set.

    `fields` are those of the tuple, if it is not a record.
    """

    def part(field: str, matches: Callable[[Any], bool]) -> Callable[[Any], bool]:
        value = itemgetter(fields.index(field))
        return lambda record: matches(value(record))

    parts = [part(_FIELDS.get(key, key), _matcher(globs)) for key in GLOB_KEYS if (globs := getattr(wanted, key))]
    parts += [part(key, frozenset(values).__contains__) for key in ("uid", "pid", "ppid") if (values := getattr(wanted, key))]
    if wanted.outcome:
        parts.append(part("outcome", frozenset(map(Outcome, wanted.outcome)).__contains__))
    default = Filter()
    if (wanted.min_runtime_seconds, wanted.max_runtime_seconds) != (default.min_runtime_seconds, default.max_runtime_seconds):
        least, most = round(wanted.min_runtime_seconds * NS), round(wanted.max_runtime_seconds * NS)
        parts.append(part("runtime_ns", lambda runtime_ns: runtime_ns is not None and least <= runtime_ns <= most))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else lambda record: all(each(record) for each in parts)


def _matcher(globs: Sequence[str]) -> Callable[[bytes | str], bool]:
    """Return a function that returns whether one of the globs matches a name in the form that is shown (`comm_text`)."""
    matches = matcher(globs)
    return lru_cache(_CACHED)(lambda name: matches(name if isinstance(name, str) else comm_text(name)))
