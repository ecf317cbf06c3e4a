"""Passes records and events from the exporter to the handlers' child: a bounded queue, and a pipe that is written without waiting."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from exporter.handlers.wire import MOST_RECORDS, Content, count_kinds, frame
from exporter.model.events import EventKind
from exporter.records.event import Event
from exporter.records.record import Record

MOST_BYTES = 8 << 20
"""Size of the queue: about 25,000 records that come one by one, or 80,000 in batches. The pipe holds up to 1 MiB more."""
_MOST_WITH_EVENTS = MOST_BYTES // 2
"""Events are added only up to this size, so that a storm of them leaves room for records."""
_OVERHEAD = 128
"""Memory of a frame besides its bytes."""

_PIPE_BYTES = 1 << 20


class _Frame(NamedTuple):
    data: bytes
    records: int
    events: Sequence[int] = ()
    """Number of events, by `EventKind.position`."""


class Feed:
    """The queue and the pipe. Not thread-safe: the caller holds a lock."""

    def __init__(self) -> None:
        self.dropped: dict[str, int] = dict.fromkeys(("full", "down", "timeout", "crash", "malformed"), 0)
        self.sent = 0
        """Records whose frame was at least partly written to the present child."""
        self.events_sent = [0] * len(EventKind)
        """The same for events, by `EventKind.position`."""
        self.events_dropped: dict[tuple[EventKind, str], int] = {}
        self._queue: deque[_Frame] = deque()
        self._bytes = 0
        self._rest: memoryview | None = None
        """Rest of the last frame, which the pipe had no room for."""
        self._pipe = -1

    def __bool__(self) -> bool:
        """Return whether anything waits to be written."""
        return bool(self._queue) or self._rest is not None

    @property
    def pipe(self) -> int:
        """The descriptor to write to, or -1 without a child."""
        return self._pipe

    def connect(self) -> int:
        """Make a pipe. Returns its reading end, which the caller closes when the child has it."""
        reading, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        with contextlib.suppress(OSError):  # beyond this user's limit; a smaller pipe works too
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.forget_sent()
        return reading

    def forget_sent(self) -> None:
        """Start to count for another child."""
        self.sent, self.events_sent = 0, [0] * len(EventKind)

    def disconnect(self) -> None:
        """Close our end. A partly written frame is lost with the child; the frames after it wait for the next child."""
        if self._pipe >= 0:
            os.close(self._pipe)
        self._pipe = -1
        self._rest = None

    def add(self, batch: Sequence[Record], *, at_once: bool = False) -> None:
        """Queue the records in frames, or drop whole frames; then write what the pipe has room for."""
        for at in range(0, len(batch), MOST_RECORDS):
            part = batch[at : at + MOST_RECORDS]
            try:
                data = frame(part, Content.AT_ONCE if at_once else Content.RECORDS)
            except ValueError:
                self.dropped["malformed"] += len(part)
                continue
            if not self._queued(_Frame(data, len(part)), MOST_BYTES):
                self.dropped[self._no_room] += len(part)
        self.flush()

    def add_events(self, batch: Sequence[Event]) -> None:
        """The same for events."""
        for at in range(0, len(batch), MOST_RECORDS):
            part = batch[at : at + MOST_RECORDS]
            each = _Frame(frame(part, Content.EVENTS), 0, count_kinds(part))
            if not self._queued(each, _MOST_WITH_EVENTS):
                self.drop_events(each.events, self._no_room)
        self.flush()

    def drop_events(self, counts: Iterable[int], reason: str) -> None:
        """Count dropped events, by `EventKind.position`."""
        for kind, n in zip(EventKind, counts, strict=False):
            self.events_dropped[kind, reason] = self.events_dropped.get((kind, reason), 0) + n

    @property
    def _no_room(self) -> str:
        return "full" if self._pipe >= 0 else "down"

    def _queued(self, each: _Frame, most: int) -> bool:
        size = len(each.data) + _OVERHEAD
        if self._bytes + size > most:
            return False
        self._queue.append(each)
        self._bytes += size
        return True

    def flush(self) -> None:
        """Write what the pipe has room for, without waiting."""
        try:
            while self._pipe >= 0 and self:
                if self._rest is None:
                    each = self._queue.popleft()
                    self._bytes -= len(each.data) + _OVERHEAD
                    self.sent += each.records
                    for position, n in enumerate(each.events):
                        self.events_sent[position] += n
                    self._rest = memoryview(each.data)
                self._rest = self._rest[os.write(self._pipe, self._rest) :] or None
        except BlockingIOError:
            pass
        except BrokenPipeError:  # the child exited; the caller notices that
            self.disconnect()

    def drop_queue(self, reason: str) -> None:
        """Drop and count the waiting frames."""
        for each in self._queue:
            self.dropped[reason] += each.records
            self.drop_events(each.events, reason)
        self._queue.clear()
        self._bytes = 0

    def wait(self, wake: int, seconds: float) -> bool:
        """Wait until the pipe has room or breaks, `wake` is readable, or time is up. Returns whether the pipe works."""
        pipe = self._pipe
        if pipe < 0:
            return False
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        poller.register(pipe, select.POLLOUT if self else 0)
        return not any(fd == pipe and events & ~select.POLLOUT for fd, events in poller.poll(seconds * 1000))
