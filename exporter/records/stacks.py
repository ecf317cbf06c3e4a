"""Who starts what: short processes summed by their stack, the names of all ancestors and their own.

Sums are made of records, so they are a sample where records were dropped. Memory is bounded whatever names arrive.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from operator import add
from typing import NamedTuple

from exporter.model import NS, OTHER
from exporter.model.activity import WINDOW_SECONDS
from exporter.model.origins import UNKNOWN
from exporter.records.record import Record

Stack = tuple[bytes, ...]
"""Command names from process 1 to the process itself."""

_SLICE_NS = 15 * NS
_MOST_IN_SLICE = 512
OTHERS = OTHER.encode()
"""Stands for stacks, or branches of a tree, that are not kept apart."""


class Sums(NamedTuple):
    """Of processes."""

    processes: int = 0
    runtime_ns: int = 0
    cpu_ns: int = 0
    """Of those whose CPU is known."""
    cpu_unknown: int = 0
    """Processes whose CPU is not known."""

    def plus(self, other: Sums) -> Sums:
        """Return both together."""
        return Sums(*map(add, self, other))


NOTHING = Sums()


class Stacks:
    """Sums by stack, at most `most` of them. Not thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: dict[tuple[Stack, bytes], list[int]] = {}

    def add(self, batch: Iterable[Record]) -> None:
        """Add records."""
        rows = self._rows
        for record in batch:
            row = rows.get((record.lineage, record.comm)) or self._row((record.lineage, record.comm))
            row[0] += 1
            row[1] += record.runtime_ns
            if record.cpu_ns is None:
                row[3] += 1
            else:
                row[2] += record.cpu_ns

    def sums(self) -> dict[Stack, Sums]:
        """Return a copy."""
        return {(*(lineage or (UNKNOWN,)), comm) if comm else lineage: Sums(*row) for (lineage, comm), row in self._rows.items()}

    def _row(self, key: tuple[Stack, bytes]) -> list[int]:
        if len(self._rows) >= self._most:
            key = (OTHERS,), b""
        return self._rows.setdefault(key, [0, 0, 0, 0])


class Sample(NamedTuple):
    """What was seen in the last seconds."""

    sums: Mapping[Stack, Sums]
    dropped: int
    """Short processes of that time whose records were dropped."""


class _Slice:
    def __init__(self, begun_ns: int) -> None:
        self.begun_ns = begun_ns
        self.stacks = Stacks(_MOST_IN_SLICE)
        self.dropped = 0


class RecentStacks:
    """Sums of the last `WINDOW_SECONDS`, in slices of 15 s."""

    def __init__(self, now: Callable[[], int] = time.monotonic_ns) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._slices = deque([_Slice(now())])
        self._dropped = 0

    def add(self, batch: Iterable[Record]) -> None:
        """Add records."""
        with self._lock:
            self._latest().stacks.add(batch)

    def note_dropped(self, dropped: int) -> None:
        """Note how many records were dropped before they came here, since the start."""
        with self._lock:
            self._latest().dropped += dropped - self._dropped
            self._dropped = dropped

    def within(self, seconds: float) -> Sample:
        """Return what was seen in the last `seconds`, and up to a slice more."""
        with self._lock:
            self._latest()
            since_ns = self._now() - seconds * NS - _SLICE_NS
            recent = [(each.stacks.sums(), each.dropped) for each in self._slices if each.begun_ns > since_ns]
        sums: dict[Stack, Sums] = {}
        for each, _ in recent:
            for stack, more in each.items():
                sums[stack] = sums.get(stack, NOTHING).plus(more)
        return Sample(sums, sum(dropped for _, dropped in recent))

    def _latest(self) -> _Slice:
        now = self._now()
        if now - self._slices[-1].begun_ns >= _SLICE_NS:
            self._slices.append(_Slice(now))
            while now - self._slices[0].begun_ns >= WINDOW_SECONDS * NS + _SLICE_NS:
                self._slices.popleft()
        return self._slices[-1]
