"""How fast a counter grows: now, and over the last minutes."""

from __future__ import annotations

import threading
from collections import deque

KEPT_SECONDS = 300
NOW_SECONDS = 5
_APART_SECONDS = 0.9
"""Less than the second at which samples come, which is never exact."""


class Rates:
    """A sample a second at most, of the last five minutes. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: deque[tuple[float, int]] = deque(maxlen=round(KEPT_SECONDS / _APART_SECONDS) + 1)

    def note(self, now: float, total: int) -> None:
        """Remember the total at a moment of the monotonic clock."""
        with self._lock:
            if not self._samples or now - self._samples[-1][0] >= _APART_SECONDS:
                self._samples.append((now, total))

    def per_second(self, seconds: float) -> float | None:
        """Return the rate over so many seconds before the last sample, or what is known of them; None where that is nothing."""
        with self._lock:
            if len(self._samples) < 2:
                return None
            last, total = self._samples[-1]
            since, before = next(sample for sample in self._samples if sample[0] >= last - seconds - _APART_SECONDS / 2)
            if since == last:  # the one before it is long ago
                since, before = self._samples[-2]
            return (total - before) / (last - since)
