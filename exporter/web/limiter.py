"""The `rate_limit` of exporter-toolkit: a bucket of `burst` tokens that gains one each `interval`. Each request takes one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Limiter:
    def __init__(self, interval_seconds: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval_seconds
        self._burst = float(burst)
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens, self._counted = self._burst, clock()

    def allows(self) -> bool:
        """Take a token. Returns whether there was one."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._counted) / self._interval)
            self._counted = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True
