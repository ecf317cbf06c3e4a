"""Records of the past, from the file of a sink."""

from __future__ import annotations

import threading
from itertools import islice

from exporter.config.options import Filter
from exporter.library.history import History, Unreadable
from exporter.library.processes import Records

_PIECE = 500


class Reading(Records):
    """Reads a history as fast as its records are popped."""

    def __init__(self, history: History, wanted: Filter) -> None:
        super().__init__(wanted, keep=0)
        self._history = history
        self._thread = threading.Thread(target=self._run, name="reading", daemon=True)

    @property
    def description(self) -> str:
        return ""

    def _open(self) -> None:
        self._thread.start()

    def _close(self) -> None:
        self._inbox.close()
        self._thread.join()

    def _missing(self) -> int:
        return 0

    def _run(self) -> None:
        records = iter(self._history)
        try:
            while (batch := list(islice(records, _PIECE))) and self._inbox.put(batch):
                pass
        except Unreadable as reason:
            self.failure = str(reason)
        finally:
            records.close()  # the files, in this thread: SQLite insists
            self._inbox.close()
