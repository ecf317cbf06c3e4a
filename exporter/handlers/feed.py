"""The bounded way from the exporter into the handlers' child: a queue, and a pipe that is never waited for."""

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
"""In the queue: some 25,000 records that come one by one, 80,000 that come in batches. The pipe holds up to 1 MiB more."""
_OVERHEAD = 128
"""What a frame costs in memory besides its bytes."""

_PIPE_BYTES = 1 << 20


class Feed:
    """Not locked: its owner sees to it that one thread at a time is here."""

    def __init__(self) -> None:
        self.dropped: dict[str, int] = dict.fromkeys(("full", "down", "timeout", "crash", "malformed"), 0)
        self.sent = 0
        """Records of which the present child has got the first byte."""
        self._queue: deque[tuple[bytes, int]] = deque()
        self._bytes = 0
        self._rest: memoryview | None = None
        """What the pipe did not take of the frame last begun."""
        self._pipe = -1

    def __bool__(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._queue) or self._rest is not None

    @property
    def pipe(self) -> int:
        """The descriptor to write to, or -1 while nobody reads."""
        return self._pipe

    def connect(self) -> int:
        """Make a pipe, and return its reading end, which is to be closed here once the child has it."""
        reading, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        with contextlib.suppress(OSError):  # over the limit of this user: a smaller one does
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.sent = 0
        return reading

    def disconnect(self) -> None:
        """Close our end. A frame that is half written is lost with the child; those behind it wait for the next one."""
        if self._pipe >= 0:
            os.close(self._pipe)
        self._pipe = -1
        self._rest = None

    def add(self, batch: Sequence[Record]) -> None:
        """Take the records or drop them, whole frames at a time, and write what the pipe takes."""
        for at in range(0, len(batch), MOST_RECORDS):
            part = batch[at : at + MOST_RECORDS]
            try:
                data = frame(part)
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
        """Write what the pipe takes without waiting."""
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
        except BrokenPipeError:  # the child exited; our owner will see that
            self.disconnect()

    def drop_queue(self, reason: str) -> None:
        """Drop the waiting frames."""
        self.dropped[reason] += sum(records for _, records in self._queue)
        self._queue.clear()
        self._bytes = 0

    def wait(self, wake: int, seconds: float) -> bool:
        """Until the pipe takes more or breaks, somebody wrote to `wake`, or the time is over. Whether the pipe is whole."""
        pipe = self._pipe
        if pipe < 0:
            return False
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        poller.register(pipe, select.POLLOUT if self else 0)
        return not any(fd == pipe and events & ~select.POLLOUT for fd, events in poller.poll(seconds * 1000))
