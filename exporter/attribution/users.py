"""Names of users by number, from a file as passwd(5) alone: other sources of names (NSS) may block, for example on a network."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable

from exporter.model import comm_text

_CHECK_SECONDS = 1.0
_MAX_BYTES = 1 << 20
_MAX_USERS = 10_000
_MAX_NAME = 64


class Users:
    """Names of users. The file is read again when it changes; it is checked at most once a second."""

    def __init__(self, path: str, now: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._now = now
        self._names: dict[int, str] = {}
        self._version: tuple[int, int, int] | None = None
        self._check_at = float("-inf")

    def name(self, uid: int | None) -> str:
        """Return the name of a user, the number if it has none, or `unknown` for None."""
        if uid is None:
            return "unknown"
        now = self._now()
        if now >= self._check_at:
            self._check_at = now + _CHECK_SECONDS
            self._refresh()
        return self._names.get(uid) or str(uid)

    def _refresh(self) -> None:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:  # keep the names: it may be missing only while it is replaced
            return
        try:
            found = os.fstat(fd)
            version = (found.st_mtime_ns, found.st_size, found.st_ino)
            if version != self._version and stat.S_ISREG(found.st_mode):
                self._names = _parsed(os.read(fd, min(found.st_size, _MAX_BYTES)))
                self._version = version
        except OSError:
            return
        finally:
            os.close(fd)


def _parsed(content: bytes) -> dict[int, str]:
    names: dict[int, str] = {}
    for line in content.split(b"\n"):
        name, *rest = line.split(b":", 3)
        if len(rest) < 2 or not rest[1].isdigit() or len(rest[1]) > 10 or not 0 < len(name) <= _MAX_NAME or name.isdigit():
            continue  # passwd(5), and no name that looks like the number of another user
        names.setdefault(int(rest[1]), comm_text(name))
        if len(names) >= _MAX_USERS:
            break
    return names
