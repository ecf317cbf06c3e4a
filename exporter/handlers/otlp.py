"""The sink `otlp`: sends records as OpenTelemetry logs. A thread of its own waits for the receiver, so that nothing else has to."""

from __future__ import annotations

import logging
import random
import sys
import threading

from exporter.handlers import Record
from exporter.handlers.backlog import Backlog
from exporter.handlers.otlp_client import Answer, Client
from exporter.handlers.sink import Sink
from exporter.process.rate_limited_log import RateLimitedLog

logger = logging.getLogger(__name__)

_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 60.0
"""After the SDK has given up a batch, which takes up to `timeout_seconds`; doubled after each failure."""
_JITTER = 0.2
"""So that a fleet does not come back all at once."""
_SWITCH_SECONDS = 0.0005
"""How soon the main thread gets the interpreter while a batch is encoded, which takes 50 ms: handlers wait as long, 5 ms by default."""
_CLOSE_SECONDS = 5.0
"""Half of what all handlers have together."""


class Otlp(Sink):
    """Sends batches of at most 500 records, each about a second after its first record, one after another."""

    def __init__(self, endpoint: str, headers_file: str, ca_file: str, compression: str, timeout_seconds: float) -> None:
        super().__init__()
        self._client = Client(endpoint, headers_file, ca_file, compression, timeout_seconds)
        self._log = RateLimitedLog(logger)
        self._changed = threading.Condition()
        """Protects everything below. Never held while something is sent."""
        self._backlog = Backlog()
        self._sending = 0
        """Records of the batch that the thread sends."""
        self._accepted = self._lost = self._errors = 0
        """Not in the tally yet."""
        self._closing = self._closed = False
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
        self._thread.start()

    def handle(self, batch: list[Record]) -> None:
        """Keep the records; wake the thread when there are enough for a batch."""
        with self._changed:
            self._lost += self._backlog.add(batch)
            self._settle()

    def tick(self) -> None:
        """Send what there is."""
        with self._changed:
            self._lost += self._backlog.seal()
            self._settle()

    def close(self) -> None:
        """Send the rest, within 5 s, with one try for each batch. Records without an answer by then count as lost."""
        with self._changed:
            self._lost += self._backlog.seal()
            self._closing = True
            self._settle()
        self._thread.join(_CLOSE_SECONDS)
        with self._changed:
            self._closed = True
            self._lost += self._sending + self._backlog.clear()
            self._sending = 0
            self._settle()
        self._client.close()

    def _settle(self) -> None:
        self.tally.handled += self._accepted
        self.tally.lost += self._lost
        self.tally.errors += self._errors
        self.tally.pending = self._sending + len(self._backlog)
        self._accepted = self._lost = self._errors = 0
        self._changed.notify()

    def _run(self) -> None:
        while batch := self._next():
            if not self._send(batch):
                break

    def _next(self) -> list[Record]:
        """Wait for a batch. Returns none when the sink closes and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._backlog.ready or self._closing)
            batch = self._backlog.pop() if self._backlog.ready else []
            self._sending = len(batch)
            return batch

    def _send(self, batch: list[Record]) -> bool:
        """Send a batch until the receiver has answered. Returns whether to go on."""
        pause = _SHORTEST_PAUSE_SECONDS
        while True:
            answer = self._asked(batch)
            if answer.error:
                message = "otlp: the receiver cannot be reached; retrying" if answer.retry else "otlp: the receiver rejected records"
                self._log.warning(message, reason=answer.error, records=len(batch))
            with self._changed:
                if self._closed:
                    return False
                self._errors += answer.failed
                if not answer.retry:
                    self._accepted += len(batch) - answer.rejected
                    self._lost += answer.rejected
                    self._sending = 0
                    return True
                if self._closing:
                    return False
                seconds = max(pause * random.uniform(1 - _JITTER, 1 + _JITTER), answer.retry_after)
                self._changed.wait_for(lambda: self._closing, seconds)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _asked(self, batch: list[Record]) -> Answer:
        try:
            return self._client.send(batch)
        except Exception as error:  # the thread must not end
            logger.exception("otlp: cannot send a batch")
            return Answer(rejected=len(batch), error=str(error))
