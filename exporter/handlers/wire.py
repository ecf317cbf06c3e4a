"""What goes between the exporter and the handlers' child: frames of records one way, a page of numbers the other way.

A frame is its size and how many records it holds, then the records: fixed fields, then four names. The page is a memory file that the
child writes and the exporter reads; it holds nothing but unsigned 64-bit numbers: a child gone bad can say nothing worse than a wrong one.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from exporter.model import Mode, Record

MOST_RECORDS = 500
"""In a frame, and in a call of a handler."""

_HEAD = struct.Struct("<II")
_RECORD = struct.Struct("<qqIIqqiBBBBHH")
_MODES = tuple(Mode)
_MODE_NUMBERS = {mode: number for number, mode in enumerate(_MODES)}
_MOST_NAME, _MOST_PATH = 255, 65535


def frame(batch: Sequence[Record]) -> bytes:
    """Pack records. Raises `struct.error` for a number that no record can have."""
    parts = [b""]
    for ended, runtime, pid, ppid, uid, comm, parent, exe, outcome, code, cpu, cgroup, mode in batch:
        names = comm[:_MOST_NAME], parent[:_MOST_NAME], exe[:_MOST_PATH], cgroup[:_MOST_PATH]
        sizes = map(len, names)
        fixed = (-1 if uid is None else uid, -1 if cpu is None else cpu, -1 if code is None else code, outcome, _MODE_NUMBERS[mode])
        parts.append(_RECORD.pack(ended, runtime, pid, ppid, *fixed, *sizes))
        parts.extend(names)
    parts[0] = _HEAD.pack(sum(map(len, parts)), len(batch))
    return b"".join(parts)


class Frames:
    """Puts a stream of bytes together to records again."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[list[Record]]:
        """Give the records of the frames that are complete now, at most `MOST_RECORDS` at a time."""
        data = self._rest + data
        at, records = 0, list[Record]()
        while len(data) - at >= _HEAD.size:
            size, count = _HEAD.unpack_from(data, at)
            end = at + _HEAD.size + size
            if end > len(data):
                break
            if len(records) + count > MOST_RECORDS:
                yield records
                records = []
            _read(data, at + _HEAD.size, count, records)
            at = end
        self._rest = data[at:]
        if records:
            yield records


def _read(data: bytes, at: int, count: int, records: list[Record]) -> None:
    for _ in range(count):
        ended, runtime, pid, ppid, uid, cpu, code, outcome, mode, comm, parent, exe, cgroup = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        parent += comm
        exe += parent
        cgroup += exe
        names = data[at : at + cgroup]
        at += cgroup
        records.append(
            Record(
                ended,
                runtime,
                pid,
                ppid,
                None if uid < 0 else uid,
                names[:comm],
                names[comm:parent],
                names[parent:exe],
                outcome,
                None if code < 0 else code,
                None if cpu < 0 else cpu,
                names[exe:],
                _MODES[mode],
            )
        )


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
