"""inotify(7): tells which watches had an event, or which names came and went, but not how many events there were."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

IN_OPEN = 0x20
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x01000000

_EVENT = struct.Struct("iIII")
_QUEUE_BYTES = 1 << 16


class Event(NamedTuple):
    """One event of a watch. An overflow of the queue has watch -1."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """An inotify instance. The kernel merges equal events and drops events if the queue is full, so they cannot be counted."""

    def __init__(self) -> None:
        """Open an instance. Raises `OSError`, e.g. if the user has `fs.inotify.max_user_instances` already."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def watch(self, path: str, mask: int) -> int:
        """Watch a file or directory, and return the number of the watch. Raises `OSError`."""
        return self._checked(self._libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(mask)))

    def unwatch(self, watch: int) -> None:
        """Remove a watch. Raises `OSError`."""
        self._checked(self._libc.inotify_rm_watch(self.fd, watch))

    def clear(self) -> None:
        """Discard queued events, at most 64 KiB; the rest stays readable."""
        self._read()

    def fired(self) -> set[int]:
        """Read queued events, and return the numbers of their watches."""
        return {event.watch for event in self.events()}

    def events(self) -> Iterator[Event]:
        """Read queued events, at most 64 KiB of them. Raises `OSError`."""
        data, at = self._read(), 0
        while at < len(data):
            watch, mask, _, name_bytes = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            yield Event(watch, mask, data[at : at + name_bytes].rstrip(b"\0"))
            at += name_bytes

    def close(self) -> None:
        """Close the instance with all its watches."""
        os.close(self.fd)

    def _read(self) -> bytes:
        try:
            return os.read(self.fd, _QUEUE_BYTES)
        except BlockingIOError:
            return b""

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result


def proc_reports(inotify: Inotify, root: str) -> bool:
    """Return whether procfs creates inotify events for new processes. If so, the watch on `root` is kept.

    This starts a child to find out. No kernel is known that does: procfs creates its entries when they are looked up.
    """
    try:
        watch = inotify.watch(root, IN_CREATE | IN_DELETE)
    except OSError:
        return False
    with contextlib.suppress(OSError):
        os.posix_spawn("/nonexistent/child", ["child"], {})  # forks a child, whose exec fails
    if watch in inotify.fired():
        return True
    inotify.unwatch(watch)
    return False
