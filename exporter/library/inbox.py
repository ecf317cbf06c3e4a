"""Records and events on their way from the thread that observes to the program that wants them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from exporter.model.events import EventKind
from exporter.records.event import Event
from exporter.records.record import Record

T = TypeVar("T")

_MOST_WAITING = 1 << 14
"""Records or events, a few MiB."""


class Inbox(Generic[T]):
    """Holds items until they are popped, up to a bound, and keeps the most recent ones."""

    name = "library"

    def __init__(self, matches: Callable[[T], bool] | None = None, keep: int = 0) -> None:
        """Accept only the items that `matches` accepts. Keep the last `keep` of them for `recent`."""
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable when there are items, or no more will come."""
        self._matches = matches
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[T] = deque()
        self._recent: deque[T] = deque(maxlen=keep)
        self._closed = False

    def offer(self, batch: Sequence[T]) -> None:
        """Accept the items that fit, count the others."""
        batch = self._wanted(batch)
        with self._lock:
            room = _MOST_WAITING - len(self._waiting)
            self._waiting.extend(batch[:room])
            self._recent.extend(batch)
            self._drop(batch[room:])
            self._tell()

    def put(self, batch: Sequence[T]) -> bool:
        """Wait until there is room for the items, and accept them. Returns False if the inbox was closed meanwhile."""
        batch = self._wanted(batch)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._waiting) + len(batch) <= _MOST_WAITING)
            if not self._closed:
                self._waiting.extend(batch)
                self._recent.extend(batch)
                self._tell()
            return not self._closed

    def pop_all(self) -> tuple[list[T], bool]:
        """Return all waiting items, and whether more may come."""
        with self._changed:
            if not self._closed:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self.fd)
            taken = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
            return taken, not self._closed

    def recent(self, most: int | None = None) -> list[T]:
        """Return a copy of the last items, or at most so many of them; the oldest first."""
        with self._lock:
            kept = list(self._recent)
        return kept if most is None else kept[max(0, len(kept) - most) :]

    def close(self) -> None:
        """No more items will come. Those that wait can still be popped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._tell()

    def release(self) -> None:
        """Close the descriptor. Nothing else may be called then but `recent` and what tells of dropped items."""
        with self._lock:
            fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _drop(self, batch: Sequence[T]) -> None:
        """Count items that came faster than they were popped."""
        raise NotImplementedError

    def _wanted(self, batch: Sequence[T]) -> Sequence[T]:
        return batch if self._matches is None else [each for each in batch if self._matches(each)]

    def _tell(self) -> None:
        if self.fd >= 0:
            os.eventfd_write(self.fd, 1)


class RecordInbox(Inbox[Record]):
    """A consumer of the hub."""

    live = True
    at_once = False
    _dropped = 0

    def dropped(self) -> dict[str, int]:
        """Return the number of records that came faster than they were popped."""
        with self._lock:
            return {"slow": self._dropped}

    def _drop(self, batch: Sequence[Record]) -> None:
        self._dropped += len(batch)


class EventInbox(Inbox[Event]):
    """A consumer of events."""

    def __init__(self, matches: Callable[[Event], bool]) -> None:
        super().__init__(matches)
        self._dropped: Counter[EventKind] = Counter()

    def offer_events(self, batch: Sequence[Event]) -> None:
        self.offer(batch)

    def dropped_events(self) -> dict[tuple[EventKind, str], int]:
        with self._lock:
            return {(kind, "slow"): n for kind, n in self._dropped.items()}

    def _drop(self, batch: Sequence[Event]) -> None:
        self._dropped.update(event.kind for event in batch)
