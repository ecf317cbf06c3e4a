"""Compiles a filter of the configuration, of snoop or of a query into one function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from exporter.config.globs import matcher
from exporter.config.options import Filter
from exporter.model import NS, Outcome, comm_text
from exporter.records.record import Record

_CACHED = 4096


def compiled(wanted: Filter) -> Callable[[Record], bool] | None:
    """Return a function that returns whether a record matches all keys that are set; None if none is set."""
    parts: list[Callable[[Record], bool]] = []
    if wanted.comm:
        comm = _matcher(wanted.comm)
        parts.append(lambda record: comm(record.comm))
    if wanted.parent:
        parent = _matcher(wanted.parent)
        parts.append(lambda record: parent(record.parent_comm))
    if wanted.exe:
        exe = _matcher(wanted.exe)
        parts.append(lambda record: exe(record.exe))
    if wanted.uid:
        uids = frozenset(wanted.uid)
        parts.append(lambda record: record.uid in uids)
    if wanted.outcome:
        outcomes = frozenset(map(Outcome, wanted.outcome))
        parts.append(lambda record: record.outcome in outcomes)
    default = Filter()
    if (wanted.min_runtime_seconds, wanted.max_runtime_seconds) != (default.min_runtime_seconds, default.max_runtime_seconds):
        least, most = round(wanted.min_runtime_seconds * NS), round(wanted.max_runtime_seconds * NS)
        parts.append(lambda record: least <= record.runtime_ns <= most)
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else lambda record: all(part(record) for part in parts)


def _matcher(globs: Sequence[str]) -> Callable[[bytes], bool]:
    """Return a function that returns whether one of the globs matches a name in the form that is shown (`comm_text`)."""
    matches = matcher(globs)
    return lru_cache(_CACHED)(lambda name: matches(comm_text(name)))
