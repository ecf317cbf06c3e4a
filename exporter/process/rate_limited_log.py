"""Limits the rate of log lines that clients, handlers or shortages can cause repeatedly."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from exporter.process.log import fields

_INTERVAL_SECONDS = 60.0


class RateLimitedLog:
    """Logs the first line at once, then at most one per minute, with the number of suppressed lines. Thread-safe."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._lock = threading.Lock()
        self._due = float("-inf")
        self._left_out = 0

    def warning(self, message: str, *, exc_info: bool = False, **pairs: object) -> None:
        """Log a warning with fields; `exc_info` adds the current exception."""
        self._log(logging.WARNING, message, exc_info, pairs)

    def exception(self, message: str, **pairs: object) -> None:
        """Log an error with fields and the current exception."""
        self._log(logging.ERROR, message, True, pairs)

    def _log(self, level: int, message: str, exc_info: bool, pairs: dict[str, object]) -> None:
        now = self._clock()
        with self._lock:
            if now < self._due:
                self._left_out += 1
                return
            left_out, self._left_out = self._left_out, 0
            self._due = now + _INTERVAL_SECONDS
        if left_out:
            pairs["not_logged_before"] = left_out
        self._logger.log(level, message, extra=fields(**pairs), exc_info=exc_info)
