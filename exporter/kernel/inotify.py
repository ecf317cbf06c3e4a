"""inotify(7), as much as wakes a loop: which of the watched folders something happened in, never how often."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

IN_OPEN = 0x20
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_ONLYDIR = 0x01000000

_EVENT = struct.Struct("iIII")
_QUEUE_BYTES = 1 << 16


class Inotify:
    """One inotify instance. Equal events in a row are merged by the kernel, and a full queue drops some: good for waking only."""

    def __init__(self) -> None:
        """Open an instance. Raises `OSError`: a user may have `fs.inotify.max_user_instances` of them."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def watch(self, path: str, mask: int) -> int:
        """Watch a file or folder and return the watch's number. Raises `OSError`."""
        return self._checked(self._libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(mask)))

    def unwatch(self, watch: int) -> None:
        """Remove a watch. Raises `OSError`."""
        self._checked(self._libc.inotify_rm_watch(self.fd, watch))

    def clear(self) -> None:
        """Forget what is queued, up to 64 KiB of it (what is left wakes again)."""
        self._read()

    def fired(self) -> set[int]:
        """Forget what is queued and return the numbers of the watches it was from."""
        data, at, watches = self._read(), 0, set()
        while at < len(data):
            watch, _, _, name_bytes = _EVENT.unpack_from(data, at)
            watches.add(watch)
            at += _EVENT.size + name_bytes
        return watches

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
    """Whether this kernel's procfs tells inotify of processes that come and go; adds a watch on `root`, and keeps it only if so.

    Tried with a child of our own. No kernel is known where it does: procfs makes its entries when they are looked up.
    """
    try:
        watch = inotify.watch(root, IN_CREATE | IN_DELETE)
    except OSError:
        return False
    with contextlib.suppress(OSError):
        os.posix_spawn("/nonexistent/child", ["child"], {})  # a real child, that fails to exec
    if watch in inotify.fired():
        return True
    inotify.unwatch(watch)
    return False
