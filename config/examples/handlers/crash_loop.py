"""Example of a handler: logs a line when processes of one name fail again and again, as under a supervisor that restarts them at once."""

from __future__ import annotations

import logging

from exporter.handlers import Handler, Outcome, Record, comm_text

logger = logging.getLogger(__name__)

MOST_NAMES = 1000


class CrashLoop(Handler):
    """Tells of `exits` failures of one comm under one parent within `within_seconds`."""

    def __init__(self, exits: int = 10, within_seconds: float = 60.0) -> None:
        self.exits = exits
        self.within_ns = round(within_seconds * 1e9)
        self.failures: dict[tuple[bytes, bytes], list[int]] = {}

    def filter(self, record: Record) -> bool:
        return record.outcome in (Outcome.ERROR, Outcome.SIGNAL)

    def handle(self, batch: list[Record]) -> None:
        for record in batch:
            if len(self.failures) >= MOST_NAMES:  # names are chosen by whoever runs the processes: everything has a bound
                self.failures.clear()
            ends = self.failures.setdefault((record.comm, record.parent_comm), [])
            ends.append(record.ended_ns)
            del ends[: -self.exits]
            if len(ends) == self.exits and ends[-1] - ends[0] <= self.within_ns:
                seconds = (ends[-1] - ends[0]) / 1e9
                logger.warning("%s fails in a loop, under %s: %d times in %.1f s", *self.names(record), self.exits, seconds)
                ends.clear()

    @staticmethod
    def names(record: Record) -> tuple[str, str]:
        """Escaped, for a log line."""
        return comm_text(record.comm), comm_text(record.parent_comm)
