"""Records of the past, from the file of a sink."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import islice

from exporter.library.history import History, Unreadable
from exporter.snoop.printer import Inbox

_PIECE = 500


class Reading:
    """Reads a history in a thread of its own, as fast as its records are printed."""

    def __init__(self, history: History, inbox: Inbox, tell: Callable[[str], None], wake: Callable[[], None]) -> None:
        """`wake` is called when it has read everything, or there is a `failure`."""
        self.failure: str | None = None
        self.finished = False
        self.dropped = 0
        self._history = history
        self._inbox = inbox
        self._tell = tell
        self._wake = wake
        self._thread = threading.Thread(target=self._run, name="reading", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def tick(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Stop reading."""
        self._inbox.close()
        self._thread.join()
        if self._history.damaged:
            self._tell(f"{self._history.damaged} lines or rows of the file are no records")

    def _run(self) -> None:
        records = iter(self._history)
        try:
            while (batch := list(islice(records, _PIECE))) and self._inbox.put(batch):
                pass
            self.finished = True
        except Unreadable as reason:
            self.failure = str(reason)
        finally:
            records.close()  # the files, in this thread: SQLite insists
            self._wake()
