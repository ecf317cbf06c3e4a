"""Which tests may run beside which: of those that need the whole machine, one alone; the others side by side."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_QUEUE, _ROOM = (Path(__file__).parent / name for name in ("__init__.py", "turns.py"))
"""Files to lock, whatever they hold."""


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Wait for the others, and have them wait. Who wants to be alone is not overtaken by those who come later."""
    with _QUEUE.open() as queue, _ROOM.open() as room:
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(queue, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)  # a child that a test left may hold the file open
