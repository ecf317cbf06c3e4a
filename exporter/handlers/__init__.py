"""The interface of handlers: code of the user's that gets the record of each short process. `docs/handlers.md` is the manual.

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

All handlers run one after another, in one process without privileges. One that raises loses that batch; one that takes longer than
`timeout_seconds` is killed and started anew, with everything else in that process.
"""

from __future__ import annotations

from exporter.model import Outcome, comm_text
from exporter.records.encoding import as_json
from exporter.records.record import Record

__all__ = ["OUTCOMES", "Handler", "Outcome", "Record", "as_json", "comm_text"]

OUTCOMES = {outcome: outcome for outcome in Outcome}
"""For handlers written when `record.outcome` was a number: `OUTCOMES[record.outcome]` still is how the process ended."""


class Handler:
    """Base of every handler. It is made once in the life of its process, with the `options` as keyword arguments."""

    def filter(self, record: Record) -> bool:  # noqa: ARG002
        """Whether `handle` is to get the record. Asked only for those that the `filter` of the configuration lets through."""
        return True

    def handle(self, batch: list[Record]) -> None:
        """Take at least one record and at most 500, in the order of their ends as far as that is known."""
        raise NotImplementedError

    def tick(self) -> None:
        """Do what time asks for; called about each second, with or without records."""

    def close(self) -> None:
        """Finish: the exporter stops. It waits some seconds for all handlers together."""
