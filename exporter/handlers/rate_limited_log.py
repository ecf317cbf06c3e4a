"""Log lines of what may go wrong each time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from exporter.process.log import fields

_INTERVAL_SECONDS = 60.0


class RateLimitedLog:
    """Logs the first one at once, then at most one a minute, with how many there were since."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._due = float("-inf")
        self._kept_back = 0

    def warn(self, message: str, exc_info: bool = False, **pairs: Any) -> None:
        now = self._clock()
        if now < self._due:
            self._kept_back += 1
            return
        if self._kept_back:
            pairs["not_logged_before"] = self._kept_back
        self._logger.warning(message, extra=fields(**pairs), exc_info=exc_info)
        self._due, self._kept_back = now + _INTERVAL_SECONDS, 0
