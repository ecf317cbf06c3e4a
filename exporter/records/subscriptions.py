"""What handlers and programs subscribe to, and what of it the kernel can filter."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from exporter.config.options import Config, Filter
from exporter.model.events import AllowedKey, EventKey, EventKind, WantedEvents
from exporter.records.event import Event
from exporter.records.filters import compiled

_MOST_KEYS = 128
"""Of each `EventKey`: all are on the command line of the loader, and in one map. Filters with more are left to user space."""
_NOT_LITERAL = re.compile(r"[*?[\\]|[^ -~]")
"""In a glob: what makes it more than a name, or is shown in another form than the kernel has it."""
_UNKNOWN_KEYS = ("spawner", "user", "unit", "namespace", "pod", "container", "cgroup")


class Subscription(NamedTuple):
    kinds: Sequence[EventKind]
    filter: Filter

    def matches(self) -> Callable[[Event], bool]:
        """Return a function that returns whether an event is wanted."""
        kinds, filtered = frozenset(self.kinds), compiled(self.filter, Event._fields)
        if filtered is None:
            return lambda event: event.kind in kinds
        return lambda event: event.kind in kinds and filtered(event)


def of_handlers(config: Config) -> list[Subscription]:
    """Return the subscriptions of the configured handlers."""
    return [Subscription(tuple(map(EventKind, each.events)), each.filter) for each in config.handlers if each.events]


def unknown_keys(wanted: Filter) -> list[str]:
    """Return the keys of a filter that are set, and that no event has."""
    return [key for key in _UNKNOWN_KEYS if getattr(wanted, key)]


def wanted_events(subscriptions: Sequence[Subscription]) -> WantedEvents:
    """Return what the programs have to send. For each kind, the kernel filters by a key if all subscribers to that kind do."""
    by_kind = {kind: [each.filter for each in subscriptions if kind in each.kinds] for kind in EventKind}
    filtered_by = [0] * len(EventKind)
    keys: list[AllowedKey] = []
    for key in EventKey:
        kinds = [kind for kind, filters in by_kind.items() if filters and all(_is_told(key, each) for each in filters)]
        allowed: dict[int | str, int] = {}
        for kind in kinds:
            for value in (value for each in by_kind[kind] for value in _values(key, each)):
                allowed[value] = allowed.get(value, 0) | 1 << kind.position
        if len(allowed) <= _MOST_KEYS:
            keys += (AllowedKey(key, value, bits) for value, bits in allowed.items())
            for kind in kinds:
                filtered_by[kind.position] |= 1 << key
    return WantedEvents(tuple(kind for kind, filters in by_kind.items() if filters), tuple(filtered_by), tuple(keys))


def _values(key: EventKey, wanted: Filter) -> tuple[int | str, ...]:
    values: tuple[int | str, ...] = getattr(wanted, key.name.lower())
    return values


def _is_told(key: EventKey, wanted: Filter) -> bool:
    """Return whether a filter lists the values that it allows."""
    values = _values(key, wanted)
    return bool(values) and not any(isinstance(each, str) and _NOT_LITERAL.search(each) for each in values)
