"""Records that wait to be sent: compressed, so that an outage of minutes fits in a few MiB."""

from __future__ import annotations

import pickle
import zlib
from collections import deque

from exporter.handlers import Record

BATCH = 500
"""Records that are sent together."""
_MOST_BYTES = 16 << 20
"""About 400,000 usual records, which take 30 to 40 bytes each."""
_OVERHEAD = 64
"""Memory of a batch besides its bytes."""
_LEVEL = 1
"""Compresses a record in 2 µs. Higher levels take longer and save nothing."""


class Backlog:
    """Batches, the oldest first. Not thread-safe."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._open: list[Record] = []
        """Less than a batch, not compressed yet."""
        self._sealed: deque[tuple[bytes, int]] = deque()
        self._bytes = self._records = 0

    def __len__(self) -> int:
        """Return the number of records."""
        return self._records + len(self._open)

    @property
    def ready(self) -> bool:
        """Return whether there is a batch to send."""
        return bool(self._sealed)

    def add(self, records: list[Record]) -> int:
        """Add records. Returns how many of the oldest were dropped to make room."""
        self._open += records
        dropped = 0
        while len(self._open) >= BATCH:
            dropped += self.seal()
        return dropped

    def seal(self) -> int:
        """Make a batch of what there is, even if it is small. Returns how many of the oldest records were dropped to make room."""
        batch, self._open = self._open[:BATCH], self._open[BATCH:]
        if not batch:
            return 0
        data = zlib.compress(pickle.dumps([tuple(record) for record in batch], pickle.HIGHEST_PROTOCOL), _LEVEL)
        self._sealed.append((data, len(batch)))
        self._records += len(batch)
        self._bytes += len(data) + _OVERHEAD
        dropped = 0
        while self._bytes > self._most_bytes:
            dropped += self._remove()[1]
        return dropped

    def pop(self) -> list[Record]:
        """Remove and return the oldest batch."""
        data, _ = self._remove()
        return list(map(Record._make, pickle.loads(zlib.decompress(data))))  # noqa: S301 - from `seal`

    def clear(self) -> int:
        """Drop everything. Returns the number of records."""
        dropped = len(self)
        self._open.clear()
        self._sealed.clear()
        self._bytes = self._records = 0
        return dropped

    def _remove(self) -> tuple[bytes, int]:
        data, records = self._sealed.popleft()
        self._records -= records
        self._bytes -= len(data) + _OVERHEAD
        return data, records
