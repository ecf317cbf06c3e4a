"""The data between the exporter and the handlers' child: frames of records to the child, a page of numbers back.

A frame is its size, whether it is for the handlers that do not wait for CPU, then the records as a pickle. Only the exporter writes pickles
and only the child reads them, since the writer of a pickle can run code in its reader. The page is a memory file that the child writes and
the exporter reads. It contains only unsigned 64-bit numbers, so a compromised child can at worst report wrong ones. Metrics
of handlers come back another way: `registries.py`.
"""

from __future__ import annotations

import mmap
import os
import pickle
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from exporter.records.record import Record

MOST_RECORDS = 500
"""Most records in a frame, and in a call of a handler."""

MOST_FRAME_BYTES = 4 << 20
"""More than 500 records take whose names are all as long as Linux and systemd allow."""

_HEAD = struct.Struct("<I?")


def frame(batch: Sequence[Record], *, at_once: bool = False) -> bytes:
    """Return a frame of at most `MOST_RECORDS` records. Raises `ValueError` if they are larger than valid records can be."""
    body = pickle.dumps([tuple(record) for record in batch], pickle.HIGHEST_PROTOCOL)  # as tuples, in a third of the time
    if len(body) > MOST_FRAME_BYTES:
        raise ValueError(f"{len(body)} bytes")
    return _HEAD.pack(len(body), at_once) + body


class Frames:
    """Decodes a stream of bytes into records."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[list[Record], bool]]:
        """Yield the records of the frames that `data` completes, at most `MOST_RECORDS` at a time, and their `at_once`."""
        data = self._rest + data
        at, records, before = 0, list[Record](), False
        while len(data) - at >= _HEAD.size:
            begin = at + _HEAD.size
            size, at_once = _HEAD.unpack_from(data, at)
            end = begin + size
            if end > len(data):
                break
            batch = list(map(Record._make, pickle.loads(data[begin:end])))  # noqa: S301 - the exporter wrote it
            if records and (at_once is not before or len(records) + len(batch) > MOST_RECORDS):
                yield records, before
                records = []
            records += batch
            before = at_once
            at = end
        self._rest = data[at:]
        if records:
            yield records, before


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

    def numbers(self) -> tuple[int, int, int, int]:
        return self.handled, self.errors, self.lost, self.pending


class Page(NamedTuple):
    """The content of the page, as read by the exporter."""

    progress: int
    """Increases with each step; odd while the child runs a handler."""
    current: int
    """Number of that handler."""
    done: int
    """Records that all handlers have processed."""
    tallies: tuple[HandlerTally, ...]


_FIRST = 3
_EACH = len(HandlerTally().numbers())


def page_size(handlers: int) -> int:
    return 8 * (_FIRST + _EACH * handlers)


def read_page(fd: int, handlers: int) -> Page | None:
    """Return the content of the page, or None if the child has damaged it."""
    size = page_size(handlers)
    data = os.pread(fd, size, 0)
    if len(data) != size:
        return None
    progress, current, done, *rest = struct.unpack(f"={size // 8}Q", data)
    tallies = tuple(HandlerTally(*rest[at : at + _EACH]) for at in range(0, len(rest), _EACH))
    return Page(progress, current, done, tallies)


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
