"""Which tests may run beside which: of those that watch the whole machine, those with storms alone, the others side by side."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

_QUEUE, _ROOM = (Path(__file__).parent / name for name in ("__init__.py", "turns.py"))
"""Files to lock, whatever they hold."""


class Turns:
    """Of one process that runs tests."""

    def __init__(self) -> None:
        self._room: IO[str] | None = None
        self._alone = False

    def take(self, *, alone: bool) -> None:
        """Wait for the others, and have them wait. Who wants to be alone is not overtaken by those who come later."""
        if self._room is not None and self._alone == alone:
            return
        self.leave()
        with _QUEUE.open() as queue:
            fcntl.flock(queue, fcntl.LOCK_EX)
            self._room = _ROOM.open()
            fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        self._alone = alone

    def leave(self) -> None:
        """Let others be alone. Unlocks explicitly: a child that a test left may hold the file open."""
        if self._room is not None:
            fcntl.flock(self._room, fcntl.LOCK_UN)
            self._room.close()
            self._room = None
