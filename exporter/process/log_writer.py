"""Writes log lines in a thread, so that nothing else waits for whoever reads them.

Standard error may be a pipe or terminal that nobody reads. Lines wait in a bounded queue; further lines are dropped and counted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque

MOST_BYTES = 256 * 1024
"""Lines that may wait."""
_LAST_SECONDS = 0.5


class LogWriter(logging.Handler):
    """Writes to a descriptor. It never raises, and blocks only its own thread."""

    def __init__(self, fd: int, formatter: logging.Formatter | None) -> None:
        """Start the thread. Raises `RuntimeError` if there can be no more threads."""
        super().__init__()
        self.setFormatter(formatter)
        self.dropped = 0
        """Lines that were dropped so far."""
        self._fd = fd
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._reported = 0
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line, or count it as dropped."""
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
        except Exception:  # noqa: BLE001 - what cannot be formatted is no reason to fail
            self.handleError(record)
            return
        with self._changed:
            if self._bytes + len(line) > MOST_BYTES:
                self.dropped += 1
                return
            self._waiting.append(line)
            self._bytes += len(line)
            self._changed.notify_all()

    def finish(self) -> None:
        """Wait briefly for the last lines."""
        with self._changed:
            self._changed.wait_for(lambda: not self._bytes, _LAST_SECONDS)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                line = self._waiting.popleft()
            self._write(line)
            with self._changed:
                self._bytes -= len(line)
                new = self.dropped - self._reported
                self._reported = self.dropped
                self._changed.notify_all()
            if new:
                self._write(self._report(new))

    def _report(self, lines: int) -> bytes:
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, "log lines were dropped", None, None)
        record.fields = {"lines": lines}
        return f"{self.format(record)}\n".encode()

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # the reader is gone
            while line:
                line = line[os.write(self._fd, line) :]
