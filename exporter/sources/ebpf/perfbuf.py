"""Reads records from perf buffers, one for each CPU: for kernels without ring buffers (before 5.8).

Memory layout: struct perf_event_mmap_page and PERF_RECORD_SAMPLE in include/uapi/linux/perf_event.h. The first page has the positions of
the kernel (head) and the reader (tail). The data follows once, so a record may wrap around. The head is read before the
data, and the data before the tail is moved.
"""

from __future__ import annotations

import ctypes
import mmap
from struct import Struct
from typing import Any

from exporter.kernel.architecture import new_fence
from exporter.kernel.layout import RECORD_WITH_EXE_FORMAT, RecordWithExe
from exporter.sources.ebpf.lineages import Lineages

_HEADER = Struct("=IHH")  # type, misc, size
_LOST, _SAMPLE = 2, 9
_LOST_BODY = Struct("=8x8xQ")  # header, id, lost
_RECORD = Struct(f"=8x4x{RECORD_WITH_EXE_FORMAT}")  # header, size of the data
_SAMPLE_BYTES = (_HEADER.size + 4 + ctypes.sizeof(RecordWithExe) + 7) // 8 * 8
_HEAD, _TAIL = 1024 // 8, 1032 // 8
_BATCH = 4096
"""Approximate number of records read at once from all buffers. It bounds memory on hosts with many CPUs."""


class PerfBuffers:
    """The perf buffers of all CPUs. Not thread-safe. The kernel may write while they are read."""

    def __init__(self, descriptors: list[int], size: int, *, count_lost: bool) -> None:
        """Map perf events, each with `size` bytes of data. Raises `OSError`.

        Set `count_lost` before Linux 5.1, where programs do not notice that a buffer is full.
        """
        self.descriptors = descriptors
        self.lineages = Lineages()
        self.join = None
        self.wakes_when_full = False
        self.exes_lost = 0
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
        """Return a batch of records, sorted by time of exit; see `RecordBuffer`."""
        popped: list[tuple[Any, ...]] = []
        for buffer in self._buffers:
            data = buffer.peek(self._most_bytes)
            at = 0
            while at + _HEADER.size <= len(data):
                kind, _, size = _HEADER.unpack_from(data, at)
                if size < _HEADER.size:  # corrupt: where the next message begins is not known
                    self.lost += 1
                    at = len(data)
                    break
                if at + size > len(data):
                    break
                if kind == _SAMPLE and size == _SAMPLE_BYTES:
                    popped.append(_RECORD.unpack_from(data, at))
                elif kind == _LOST and size == _LOST_BODY.size and self._count_lost:
                    self.lost += _LOST_BODY.unpack_from(data, at)[0]
                at += size
            buffer.skip(at)
        popped.sort()  # by `ended_ns`, the first field
        return popped

    def close(self) -> None:
        """Unmap."""
        while self._buffers:
            self._buffers.pop().close()


class _Buffer:
    def __init__(self, fd: int, size: int) -> None:
        self._size = size
        self._memory = mmap.mmap(fd, mmap.PAGESIZE + size)
        self._fence = new_fence()
        whole = memoryview(self._memory)
        self._positions = whole[: mmap.PAGESIZE].cast("Q")
        self._data = whole[mmap.PAGESIZE :]

    def peek(self, most: int) -> bytes:
        """Return the unread data, at most `most` bytes."""
        tail = self._positions[_TAIL]
        n = min(self._positions[_HEAD] - tail, most)
        if self._fence:
            self._fence()
        begin = tail % self._size
        first = self._data[begin : begin + n]
        return bytes(first) + bytes(self._data[: n - len(first)])

    def skip(self, n: int) -> None:
        """Mark `n` bytes as read."""
        if self._fence:
            self._fence()
        self._positions[_TAIL] += n

    def close(self) -> None:
        self._positions.release()
        self._data.release()
        self._memory.close()
