"""`/api/v1/stream`: short processes as they exit, and the other values on the page, as server-sent events.

One thread makes the events for all clients, as long as there are any. An event has at most `MOST_RECORDS` records; further records are
only counted, in `left_out`. Events:
    recent    the last stored records, sent first; {"short_processes": [...], "rows": [...]}
    records   the processes that exited since the previous event; {"short_processes": [...], "rows": [...], "left_out": n}
    status    the numbers and tables of the page, when they have changed
Clients that fall too far behind are disconnected; a browser reconnects by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from exporter.process.rate_limited_log import RateLimitedLog
from exporter.records.encoding import encode
from exporter.records.fields import Json
from exporter.records.hub import Batch, Hub
from exporter.records.record import Record
from exporter.web import recent

logger = logging.getLogger(__name__)

MOST_STREAMS = 4
MOST_RECORDS = 100
"""Most records in one event."""
_RETRY = b"retry: 3000\n\n"
_HEARTBEAT = b":\n\n"
_INTERVAL_SECONDS = 0.25
_STATUS_EVERY = 4
_HEARTBEAT_SECONDS = 15.0
_BACKLOG = 32


class StreamFeed:
    """A consumer of the hub. It keeps the newest records until they are fetched."""

    name = "stream"
    live = True
    at_once = False

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Record] = deque(maxlen=MOST_RECORDS)
        self._left_out = self._dropped = 0

    def offer(self, batch: Batch) -> None:
        """Keep the newest records, count the others."""
        with self._lock:
            excess = max(0, len(self._waiting) + len(batch) - MOST_RECORDS)
            self._waiting.extend(batch[-MOST_RECORDS:])
            self._left_out += excess
            self._dropped += excess

    def pop_all(self) -> tuple[list[Record], int]:
        """Return the records since the last call, and the number of further records that were left out."""
        with self._lock:
            taken, left_out = list(self._waiting), self._left_out
            self._waiting.clear()
            self._left_out = 0
        return taken, left_out

    def dropped(self) -> dict[str, int]:
        """Return the number of records that came faster than events are sent."""
        with self._lock:
            return {"slow": self._dropped}


class Streams:
    """All clients of the stream. Thread-safe."""

    def __init__(self, hub: Hub, status: Callable[[], Json]) -> None:
        """`status` returns the content of a status event."""
        self._hub = hub
        self._status = status
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._followers = 0
        self._publishing = False
        self._events: deque[bytes] = deque(maxlen=_BACKLOG)
        self._made = 0
        """Number of events made so far. The last of them are in `_events`."""
        self._last_status = b""
        self._failures = RateLimitedLog(logger)

    def open(self) -> Follower | None:
        """Return a new stream, or None if there are `MOST_STREAMS` already."""
        with self._changed:
            if self._followers >= MOST_STREAMS or self._closing.is_set():
                return None
            if not self._publishing:
                self._begin()
            self._followers += 1
            first = _event("recent", recent.event(self._hub.newest(MOST_RECORDS)[::-1], {}))
            return Follower(self, self._made, _RETRY + first + self._last_status)

    def close(self) -> None:
        """Close all streams, and accept no more."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()

    def leave(self) -> None:
        """Release a place."""
        with self._changed:
            self._followers -= 1

    def after(self, position: int) -> tuple[bytes, int] | None:
        """Wait briefly for events after the first `position`. Returns them and the new position, or None to end the stream."""
        with self._changed:
            self._changed.wait_for(lambda: self._made > position or self._closing.is_set(), _INTERVAL_SECONDS)
            missing = self._made - position
            if self._closing.is_set() or missing > len(self._events):
                return None
            return b"".join(list(self._events)[len(self._events) - missing :]), self._made

    def _begin(self) -> None:
        thread = threading.Thread(target=self._publish, args=(feed := StreamFeed(),), name="stream", daemon=True)
        thread.start()  # it waits for the lock that we hold
        self._last_status = b""
        self._publishing = True
        self._hub.attach(feed)

    def _publish(self, feed: StreamFeed) -> None:
        turn = 0
        while self._wanted(feed):
            records, left_out = feed.pop_all()
            if records:
                self._send(_event("records", recent.event(records, {"left_out": left_out})))
            if turn % _STATUS_EVERY == 0:
                self._send_status()
            turn += 1
            self._closing.wait(_INTERVAL_SECONDS)

    def _wanted(self, feed: StreamFeed) -> bool:
        """Return whether a client is connected; if not, release the feed."""
        with self._changed:
            if self._followers and not self._closing.is_set():
                return True
            self._publishing = False
            self._hub.detach(feed)
            return False

    def _send(self, event: bytes) -> None:
        with self._changed:
            self._events.append(event)
            self._made += 1
            self._changed.notify_all()

    def _send_status(self) -> None:
        try:
            status = _event("status", encode(self._status()))
        except Exception:  # noqa: BLE001 - logged, with its traceback
            self._failures.exception("the status for the stream failed")
            return
        if status != self._last_status:
            self._last_status = status
            self._send(status)


class Follower:
    """The stream of one client: an iterator of bytes. Empty bytes mean that there is nothing new yet."""

    def __init__(self, streams: Streams, position: int, first: bytes) -> None:
        self._streams = streams
        self._position = position
        self._first = first
        self._sent = time.monotonic()

    def __iter__(self) -> Follower:
        return self

    def __next__(self) -> bytes:
        piece, self._first = self._first, b""
        if not piece:
            came = self._streams.after(self._position)
            if came is None:
                raise StopIteration
            piece, self._position = came
        now = time.monotonic()
        if not piece and now - self._sent >= _HEARTBEAT_SECONDS:
            piece = _HEARTBEAT
        if piece:
            self._sent = now
        return piece

    def close(self) -> None:
        """Release its place."""
        self._streams.leave()


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()
