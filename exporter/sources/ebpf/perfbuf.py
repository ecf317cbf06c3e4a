"""The kernel's perf buffers of records, one for each CPU, where it has no ring buffer (before 5.8).

Layout of the memory: struct perf_event_mmap_page and PERF_RECORD_SAMPLE in include/uapi/linux/perf_event.h. A page that tells how far the
kernel has written and how far we have read, then the data once, so that a record may be in two pieces.
"""

from __future__ import annotations

import ctypes
import mmap
from struct import Struct
from typing import Any

from exporter.kernel.layout import RECORD_FORMAT, RecordLayout

_HEADER = Struct("=IHH")  # type, misc, size
_LOST, _SAMPLE = 2, 9
_LOST_BODY = Struct("=8x8xQ")  # header, id, lost
_RECORD = Struct(f"=8x4x{RECORD_FORMAT}")  # header, bytes that follow
_SAMPLE_BYTES = (_HEADER.size + 4 + ctypes.sizeof(RecordLayout) + 7) // 8 * 8
_HEAD, _TAIL = 1024 // 8, 1032 // 8
_BATCH = 4096
"""Records of all buffers together, about: what waits in those of many CPUs would be much memory."""


class PerfBuffers:
    """Records of each CPU apart. Not safe for threads. The kernel may go on writing while they are read."""

    def __init__(self, descriptors: list[int], size: int, *, count_lost: bool) -> None:
        """Map perf events, each with `size` bytes of data. Raises `OSError`.

        `count_lost` on kernels (before 5.1) whose programs are not told that there was no room.
        """
        self.descriptors = descriptors
        self.lost = 0
        self._count_lost = count_lost
        self._most_bytes = max(1, _BATCH // max(1, len(descriptors))) * _SAMPLE_BYTES
        self._buffers: list[_Buffer] = []
        try:
            for fd in descriptors:
                self._buffers.append(_Buffer(fd, size))
        except OSError:
            self.close()
            raise

    def pop(self) -> list[tuple[Any, ...]]:
        """A batch, in the order of time; see `RecordBuffer`."""
        popped: list[tuple[Any, ...]] = []
        for buffer in self._buffers:
            data = buffer.peek(self._most_bytes)
            at = 0
            while at + _HEADER.size <= len(data):
                kind, _, size = _HEADER.unpack_from(data, at)
                if at + size > len(data):
                    break
                if kind == _SAMPLE and size == _SAMPLE_BYTES:
                    popped.append(_RECORD.unpack_from(data, at))
                elif kind == _LOST and self._count_lost:
                    self.lost += _LOST_BODY.unpack_from(data, at)[0]
                at += size
            buffer.skip(at)
        popped.sort()  # by when it ended
        return popped

    def close(self) -> None:
        """Unmap."""
        while self._buffers:
            self._buffers.pop().close()


class _Buffer:
    def __init__(self, fd: int, size: int) -> None:
        self._size = size
        self._memory = mmap.mmap(fd, mmap.PAGESIZE + size)
        whole = memoryview(self._memory)
        self._positions = whole[: mmap.PAGESIZE].cast("Q")
        self._data = whole[mmap.PAGESIZE :]

    def peek(self, most: int) -> bytes:
        """At most that many bytes of what is there."""
        tail = self._positions[_TAIL]
        n = min(self._positions[_HEAD] - tail, most)
        begin = tail % self._size
        first = self._data[begin : begin + n]
        return bytes(first) + bytes(self._data[: n - len(first)])

    def skip(self, n: int) -> None:
        """Give the kernel so much room back."""
        self._positions[_TAIL] += n

    def close(self) -> None:
        self._positions.release()
        self._data.release()
        self._memory.close()
