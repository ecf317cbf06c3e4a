"""The bases of sinks: what all count, and for files how records wait until they are written, up to a bound."""

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
"""Number of records that are written without waiting for the next tick."""
_MOST_PENDING = 50_000
_MODE = 0o640


class Sink(Handler):
    """A handler that is part of the exporter. It counts its records itself."""

    def __init__(self) -> None:
        self.tally = HandlerTally()
        """Changed by the main thread only, so that the exporter never reads half of a change."""


class FileSink(Sink):
    """Writes pending records about once a second: each batch completely or not at all."""

    failures: tuple[type[Exception], ...] = (OSError,)
    """Exceptions after which writing is retried."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)
        self.pending: list[Record] = []
        self._retry_at = 0.0
        self._log = RateLimitedLog(logger)

    def store(self) -> None:
        """Write pending records; call `stored` for those that are safe. Raises one of `failures`."""
        raise NotImplementedError

    def maintain(self) -> None:
        """Rotate files, delete old records. Raises one of `failures`."""
        raise NotImplementedError

    def release(self) -> None:
        """Close all open files."""
        raise NotImplementedError

    def stored(self, n: int) -> None:
        """Note that the first `n` pending records are in the file."""
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
        """Write, and maintain the files; after a failure, only when it is time to retry."""
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
            self.maintain()
        except self.failures as failure:
            self.tally.errors += 1
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            self._log.warning("a sink cannot write; retrying", path=self.path, error=failure, pending=len(self.pending))
            self.release()

    def _lose(self, n: int) -> None:
        """Drop and count the `n` oldest records."""
        del self.pending[:n]
        self.tally.lost += n
        self.tally.pending = len(self.pending)


def open_folder(path: Path) -> int:
    """Open the directory of a sink's file, for use as `dir_fd`. Raises `OSError` if other users can write there."""
    if reason := refusal(str(path.parent), (os.geteuid(),)):
        raise PermissionError(errno.EACCES, reason)
    return os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_file(name: str, folder: int, flags: int = 0) -> int:
    """Open or create a sink's file. It must be a regular file with one link, not a symbolic link. Raises `OSError`."""
    # O_NONBLOCK: opening a fifo of that name does not block
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
    """Return whether an open file still has this name. logrotate and people rename files."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False
