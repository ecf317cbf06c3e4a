"""What sinks have in common: records wait here until they are written, a failure is counted and tried again, and the wait has a bound."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from pathlib import Path

from exporter.handlers import Handler, Record
from exporter.handlers.trust import refusal
from exporter.handlers.wire import HandlerTally
from exporter.process.rate_limited_log import RateLimitedLog

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0
_FULL = 20_000
"""So many are written at once, before the second is over."""
_MOST_PENDING = 50_000
_MODE = 0o640


class Sink(Handler):
    """Writes what is pending about each second, for good or not at all."""

    failures: tuple[type[Exception], ...] = (OSError,)
    """What may go wrong with a disk."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.tally = HandlerTally()
        self.pending: list[Record] = []
        self._retry_at = 0.0
        self._log = RateLimitedLog(logger)

    def store(self) -> None:
        """Write what is pending, and call `stored` for what is safe. Raises one of `failures`."""
        raise NotImplementedError

    def tend(self) -> None:
        """Rotate, delete what is too old. Raises one of `failures`."""
        raise NotImplementedError

    def release(self) -> None:
        """Close whatever is open."""
        raise NotImplementedError

    def stored(self, n: int) -> None:
        """The first `n` of those pending are in the file."""
        del self.pending[:n]
        self.tally.handled += n
        self.tally.pending = len(self.pending)

    def handle(self, batch: list[Record]) -> None:
        """Keep the records, and write them when there are many."""
        self.pending += batch
        self.tally.pending = len(self.pending)
        if len(self.pending) >= _FULL and time.monotonic() >= self._retry_at:
            self._work()
        if (excess := len(self.pending) - _MOST_PENDING) > 0:
            self._lose(excess)

    def tick(self) -> None:
        """Write, and tend the files; after a failure, once it is time to try again."""
        if time.monotonic() >= self._retry_at:
            self._work()

    def close(self) -> None:
        """Write for the last time."""
        self._work()
        self._lose(len(self.pending))
        self.release()

    def _work(self) -> None:
        try:
            if self.pending:
                self.store()
            self.tend()
        except self.failures as failure:
            self.tally.errors += 1
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            self._log.warning("a sink can't write; it tries again", path=self.path, error=failure, pending=len(self.pending))
            self.release()

    def _lose(self, n: int) -> None:
        """Drop the oldest."""
        del self.pending[:n]
        self.tally.lost += n
        self.tally.pending = len(self.pending)


def open_folder(path: Path) -> int:
    """Open the directory of a sink's file, for use as `dir_fd`. Raises `OSError` where others can write there."""
    if reason := refusal(str(path.parent), (os.geteuid(),)):
        raise PermissionError(errno.EACCES, reason)
    return os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_file(name: str, folder: int, flags: int = 0) -> int:
    """Open or make a sink's file, which must be a plain one of ours and no link. Raises `OSError`."""
    # O_NONBLOCK: a fifo of that name can't make us wait
    flags |= os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(name, flags, _MODE, dir_fd=folder)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise PermissionError(errno.EACCES, "not a plain file with one name", name)
        if stat.S_IMODE(found.st_mode) != _MODE:
            os.fchmod(fd, _MODE)
    except OSError:
        os.close(fd)
        raise
    return fd


def is_same(fd: int, name: str, folder: int) -> bool:
    """Whether an open file still has this name; logrotate and people rename."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False
