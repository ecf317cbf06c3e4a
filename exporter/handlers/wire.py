"""The data between the exporter and the handlers' child: frames of records to the child, a page of numbers back.

A frame is its size, what it contains, then records or events as a pickle. Only the exporter writes pickles and only the child reads them,
since the writer of a pickle can run code in its reader. The page is a memory file that the child writes and the exporter reads. It contains
only unsigned 64-bit numbers, so a compromised child can at worst report wrong ones. Metrics of handlers come back another way:
`registries.py`.
"""

from __future__ import annotations

import mmap
import os
import pickle
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from exporter.model.events import EventKind
from exporter.records.event import Event
from exporter.records.record import Record

MOST_RECORDS = 500
"""Most records or events in a frame, and in a call of a handler."""

MOST_FRAME_BYTES = 4 << 20
"""More than 500 records take whose names are all as long as Linux and systemd allow."""

_HEAD = struct.Struct("<IB")


class Content(IntEnum):
    """What a frame contains."""

    RECORDS = 0
    AT_ONCE = 1
    """Records for the handlers that do not wait for CPU."""
    EVENTS = 2


_MAKE: dict[Content, Callable[[Any], Any]] = {
    Content.RECORDS: Record._make,
    Content.AT_ONCE: Record._make,
    Content.EVENTS: Event._make,
}


def frame(batch: Sequence[Record | Event], content: Content = Content.RECORDS) -> bytes:
    """Return a frame of at most `MOST_RECORDS` records or events. Raises `ValueError` if they are larger than valid ones can be."""
    body = pickle.dumps([tuple(record) for record in batch], pickle.HIGHEST_PROTOCOL)  # as tuples, in a third of the time
    if len(body) > MOST_FRAME_BYTES:
        raise ValueError(f"{len(body)} bytes")
    return _HEAD.pack(len(body), content) + body


def count_kinds(batch: Iterable[Event]) -> list[int]:
    """Return the number of events of each kind, by `EventKind.position`."""
    counts = [0] * len(EventKind)
    for event in batch:
        counts[event.kind.position] += 1
    return counts


class Frames:
    """Decodes a stream of bytes into records and events."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[list[Any], Content]]:
        """Yield the records or events of the frames that `data` completes, at most `MOST_RECORDS` at a time."""
        data = self._rest + data
        at, items, before = 0, list[Any](), Content.RECORDS
        while len(data) - at >= _HEAD.size:
            begin = at + _HEAD.size
            size, number = _HEAD.unpack_from(data, at)
            end = begin + size
            if end > len(data):
                break
            content = Content(number)
            batch = list(map(_MAKE[content], pickle.loads(data[begin:end])))  # noqa: S301 - the exporter wrote it
            if items and (content is not before or len(items) + len(batch) > MOST_RECORDS):
                yield items, before
                items = []
            items += batch
            before = content
            at = end
        self._rest = data[at:]
        if items:
            yield items, before


@dataclass(slots=True)
class HandlerTally:
    """Counts of a handler."""

    handled: int = 0
    errors: int = 0
    """Calls that raised; for a sink, writes that failed."""
    lost: int = 0
    """Records lost because it raised, could not be made, or (a sink) had no room."""
    pending: int = 0
    """Records that a sink has not written yet."""
    events: int = 0
    """Events that it processed."""
    lost_events: int = 0
    """Events lost because it raised, or could not be made."""

    def numbers(self) -> tuple[int, int, int, int, int, int]:
        return self.handled, self.errors, self.lost, self.pending, self.events, self.lost_events


class Page(NamedTuple):
    """The content of the page, as read by the exporter."""

    progress: int
    """Increases with each step; odd while the child runs a handler."""
    current: int
    """Number of that handler."""
    done: int
    """Records that all handlers have processed."""
    events_done: tuple[int, ...]
    """The same for events, by `EventKind.position`."""
    tallies: tuple[HandlerTally, ...]


_EVENTS = 3
_FIRST = _EVENTS + len(EventKind)
_EACH = len(HandlerTally().numbers())


def page_size(handlers: int) -> int:
    return 8 * (_FIRST + _EACH * handlers)


def read_page(fd: int, handlers: int) -> Page | None:
    """Return the content of the page, or None if the child has damaged it."""
    size = page_size(handlers)
    data = os.pread(fd, size, 0)
    if len(data) != size:
        return None
    numbers = struct.unpack(f"={size // 8}Q", data)
    tallies = tuple(HandlerTally(*numbers[at : at + _EACH]) for at in range(_FIRST, len(numbers), _EACH))
    progress, current, done = numbers[:_EVENTS]
    return Page(progress, current, done, numbers[_EVENTS:_FIRST], tallies)


class PageWriter:
    """Writes the page, in the child. Each number is one aligned store."""

    def __init__(self, fd: int, handlers: int) -> None:
        self._numbers = memoryview(mmap.mmap(fd, page_size(handlers))).cast("Q")

    def enter(self, handler: int) -> None:
        """Note that a handler is called."""
        self._numbers[1] = handler
        self._numbers[0] += 1

    def leave(self, handler: int, tally: HandlerTally) -> None:
        """Note that it has returned, and its counts."""
        at = _FIRST + _EACH * handler
        for number in tally.numbers():
            self._numbers[at] = number
            at += 1
        self._numbers[0] += 1

    def done(self, records: int) -> None:
        """Note that all handlers have processed so many records."""
        self._numbers[2] += records

    def events_done(self, counts: Iterable[int]) -> None:
        """The same for events, by `EventKind.position`."""
        for at, n in enumerate(counts, _EVENTS):
            self._numbers[at] += n
