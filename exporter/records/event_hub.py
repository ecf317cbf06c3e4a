"""Passes events from the source to those who subscribed. Each has a bound of its own; what is beyond it is dropped and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from exporter.model.events import EventKind
from exporter.records.event import Event


class EventConsumer(Protocol):
    name: str
    """A label value."""

    def offer_events(self, batch: Sequence[Event]) -> None:
        """Accept the events, or drop and count them. Called from the reader's thread; must neither block nor raise."""

    def dropped_events(self) -> Mapping[tuple[EventKind, str], int]:
        """Return the number of dropped events since the start, by kind and reason."""


class EventHub:
    """Passes every batch to each consumer. Consumers stay."""

    def __init__(self) -> None:
        self._publishing = threading.Lock()
        self._consumers: tuple[EventConsumer, ...] = ()
        self.on_change: Callable[[], None] = lambda: None
        """Called when there is a new consumer."""

    @property
    def wanted(self) -> bool:
        """Whether there is a consumer."""
        return bool(self._consumers)

    def attach(self, consumer: EventConsumer) -> None:
        """Pass every batch from now on to `consumer`."""
        self._consumers = (*self._consumers, consumer)
        self.on_change()

    def publish(self, batch: Sequence[Event]) -> None:
        """Pass on a batch. During a switch of modes, two threads call it."""
        with self._publishing:
            for consumer in self._consumers:
                consumer.offer_events(batch)

    def dropped(self) -> dict[tuple[EventKind, str, str], int]:
        """Return the number of dropped events since the start, by kind, consumer and reason."""
        return {(kind, each.name, reason): n for each in self._consumers for (kind, reason), n in each.dropped_events().items()}
