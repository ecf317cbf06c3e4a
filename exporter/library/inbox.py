"""Records on their way from the thread that observes to the program that wants them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable

from exporter.records.hub import Batch
from exporter.records.record import Record

_MOST_WAITING = 1 << 14
"""Records, a few MiB."""


class Inbox:
    """Holds records until they are popped, up to a bound, and keeps the most recent ones. A consumer of the hub."""

    name = "library"
    live = True
    at_once = False

    def __init__(self, matches: Callable[[Record], bool] | None = None, keep: int = 0) -> None:
        """Accept only the records that `matches` accepts. Keep the last `keep` of them for `recent`."""
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable when there are records, or no more will come."""
        self._matches = matches
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[Record] = deque()
        self._recent: deque[Record] = deque(maxlen=keep)
        self._dropped = 0
        self._closed = False

    def offer(self, batch: Batch) -> None:
        """Accept the records that fit, count the others."""
        batch = self._wanted(batch)
        with self._lock:
            room = _MOST_WAITING - len(self._waiting)
            self._waiting.extend(batch[:room])
            self._recent.extend(batch)
            self._dropped += max(0, len(batch) - room)
            self._tell()

    def put(self, batch: Batch) -> bool:
        """Wait until there is room for the records, and accept them. Returns False if the inbox was closed meanwhile."""
        batch = self._wanted(batch)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._waiting) + len(batch) <= _MOST_WAITING)
            if not self._closed:
                self._waiting.extend(batch)
                self._recent.extend(batch)
                self._tell()
            return not self._closed

    def pop_all(self) -> tuple[list[Record], bool]:
        """Return all waiting records, and whether more may come."""
        with self._changed:
            if not self._closed:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self.fd)
            taken = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
            return taken, not self._closed

    def recent(self, most: int | None = None) -> list[Record]:
        """Return a copy of the last records, or at most so many of them; the oldest first."""
        with self._lock:
            kept = list(self._recent)
        return kept if most is None else kept[max(0, len(kept) - most) :]

    def close(self) -> None:
        """No more records will come. Those that wait can still be popped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._tell()

    def dropped(self) -> dict[str, int]:
        """Return the number of records that came faster than they were popped."""
        with self._lock:
            return {"slow": self._dropped}

    def release(self) -> None:
        """Close the descriptor. Nothing else may be called then but `recent` and `dropped`."""
        with self._lock:
            fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _wanted(self, batch: Batch) -> Batch:
        return batch if self._matches is None else [record for record in batch if self._matches(record)]

    def _tell(self) -> None:
        if self.fd >= 0:
            os.eventfd_write(self.fd, 1)
