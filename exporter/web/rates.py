"""Rates of a counter, over the last seconds and minutes."""

from __future__ import annotations

import threading
from collections import deque

KEPT_SECONDS = 300
NOW_SECONDS = 5
_APART_SECONDS = 0.9
"""A bit less than the second between samples, which is not exact."""


class Rates:
    """Keeps at most one sample per second, for five minutes. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: deque[tuple[float, int]] = deque(maxlen=round(KEPT_SECONDS / _APART_SECONDS) + 1)

    def note(self, now: float, total: int) -> None:
        """Note the total at `now`, in seconds of the monotonic clock."""
        with self._lock:
            if not self._samples or now - self._samples[-1][0] >= _APART_SECONDS:
                self._samples.append((now, total))

    def per_second(self, seconds: float) -> float | None:
        """Return the rate over `seconds` before the last sample, or over the known part of them; None without samples."""
        with self._lock:
            if len(self._samples) < 2:
                return None
            last, total = self._samples[-1]
            since, before = next(sample for sample in self._samples if sample[0] >= last - seconds - _APART_SECONDS / 2)
            if since == last:  # no other sample in that time: take the one before
                since, before = self._samples[-2]
            return (total - before) / (last - since)
