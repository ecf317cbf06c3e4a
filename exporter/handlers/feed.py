"""Passes records from the exporter to the handlers' child: a bounded queue, and a pipe that is written without waiting."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from collections import deque
from collections.abc import Sequence

from exporter.handlers.wire import MOST_RECORDS, frame
from exporter.records.record import Record

MOST_BYTES = 8 << 20
"""Size of the queue: about 25,000 records that come one by one, or 80,000 in batches. The pipe holds up to 1 MiB more."""
_OVERHEAD = 128
"""Memory of a frame besides its bytes."""

_PIPE_BYTES = 1 << 20


class Feed:
    """The queue and the pipe. Not thread-safe: the caller holds a lock."""

    def __init__(self) -> None:
        self.dropped: dict[str, int] = dict.fromkeys(("full", "down", "timeout", "crash", "malformed"), 0)
        self.sent = 0
        """Records whose frame was at least partly written to the present child."""
        self._queue: deque[tuple[bytes, int]] = deque()
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
        self.sent = 0
        return reading

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
                data = frame(part, at_once=at_once)
            except ValueError:
                self.dropped["malformed"] += len(part)
                continue
            if self._bytes + len(data) + _OVERHEAD > MOST_BYTES:
                self.dropped["full" if self._pipe >= 0 else "down"] += len(part)
                continue
            self._queue.append((data, len(part)))
            self._bytes += len(data) + _OVERHEAD
        self.flush()

    def flush(self) -> None:
        """Write what the pipe has room for, without waiting."""
        try:
            while self._pipe >= 0 and self:
                if self._rest is None:
                    data, records = self._queue.popleft()
                    self._bytes -= len(data) + _OVERHEAD
                    self.sent += records
                    self._rest = memoryview(data)
                self._rest = self._rest[os.write(self._pipe, self._rest) :] or None
        except BlockingIOError:
            pass
        except BrokenPipeError:  # the child exited; the caller notices that
            self.disconnect()

    def drop_queue(self, reason: str) -> None:
        """Drop and count the waiting frames."""
        self.dropped[reason] += sum(records for _, records in self._queue)
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
