"""The interface of handlers: user code that gets the record of each short process, and events. `docs/handlers.md` is the manual.

A module in a configured directory defines a class; the configuration names it as `module:name`:

    from exporter.handlers import Handler, Record, comm_text

    class SlowBuilds(Handler):
        def __init__(self, threshold_seconds: float = 1.0) -> None:     # `options` of the configuration
            self.threshold_ns = threshold_seconds * 1e9

        def filter(self, record: Record) -> bool:
            return record.runtime_ns > self.threshold_ns

        def handle(self, batch: list[Record]) -> None:
            for record in batch:
                print(comm_text(record.comm), record.runtime_ns)

All handlers run one after another, in one process without privileges. A handler that raises loses that batch. If one takes longer than
`timeout_seconds`, the whole process is killed and restarted.
"""

from __future__ import annotations

from typing import Any

from exporter.model import Outcome, comm_text
from exporter.model.events import EventKind
from exporter.records.encoding import as_json
from exporter.records.event import Event
from exporter.records.record import Record

__all__ = ["OUTCOMES", "Event", "EventKind", "Handler", "Outcome", "Record", "as_json", "comm_text"]

OUTCOMES = {outcome: outcome for outcome in Outcome}
"""For handlers written when `record.outcome` was a number: `OUTCOMES[record.outcome]` is still the outcome."""


class Handler:
    """Base of all handlers. One instance is made when the process starts, with the `options` as keyword arguments."""

    registry: Any = None
    """A `prometheus_client.CollectorRegistry`; its counters, gauges and histograms appear on `/metrics`."""

    def filter(self, record: Record) -> bool:  # noqa: ARG002
        """Return whether `handle` gets the record. Called only for records that match the `filter` of the configuration."""
        return True

    def handle(self, batch: list[Record]) -> None:
        """Process 1 to 500 records, in the order of their exits as far as that is known."""
        raise NotImplementedError

    def handle_events(self, batch: list[Event]) -> None:
        """Process 1 to 500 events, if the configuration has `events` for this handler. With `records: false` it needs no `handle`."""
        raise NotImplementedError

    def tick(self) -> None:
        """Do periodic work. Called about once a second, with or without records."""

    def close(self) -> None:
        """Finish, because the exporter stops. All handlers together have a few seconds."""
