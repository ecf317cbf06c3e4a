"""Reads records from a BPF ring buffer.

Memory layout: kernel/bpf/ringbuf.c. The first page has the position of the reader, the second page that of the kernel. The data follows
twice, so a record never wraps around. Each record has a header of eight bytes: its length, with a bit that is set while the record is
being written, and a number for the kernel.
"""

from __future__ import annotations

import ctypes
import mmap
from struct import Struct
from typing import Any

from exporter.kernel.layout import RECORD_FORMAT, RECORDS_BYTES, RecordLayout

_HEADER = 8
_STRIDE = _HEADER + ctypes.sizeof(RecordLayout)
_RECORD = Struct(f"={_HEADER}x{RECORD_FORMAT}")
_WORDS = _STRIDE // 4
_BUSY = 1 << 31
_BATCH = 512


class Ring:
    """The ring buffer of all CPUs. Not thread-safe. The kernel may write while it is read."""

    lost = 0
    """Always 0: the programs count records that do not fit."""

    def __init__(self, fd: int) -> None:
        """Map the ring buffer `fd`, with `RECORDS_BYTES` bytes of data. Raises `OSError`."""
        self.descriptors = [fd]
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(fd, page)
        try:
            self._producer = mmap.mmap(fd, page + 2 * RECORDS_BYTES, prot=mmap.PROT_READ, offset=page)
        except OSError:
            self._consumer.close()
            raise
        self._position = memoryview(self._consumer).cast("Q")
        self._written = memoryview(self._producer)[:8].cast("Q")
        self._data = memoryview(self._producer)[page:]

    def pop(self) -> list[tuple[Any, ...]]:
        """Return a batch of complete records; see `RecordBuffer`."""
        position = self._position[0]
        at = position % RECORDS_BYTES
        n = min((self._written[0] - position) // _STRIDE, _BATCH, len(self._data) // _STRIDE)
        headers = self._data[at : at + n * _STRIDE].cast("I")[::_WORDS].tolist()
        complete = next((number for number, header in enumerate(headers) if header & _BUSY), len(headers))
        popped = list(_RECORD.iter_unpack(self._data[at : at + complete * _STRIDE]))
        self._position[0] = position + complete * _STRIDE
        return popped

    def close(self) -> None:
        """Unmap."""
        for view in (self._position, self._written, self._data):
            view.release()
        self._consumer.close()
        self._producer.close()
