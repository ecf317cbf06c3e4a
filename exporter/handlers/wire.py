"""What goes between the exporter and the handlers' child: frames of records one way, a page of numbers the other way.

A frame is its size, then the records as a pickle: the exporter writes it and the child reads it, never the other way round, since
whoever writes a pickle can run code in whoever reads it. The page is a memory file that the child writes and the exporter reads; it holds
nothing but unsigned 64-bit numbers: a child gone bad can say nothing worse than a wrong one.
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
"""In a frame, and in a call of a handler."""

MOST_FRAME_BYTES = 4 << 20
"""Twice what 500 records take whose every name is as long as Linux allows."""

_SIZE = struct.Struct("<I")


def frame(batch: Sequence[Record]) -> bytes:
    """Pack at most `MOST_RECORDS` records. Raises `ValueError` if they are larger than records can be."""
    body = pickle.dumps([tuple(record) for record in batch], pickle.HIGHEST_PROTOCOL)  # as tuples: a third of the time
    if len(body) > MOST_FRAME_BYTES:
        raise ValueError(f"{len(body)} bytes")
    return _SIZE.pack(len(body)) + body


class Frames:
    """Puts a stream of bytes together to records again."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[list[Record]]:
        """Return the records of the frames that are complete now, at most `MOST_RECORDS` at a time."""
        data = self._rest + data
        at, records = 0, list[Record]()
        while len(data) - at >= _SIZE.size:
            begin = at + _SIZE.size
            end = begin + _SIZE.unpack_from(data, at)[0]
            if end > len(data):
                break
            batch = list(map(Record._make, pickle.loads(data[begin:end])))  # noqa: S301 - the exporter wrote it
            if len(records) + len(batch) > MOST_RECORDS:
                yield records
                records = []
            records += batch
            at = end
        self._rest = data[at:]
        if records:
            yield records


@dataclass(slots=True)
class HandlerTally:
    """What became of a handler's records."""

    handled: int = 0
    errors: int = 0
    """Calls that raised; writes that failed, in a sink."""
    lost: int = 0
    """Records that it should have had: it raised, could not be made, or its sink had no room left."""
    pending: int = 0
    """Records that a sink keeps until it can write them."""

    def numbers(self) -> tuple[int, int, int, int]:
        return self.handled, self.errors, self.lost, self.pending


class Page(NamedTuple):
    """The page as the exporter reads it."""

    progress: int
    """Rises with each step; odd while the child runs somebody's code."""
    current: int
    """Which handler that is."""
    done: int
    """Records that went through all handlers."""
    tallies: tuple[HandlerTally, ...]


_FIRST = 3
_EACH = len(HandlerTally().numbers())


def page_size(handlers: int) -> int:
    return 8 * (_FIRST + _EACH * handlers)


def read_page(fd: int, handlers: int) -> Page | None:
    """Read it, or None where the child has spoilt it."""
    size = page_size(handlers)
    data = os.pread(fd, size, 0)
    if len(data) != size:
        return None
    progress, current, done, *rest = struct.unpack(f"={size // 8}Q", data)
    tallies = tuple(HandlerTally(*rest[at : at + _EACH]) for at in range(0, len(rest), _EACH))
    return Page(progress, current, done, tallies)


class PageWriter:
    """The page as the child writes it. Each number is one aligned store."""

    def __init__(self, fd: int, handlers: int) -> None:
        self._numbers = memoryview(mmap.mmap(fd, page_size(handlers))).cast("Q")

    def enter(self, handler: int) -> None:
        """Somebody's code begins."""
        self._numbers[1] = handler
        self._numbers[0] += 1

    def leave(self, handler: int, tally: HandlerTally) -> None:
        """It came back."""
        at = _FIRST + _EACH * handler
        for number in tally.numbers():
            self._numbers[at] = number
            at += 1
        self._numbers[0] += 1

    def done(self, records: int) -> None:
        """They went through all handlers."""
        self._numbers[2] += records
